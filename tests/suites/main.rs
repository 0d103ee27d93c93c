//! The long suites: random faults, an outage of Redis, and two soaks, each for as
//! many seconds as its environment variable says, and a rolling deploy of as many
//! clients. Apart from the other tests, since they take the
//! time they are given.

#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the other test binary uses the rest of it"
)]
mod support;

mod failover;
mod faults;
mod hostile;
mod rolling;
mod soak;
mod times;
mod trend;

use std::str::FromStr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Returns the number in environment variable `name`, or `default`.
fn number_from_env<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text:?} is no number")),
        Err(_) => default,
    }
}

/// Every client is a file of this process, too.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("up to the hard limit anybody may");
}

/// Prints a line of a suite's report.
#[allow(clippy::print_stdout, reason = "a suite's report is its product")]
fn report(line: &str) {
    println!("{line}");
}
