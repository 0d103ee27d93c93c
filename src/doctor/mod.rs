//! `runcast doctor`: finds what stands between a browser and live events, and
//! says how to mend it.
//!
//! It follows a run of its own through whatever stands before the broker, and
//! posts events to it meanwhile: what comes late or changed on that way, does
//! for every client. What only the broker can see, it is asked for.

mod args;
mod client;
mod dependencies;
mod listener;
mod page;
mod report;
mod stream;

use std::io::Write as _;
use std::process::ExitCode;

use client::Client;
use report::Report;

pub(crate) use args::DoctorArgs;

/// Nothing answers at the address, or not a broker.
const EXIT_UNREACHABLE: u8 = 2;

/// Examines the broker at an address and prints what was found. The exit code
/// is 0 if nothing was, 1 if something was, 2 if no broker answers there.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) async fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(args)?;
    let place = args.url.origin().ascii_serialization();
    let config = client.get("/api/v1/config").await;
    let unreachable = match &config {
        Err(error) => Some(format!("no answer from {place}: {error}")),
        Ok(answer) if answer.json["default_backend"].is_null() => Some(format!(
            "no Runcast broker at {place}{}: {}",
            args.url.path(),
            answer.told()
        )),
        Ok(_) => None,
    };
    let config = match (unreachable, config) {
        (None, Ok(config)) => config,
        (why, _) => {
            crate::say(&why.unwrap_or_default());
            return Ok(ExitCode::from(EXIT_UNREACHABLE));
        }
    };
    let mut report = Report {
        url: args.url.origin().ascii_serialization(),
        ..Report::default()
    };
    page::examine(&client, &config, &mut report).await;
    let backend = config.json["default_backend"].as_str().unwrap_or_default();
    stream::examine(&client, backend, &mut report).await;
    dependencies::examine(&client, backend, &mut report).await;
    // What is wrong behind shows before, too.
    let shown = ["stream-refused", "publish-refused"];
    report.explained("redis-", &shown);
    report.explained("kubectl-", &shown);
    let mut out = anstream::stdout().lock();
    report.print(&mut out, args.json)?;
    out.flush()?;
    Ok(match report.findings.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

#[cfg(test)]
mod tests {
    /// Each code stands in a call of its own.
    fn codes(source: &str) -> impl Iterator<Item = &str> {
        let calls = source.split("report.find(").skip(1);
        calls.filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next())
    }

    #[test]
    fn the_guide_names_every_finding() {
        let guide = include_str!("../../docs/operations.md");
        let sources = [
            include_str!("dependencies.rs"),
            include_str!("page.rs"),
            include_str!("stream.rs"),
        ];
        let found: Vec<_> = sources.into_iter().flat_map(codes).collect();
        assert!(found.len() >= 20, "{found:?}");
        for code in found {
            assert!(guide.contains(&format!("`{code}`")), "{code}");
        }
    }
}
