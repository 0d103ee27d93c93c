//! How long the parts of an event's way take, and what they allocate:
//! `make micro`. [`cases`] says what the parts are.

mod cases;

use std::cell::RefCell;

use cases::{SPECS, Spec};
use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// One run at a time: cases hold the input of the next run only.
#[divan::bench(args = SPECS, sample_size = 1, sample_count = 2000)]
fn micro(bencher: Bencher<'_, '_>, spec: &Spec) {
    let case = RefCell::new((spec.make)());
    bencher
        .counter(ItemsCount::new(spec.items))
        .with_inputs(|| case.borrow_mut().prepare())
        .bench_local_values(|()| case.borrow_mut().run());
}
