//! A raw HTTP/1.1 client: sends exactly the bytes it is told, decodes nothing
//! but the transfer coding.

use std::net::{Ipv4Addr, SocketAddr};

use memchr::memmem::find;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::wait::SOON;

/// One request; `path` goes onto the wire as it is.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    version: &'static str,
    before: Vec<u8>,
    receive_buffer: Option<u32>,
    from: Ipv4Addr,
}

impl Request {
    pub(crate) fn new(method: &str, path: impl Into<String>) -> Self {
        Self {
            method: method.to_owned(),
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
            version: "HTTP/1.1",
            before: Vec::new(),
            receive_buffer: None,
            from: Ipv4Addr::LOCALHOST,
        }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn post(path: impl Into<String>, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut request = Self::new("POST", path).header("Content-Type", kind);
        request.body = body.into();
        request
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sends bytes before the request, as a proxy does.
    pub(crate) fn after(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.before = bytes.into();
        self
    }

    /// Limits what the kernel takes for a client that does not read.
    pub(crate) fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Comes from another address of this machine: 127.0.0.0/8 are all ours.
    #[allow(dead_code, reason = "only the suites have so many clients")]
    pub(crate) fn from(mut self, address: Ipv4Addr) -> Self {
        self.from = address;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let (method, path, version) = (&self.method, &self.path, self.version);
        let mut head = format!("{method} {path} {version}\r\nHost: localhost\r\n");
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        [&self.before, head.as_bytes(), &self.body].concat()
    }

    /// Sends it and reads the answer's head.
    pub(crate) async fn open(&self, addr: SocketAddr) -> std::io::Result<Answer> {
        let mut stream = connect(addr, self.from, self.receive_buffer).await?;
        // A server may answer and close before it has read a whole body.
        let _ = stream.write_all(&self.bytes()).await;
        Answer::read_head(stream, self.method == "HEAD").await
    }

    /// Sends it on a connection of its own and reads the whole answer.
    pub(crate) async fn send(&self, addr: SocketAddr) -> Response {
        self.try_send(addr)
            .await
            .unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.path))
    }

    /// As `send`, for a server that may be gone.
    pub(crate) async fn try_send(&self, addr: SocketAddr) -> std::io::Result<Response> {
        let whole = async {
            let mut answer = self
                .clone()
                .header("Connection", "close")
                .open(addr)
                .await?;
            let mut body = Vec::new();
            while let Some(piece) = answer.next().await? {
                body.extend_from_slice(&piece);
            }
            Ok(Response {
                head: answer.head,
                body,
            })
        };
        timeout(SOON, whole)
            .await
            .unwrap_or_else(|_| panic!("{} {} is not answered", self.method, self.path))
    }
}

/// Connects to `addr` from an address of this machine.
pub(crate) async fn connect(
    addr: SocketAddr,
    from: Ipv4Addr,
    receive_buffer: Option<u32>,
) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if from != Ipv4Addr::LOCALHOST {
        socket.bind((from, 0).into())?;
    }
    let stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Status and headers of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).expect("a head is ASCII");
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("no status line in {text:?}"));
        let headers = lines
            .map(|line| line.split_once(':').expect("a header has a colon"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self { status, headers }
    }

    /// Returns a header's value; one that stands twice is joined by a comma.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let name = name.to_ascii_lowercase();
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.header(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("the body is UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}, status {}: {}", self.status(), self.text()))
    }

    /// Checks that this is a problem with `status` and returns it.
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status(), status, "{}", self.text());
        assert_eq!(
            self.header("content-type").as_deref(),
            Some("application/problem+json"),
            "content type of {}",
            self.text()
        );
        let problem = self.json();
        check_problem(&problem);
        assert_eq!(problem["status"], status);
        problem
    }
}

/// Checks the members that every problem has.
pub(crate) fn check_problem(problem: &Value) {
    for member in ["type", "title", "detail"] {
        let text = problem[member].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "no {member} in {problem}");
    }
    assert!(problem["status"].is_u64(), "no status in {problem}");
}

/// Returns the stable suffix of a problem's `type`.
pub(crate) fn slug(problem: &Value) -> &str {
    let text = problem["type"].as_str().expect("type is text");
    text.rsplit([':', '/']).next().expect("never empty")
}

/// An answer whose body is still coming.
pub(crate) struct Answer {
    pub(crate) head: Head,
    stream: TcpStream,
    raw: Vec<u8>,
    coding: Coding,
}

#[derive(Debug)]
enum Coding {
    Chunked,
    Length(usize),
    UntilClose,
    Done,
}

impl Answer {
    async fn read_head(mut stream: TcpStream, no_body: bool) -> std::io::Result<Self> {
        let mut raw = Vec::new();
        let end = loop {
            if let Some(end) = find(&raw, b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(&mut raw).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = Head::parse(&raw[..end]);
        raw.drain(..end + 4);
        let chunked = head.header("transfer-encoding").as_deref() == Some("chunked");
        let length = head.header("content-length").map(|text| {
            text.parse()
                .unwrap_or_else(|_| panic!("content-length {text:?}"))
        });
        let coding = match length {
            _ if no_body || head.status == 204 || head.status == 304 => Coding::Done,
            _ if chunked => Coding::Chunked,
            Some(length) => Coding::Length(length),
            None => Coding::UntilClose,
        };
        Ok(Self {
            head,
            stream,
            raw,
            coding,
        })
    }

    /// Returns the next bytes of the body, `None` at its proper end.
    ///
    /// A connection that ends inside a chunked or counted body is an error:
    /// a cut is no end.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(piece) = self.take() {
                return Ok(Some(piece));
            }
            if matches!(self.coding, Coding::Done) {
                return Ok(None);
            }
            self.raw.reserve(64 * 1024);
            if self.stream.read_buf(&mut self.raw).await? == 0 {
                return match self.coding {
                    Coding::UntilClose => Ok(None),
                    _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Decodes what was read; `None` when more bytes are needed, or at the end.
    fn take(&mut self) -> Option<Vec<u8>> {
        match &mut self.coding {
            Coding::Done => None,
            Coding::UntilClose => (!self.raw.is_empty()).then(|| std::mem::take(&mut self.raw)),
            Coding::Length(left) => {
                let n = self.raw.len().min(*left);
                *left -= n;
                if *left == 0 {
                    self.coding = Coding::Done;
                }
                (n > 0).then(|| self.raw.drain(..n).collect())
            }
            Coding::Chunked => self.take_chunks(),
        }
    }

    fn take_chunks(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut at = 0;
        while let Some(line_end) = find(&self.raw[at..], b"\r\n") {
            let line = &self.raw[at..at + line_end];
            let text = std::str::from_utf8(line).expect("a chunk length is ASCII");
            let length =
                usize::from_str_radix(text, 16).unwrap_or_else(|_| panic!("chunk length {text:?}"));
            let begin = at + line_end + 2;
            if self.raw.len() < begin + length + 2 {
                break;
            }
            let chunk = &self.raw[begin..begin + length];
            assert_eq!(&self.raw[begin + length..begin + length + 2], b"\r\n");
            out.extend_from_slice(chunk);
            at = begin + length + 2;
            if length == 0 {
                self.coding = Coding::Done;
                break;
            }
        }
        self.raw.drain(..at);
        (!out.is_empty()).then_some(out)
    }

    /// Resets the connection instead of closing it.
    pub(crate) fn reset(self) {
        self.stream
            .set_zero_linger()
            .expect("a connected socket takes SO_LINGER");
    }
}
