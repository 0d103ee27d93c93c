//! One case under callgrind: start it, and read what was counted.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Does a case in a process of its own; returns the instructions of what it
/// calls `measured`.
///
/// # Errors
/// What went wrong, for who is at the terminal.
pub(crate) fn count(case: &str) -> Result<u64, String> {
    let profile = profile_of(case)?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*::measured"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args(["--case", case])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start valgrind: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{case}: {}\n{said}", output.status));
    }
    let profile = std::fs::read_to_string(&profile).map_err(|error| error.to_string())?;
    let summary = profile.lines().find_map(|it| it.strip_prefix("summary: "));
    let count = summary.and_then(|count| count.trim().parse().ok());
    count
        .filter(|count| *count > 0)
        .ok_or_else(|| format!("{case}: nothing was counted"))
}

/// Where profiles are kept, for `callgrind_annotate`.
pub(crate) fn profiles() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions")
}

fn profile_of(case: &str) -> Result<PathBuf, String> {
    let directory = profiles();
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    Ok(directory.join(format!("{}.out", case.replace(['/', ' '], "-"))))
}
