//! Progress bars on standard error; invisible when it is no terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a bar moves.
const TICK: Duration = Duration::from_millis(50);

/// A bar of something that has a known length.
pub(crate) fn bar(what: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:>12} [{bar:40}] {percent:>3}% {elapsed}")
        .expect("the template is well-formed");
    ProgressBar::new(length)
        .with_style(style)
        .with_message(what)
}

/// Waits, and shows how long it still takes.
pub(crate) fn wait(what: &'static str, duration: Duration) {
    let bar = bar(what, duration.as_millis() as u64);
    let started = Instant::now();
    while let Some(left) = duration.checked_sub(started.elapsed()) {
        bar.set_position(started.elapsed().as_millis() as u64);
        std::thread::sleep(left.min(TICK));
    }
    bar.finish_and_clear();
}
