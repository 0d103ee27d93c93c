//! [`Poster`]: publishes by HTTP, over one connection, pipelined.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::Outlet;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of a line of an answer's head, and of its body.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// What a message is posted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PostBody {
    /// An output event in Runcast's JSON.
    Event,
    /// The payload, nothing else.
    Raw,
}

/// Where to post.
#[derive(Debug, Clone)]
pub(crate) struct PostTarget {
    /// The server's address.
    pub(crate) addr: SocketAddr,
    /// The `Host` header.
    pub(crate) host: String,
    /// A path for each run.
    pub(crate) paths: Vec<String>,
    /// What a message is posted as.
    pub(crate) body: PostBody,
}

/// A connection to post over.
pub(super) struct Poster {
    target: PostTarget,
    connection: BufReader<TcpStream>,
    /// The batch's requests, and where each ends.
    requests: Vec<u8>,
    ends: Vec<usize>,
}

impl Poster {
    pub(super) fn connect(target: PostTarget) -> Result<Self> {
        Ok(Self {
            connection: connect(target.addr)?,
            target,
            requests: Vec::new(),
            ends: Vec::new(),
        })
    }

    /// Posts the requests from number `from` on and reads answers until the
    /// last, or one that says the server closes after it, which drops what
    /// follows; returns the number of the first request without an answer.
    fn post_from(&mut self, from: usize) -> Result<usize> {
        let start = from.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.connection
            .get_mut()
            .write_all(&self.requests[start..])?;
        for number in from..self.ends.len() {
            if read_answer(&mut self.connection)? {
                self.connection = connect(self.target.addr)?;
                return Ok(number + 1);
            }
        }
        Ok(self.ends.len())
    }
}

impl Outlet for Poster {
    fn push(&mut self, run: usize, payload: &[u8]) {
        let PostTarget {
            host, paths, body, ..
        } = &self.target;
        let (before, after) = match body {
            PostBody::Event => (
                &b"{\"kind\":\"output\",\"source\":\"loadtest\",\"data\":"[..],
                "}",
            ),
            PostBody::Raw => (&b""[..], ""),
        };
        write!(
            self.requests,
            "POST {} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            paths[run],
            before.len() + payload.len() + after.len()
        )
        .expect("writing to memory cannot fail");
        self.requests.extend_from_slice(before);
        self.requests.extend_from_slice(payload);
        self.requests.extend_from_slice(after.as_bytes());
        self.ends.push(self.requests.len());
    }

    fn send(&mut self) -> Result<u64> {
        let mut answered = 0;
        while answered < self.ends.len() {
            answered = self.post_from(answered).context("cannot post")?;
        }
        self.requests.clear();
        self.ends.clear();
        Ok(0)
    }
}

fn connect(addr: SocketAddr) -> Result<BufReader<TcpStream>> {
    let socket = TcpStream::connect(addr).with_context(|| format!("cannot connect to {addr}"))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    Ok(BufReader::new(socket))
}

/// Reads an answer; returns whether the server closes after it.
///
/// # Errors
/// When it is not a success, or its end cannot be told.
fn read_answer(connection: &mut impl std::io::BufRead) -> Result<bool> {
    let status_line = read_line(connection)?;
    let status = status_line.get(9..12).unwrap_or_default();
    let (mut closes, mut chunked, mut length) = (false, false, None);
    loop {
        let line = read_line(connection)?.to_ascii_lowercase();
        match line
            .split_once(':')
            .map(|(name, value)| (name, value.trim()))
        {
            Some(("connection", value)) => closes = value == "close",
            Some(("transfer-encoding", value)) => chunked = value == "chunked",
            Some(("content-length", value)) => length = Some(value.parse::<u64>()?),
            Some(_) => {}
            None => break,
        }
    }
    let body = match length {
        _ if chunked => read_chunks(connection)?,
        Some(length) => read_body(connection, length)?,
        None if status == "204" => String::new(),
        None => bail!("an answer of status {status} without a length"),
    };
    ensure!(
        status.starts_with('2'),
        "the server answered a post with {status_line}: {body}"
    );
    Ok(closes)
}

fn read_chunks(connection: &mut impl std::io::BufRead) -> Result<String> {
    let mut body = String::new();
    loop {
        let line = read_line(connection)?;
        let size = line.split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).context("malformed chunk")?;
        body += &read_body(connection, size)?;
        // The break after the chunk's data, or the empty trailer.
        read_line(connection)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn read_body(connection: &mut impl std::io::BufRead, length: u64) -> Result<String> {
    ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
    let mut body = Vec::new();
    connection.take(length).read_to_end(&mut body)?;
    ensure!(body.len() as u64 == length, "the answer ends early");
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Reads a line without its break; the empty one ends a head.
fn read_line(connection: &mut impl std::io::BufRead) -> Result<String> {
    let mut line = String::new();
    connection.take(ANSWER_BYTES_MAX).read_line(&mut line)?;
    ensure!(line.ends_with('\n'), "the server closed the connection");
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_to_their_end() {
        let two = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 201 Created\r\n\
                   Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let mut reader = two.as_bytes();
        assert!(!read_answer(&mut reader).expect("a success"));
        assert!(read_answer(&mut reader).expect("a success"));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_refusal_is_an_error_that_tells_the_reason() {
        let refused = "HTTP/1.1 409 Conflict\r\nContent-Length: 6\r\n\r\nclosed";
        let error = read_answer(&mut refused.as_bytes()).expect_err("no success");
        assert!(
            error.to_string().contains("409 Conflict: closed"),
            "{error}"
        );
        let cut = "HTTP/1.1 202 Accepted\r\nContent-Length: 6\r\n\r\nclo";
        assert!(read_answer(&mut cut.as_bytes()).is_err());
    }
}
