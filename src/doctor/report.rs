//! [`Report`]: what was found, for people and as JSON.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// Something that stands between a browser and live events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// A stable word for it.
    pub(super) code: &'static str,
    /// What was seen.
    pub(super) seen: String,
    /// Why that hurts.
    pub(super) why: &'static str,
    /// The lines that mend it, each with its place.
    pub(super) mend: Vec<String>,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// The broker asked.
    pub(super) url: String,
    /// What stands in the way.
    pub(super) findings: Vec<Finding>,
    /// What was looked at and is well.
    pub(super) fine: Vec<String>,
    /// What is worth knowing, or could not be looked at.
    pub(super) notes: Vec<String>,
}

impl Report {
    pub(super) fn fine(&mut self, text: impl Into<String>) {
        self.fine.push(text.into());
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Adds a finding; one of each code.
    pub(super) fn find(
        &mut self,
        code: &'static str,
        seen: impl Into<String>,
        why: &'static str,
        mend: &[&str],
    ) {
        if !self.has(code) {
            self.findings.push(Finding {
                code,
                seen: seen.into(),
                why,
                mend: mend.iter().map(ToString::to_string).collect(),
            });
        }
    }

    pub(super) fn has(&self, code: &str) -> bool {
        self.findings.iter().any(|finding| finding.code == code)
    }

    /// Adds a line to how a finding is mended, if there is such a one.
    pub(super) fn also(&mut self, code: &str, mend: &str) -> bool {
        let found = self.findings.iter_mut().find(|it| it.code == code);
        found.map(|it| it.mend.push(mend.to_owned())).is_some()
    }

    /// Drops findings that another one explains.
    pub(super) fn explained(&mut self, by: &str, codes: &[&str]) {
        if self.findings.iter().any(|it| it.code.starts_with(by)) {
            self.findings.retain(|it| !codes.contains(&it.code));
        }
    }

    /// # Errors
    /// When `out` cannot be written.
    pub(super) fn print(&self, out: &mut impl Write, json: bool) -> io::Result<()> {
        if json {
            serde_json::to_writer_pretty(&mut *out, self)?;
            return writeln!(out);
        }
        let bold = |color: AnsiColor| Style::new().bold().fg_color(Some(color.into()));
        let (bad, good) = (bold(AnsiColor::Red), bold(AnsiColor::Green));
        for text in &self.fine {
            writeln!(out, "{good}ok{good:#}    {text}")?;
        }
        for text in &self.notes {
            writeln!(out, "note  {text}")?;
        }
        for finding in &self.findings {
            let Finding { code, seen, .. } = finding;
            writeln!(out, "{bad}{code}{bad:#}: {seen}")?;
            writeln!(out, "      why:  {}", finding.why)?;
            for line in &finding.mend {
                writeln!(out, "      mend: {line}")?;
            }
        }
        match self.findings.len() {
            0 => writeln!(out, "nothing found"),
            1 => writeln!(out, "1 finding"),
            count => writeln!(out, "{count} findings"),
        }
    }
}
