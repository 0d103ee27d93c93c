//! [`Verdict`]: how a run ended, and the exit code that says so.

use runcast_actors::protocol::{json_field, json_string_or_field};

/// The exit code after Ctrl-C and of a cancelled run, as a shell has it.
pub(super) const EXIT_INTERRUPTED: u8 = 130;
/// The exit code of a run that took too long, as timeout(1) has it.
const EXIT_TIMEOUT: u8 = 124;
const EXIT_FAILED: u8 = 1;

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The terminal status, in lower case.
    pub(super) status: String,
    /// What the terminal status event told about the program's own exit code.
    pub(super) exit_code: Option<u8>,
}

impl Verdict {
    /// Reads the data of an `end` event; `last_status` is the data of the last
    /// status event seen.
    pub(super) fn read(end: &str, last_status: Option<&str>) -> Option<Self> {
        let status = json_string_or_field(end, "status")?.to_lowercase();
        let last = last_status.filter(|json| {
            json_string_or_field(json, "status").is_some_and(|word| word.to_lowercase() == status)
        });
        let exit_code = last.and_then(|json| json_field(json, "exit_code"));
        Some(Self {
            exit_code: exit_code.and_then(|raw| raw.get().parse().ok()),
            status,
        })
    }

    /// Whether only the terminal status event tells the exit code for sure.
    pub(super) fn needs_status(&self) -> bool {
        code_of_word(&self.status).is_none_or(|code| code == EXIT_FAILED)
    }

    /// Returns the exit code: 0 for success, the program's own for a failure
    /// that tells it, else 1; 130 cancelled, 124 timeout. A status of somebody's
    /// own making counts as failed unless it tells another code.
    pub(super) fn exit_code(&self) -> u8 {
        match code_of_word(&self.status) {
            Some(EXIT_FAILED) => self
                .exit_code
                .filter(|code| *code > 0)
                .unwrap_or(EXIT_FAILED),
            Some(code) => code,
            None => self.exit_code.unwrap_or(EXIT_FAILED),
        }
    }
}

fn code_of_word(status: &str) -> Option<u8> {
    match status {
        "completed" | "succeeded" => Some(0),
        "failed" | "error" => Some(EXIT_FAILED),
        "cancelled" | "canceled" => Some(EXIT_INTERRUPTED),
        "timeout" => Some(EXIT_TIMEOUT),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(end: &str, last_status: Option<&str>, expected: u8) {
        let end = format!(r#"{{"status":"{end}","events":3}}"#);
        let verdict = Verdict::read(&end, last_status).expect("it has a status");
        assert_eq!(verdict.exit_code(), expected, "{end} {last_status:?}");
    }

    #[test]
    fn the_exit_code_is_the_runs() {
        check("completed", None, 0);
        check(
            "succeeded",
            Some(r#"{"status":"succeeded","exit_code":3}"#),
            0,
        );
        check("failed", None, 1);
        check("failed", Some(r#""failed""#), 1);
        check("failed", Some(r#"{"status":"FAILED","exit_code":3}"#), 3);
        check("error", Some(r#"{"status":"error","exit_code":255}"#), 255);
        for odd in ["0", "256", "-1", "1.5", "\"3\"", "null"] {
            check(
                "failed",
                Some(&format!(r#"{{"status":"failed","exit_code":{odd}}}"#)),
                1,
            );
        }
        check("failed", Some(r#"{"status":"running","exit_code":3}"#), 1);
        check("cancelled", None, 130);
        check("canceled", None, 130);
        check("timeout", None, 124);
        check("done", None, 1);
        check("done", Some(r#"{"status":"Done","exit_code":0}"#), 0);
    }

    #[test]
    fn an_end_without_a_status_is_no_verdict() {
        assert_eq!(Verdict::read("{}", None), None);
        assert_eq!(Verdict::read("not json", None), None);
    }

    #[test]
    fn only_a_failure_is_looked_into() {
        let needs = |status: &str| {
            let end = format!("\"{status}\"");
            Verdict::read(&end, None).expect("a status").needs_status()
        };
        assert!(!needs("completed"));
        assert!(needs("failed"));
        assert!(needs("done"));
    }
}
