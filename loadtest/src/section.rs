//! Figures in a document: a section between two markers, and what the figures
//! were measured with.

use std::fs;

use anyhow::{Context as _, Result};

/// Replaces what stands in `document` between the markers of the section that
/// `command` writes.
///
/// ```text
/// <!-- figures: begin, written by `make bench` -->
/// …
/// <!-- figures: end -->
/// ```
pub(crate) fn replace(document: &str, name: &str, command: &str, text: &str) -> Result<String> {
    let begin = format!("<!-- {name}: begin, written by `{command}` -->");
    let end = format!("<!-- {name}: end -->");
    let lacks = || format!("the document lacks the markers {begin} and {end}");
    let (before, rest) = document.split_once(&begin).with_context(lacks)?;
    let (_, after) = rest.split_once(&end).with_context(lacks)?;
    Ok(format!("{before}{begin}\n{text}{end}{after}"))
}

/// Returns today's date.
pub(crate) fn today() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d").to_string()
}

/// Returns the commit that lies here.
pub(crate) fn commit() -> String {
    first_line_of("git", &["describe", "--always", "--dirty"])
}

/// Describes this machine, its Rust and its Redis.
pub(crate) fn machine() -> String {
    let cpu = proc_value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".to_owned());
    let memory = proc_value("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .map_or_else(|| "?".to_owned(), |kib| format!("{:.0}", kib / 1e6 * 1.024));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let redis = first_line_of("redis-server", &["--version"]);
    format!(
        "{cores} cores of {cpu}, {memory} GB, Linux {kernel}; {rustc}; {redis}",
        kernel = kernel.trim(),
        rustc = first_line_of("rustc", &["--version"]),
        redis = redis.split(" sha").next().unwrap_or_default(),
    )
}

/// Returns the first line a program prints; nothing, if there is no such
/// program.
pub(crate) fn first_line_of(program: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn proc_value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::replace;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let document = |text: &str| {
            format!(
                "# Title\n<!-- a: begin, written by `make b` -->\n{text}<!-- a: end -->\nprose\n"
            )
        };
        let replaced = replace(&document("old\n"), "a", "make b", "new\n").expect("has markers");
        assert_eq!(replaced, document("new\n"));
        assert!(replace(&replaced, "other", "make b", "new\n").is_err());
        assert!(replace("# Title\n", "a", "make b", "new\n").is_err());
    }
}
