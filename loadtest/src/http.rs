//! The little HTTP the tool needs beside its streams: one request, one answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of an answer.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// What follows the head, as it came.
    pub(crate) body: String,
}

/// Asks the server at `addr` for `path`.
///
/// # Errors
/// When there is no server, or what it answers is not HTTP.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Result<Answer> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    // In one piece: the bare loop reads no other.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    socket.take(BYTES_MAX).read_to_end(&mut bytes)?;
    parse(&String::from_utf8_lossy(&bytes)).with_context(|| format!("no HTTP answer to {path}"))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(Answer {
        status,
        body: body.to_owned(),
    })
}

/// Returns the sum of all samples of a Prometheus family, 0 of none.
pub(crate) fn sum_samples(text: &str, family: &str) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(family))
        .filter(|rest| rest.starts_with([' ', '{']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_split_into_status_and_body() {
        let answer = parse("HTTP/1.1 404 Not Found\r\nA: b\r\n\r\nbody").expect("HTTP");
        assert_eq!((answer.status, answer.body.as_str()), (404, "body"));
        assert!(parse("SSH-2.0").is_none());
        assert!(parse("HTTP/1.1 20\r\n\r\n").is_none());
    }

    #[test]
    fn only_samples_of_the_family_itself_count() {
        let text =
            "# HELP a_total x\na_total{k=\"1\"} 2\na_total{k=\"2\"} 3\na_total_more 9\nb 7\n";
        assert_eq!(sum_samples(text, "a_total"), 5.0);
        assert_eq!(sum_samples(text, "b"), 7.0);
        assert_eq!(sum_samples(text, "c"), 0.0);
    }
}
