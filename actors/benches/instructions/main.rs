//! Counts the instructions of each of [`cases`] under valgrind's callgrind, and
//! fails where one needs more than `budgets.toml` allows: `make instructions`.
//! They do not depend on what else a machine does, as times do.
//!
//! Started by cargo this drives: for each case it starts itself anew under
//! valgrind, with `--case NAME`. That one does the case a few times to warm up,
//! and then counted. Arguments, after `--`:
//!
//! ```text
//! --update    writes what was counted as the new budgets
//! TEXT …      only cases that have one of these in their names
//! ```
//!
//! A plain program, not a gungraun bench: that needs a runner of exactly its
//! own version installed on each machine, and keeps its limits in the source.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a table for who started it"
)]

mod budgets;
mod callgrind;
#[path = "../cases/mod.rs"]
mod cases;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use budgets::{Budgets, Counted};
use cases::{Case, SPECS, Spec};

/// Runs that fill caches and buffers before those that are counted.
const WARM_UP: usize = 8;

/// Runs that are counted: what comes only now and then has its share.
const COUNTED: usize = 16;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [option, name] = &arguments[..]
        && option == "--case"
    {
        do_case(name);
        return ExitCode::SUCCESS;
    }
    match drive(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does one case; valgrind counts what is in [`measured`].
fn do_case(name: &str) {
    let spec = SPECS.iter().find(|spec| spec.name == name);
    let mut case = (spec.expect("the name of a case").make)();
    for _ in 0..WARM_UP {
        case.prepare();
        case.run();
    }
    for _ in 0..COUNTED {
        case.prepare();
        measured(case.as_mut());
    }
}

/// Found by its name: callgrind counts from its begin to its end.
#[inline(never)]
fn measured(case: &mut dyn Case) {
    case.run();
}

/// Counts, and says whether all is within the budgets.
fn drive(arguments: &[String]) -> Result<bool, String> {
    let (options, words): (Vec<&String>, Vec<&String>) = arguments
        .iter()
        .partition(|argument| argument.starts_with("--"));
    if let Some(unknown) = options.iter().find(|option| **option != "--update") {
        return Err(format!("{unknown}: no such option"));
    }
    let is_wanted = |spec: &&Spec| {
        words.is_empty() || words.iter().any(|word| spec.name.contains(word.as_str()))
    };
    let wanted: Vec<&Spec> = SPECS.iter().filter(is_wanted).collect();
    if wanted.is_empty() {
        return Err("no case has such a name".to_owned());
    }
    let counted = count_all(&wanted)?;
    let budgets = Budgets::read()?;
    let is_within = budgets.compare(&counted);
    if !options.is_empty() {
        budgets.update(&counted, words.is_empty())?;
        return Ok(true);
    }
    if !is_within {
        println!("\n`callgrind_annotate` shows what needs them, from the profiles in");
        println!("{}.", callgrind::profiles().display());
        println!("If it is to be so, `make instructions UPDATE=1`, and say why.");
    }
    Ok(is_within)
}

/// Counts all of `specs`, as many at once as there are cores.
fn count_all<'a>(specs: &[&'a Spec]) -> Result<Vec<Counted<'a>>, String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut counted = Vec::new();
        while let Some((at, spec)) = take(specs, &next) {
            let items = COUNTED as u64 * spec.items;
            let instructions = callgrind::count(spec.name)? as f64 / items as f64;
            counted.push((at, (spec, instructions)));
        }
        Ok(counted)
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let counted: Result<Vec<_>, String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let counted = threads.into_iter().map(thread::ScopedJoinHandle::join);
        counted.map(|it| it.expect("it does not panic")).collect()
    });
    let mut counted = counted?.concat();
    counted.sort_by_key(|(at, _)| *at);
    Ok(counted.into_iter().map(|(_, counted)| counted).collect())
}

fn take<'a>(specs: &[&'a Spec], next: &AtomicUsize) -> Option<(usize, &'a Spec)> {
    let at = next.fetch_add(1, Relaxed);
    specs.get(at).map(|spec| (at, *spec))
}
