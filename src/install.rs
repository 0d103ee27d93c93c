//! `runcast install`: puts this program into a volume, so that an image which
//! has no shell can hand it to the container of an agent (`runcast exec`).

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

/// Where `runcast install` puts the program.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct InstallArgs {
    /// A directory, or the file it is to be
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

/// Copies the running program, which can then be run from there: the image's
/// needs no library.
///
/// # Errors
///
/// When it cannot be read or written.
pub(crate) fn run(args: &InstallArgs) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let to = match args.path.is_dir() {
        true => args.path.join("runcast"),
        false => args.path.clone(),
    };
    // Beside it first: whoever starts it meanwhile finds the old one or the new
    // one, and one that runs can be replaced.
    let mut unfinished = to.clone().into_os_string();
    unfinished.push(".new");
    std::fs::copy(&program, &unfinished)
        .and_then(|_| std::fs::rename(&unfinished, &to))
        .with_context(|| format!("cannot write {}", to.display()))?;
    Ok(ExitCode::SUCCESS)
}
