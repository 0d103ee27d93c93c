//! What `kubectl logs` prints, cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runcast_actors::kubectl_line;

fuzz_target!(|input: &[u8]| kubectl_line::check(input));
