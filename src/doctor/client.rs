//! [`Client`]: asks the broker as a browser's page would.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use runcast_actors::protocol::json_string_or_field;
use serde_json::Value as Json;
use url::Url;

use super::args::DoctorArgs;

/// How long the name, the connection and TLS may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a whole answer may take that is no stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// As much of an error's body is shown.
const TOLD_CHARS_MAX: usize = 300;

/// Asks the broker at one address.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    args: DoctorArgs,
}

/// An answer that is no stream.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(super) json: Json,
    text: String,
}

impl Client {
    pub(super) fn new(args: &DoctorArgs) -> anyhow::Result<Self> {
        // Another crate may have chosen one before us; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("runcast-doctor/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            http,
            args: args.clone(),
        })
    }

    pub(super) fn args(&self) -> &DoctorArgs {
        &self.args
    }

    /// Begins a request to a path below the address.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        // Events are posted by agents, which are no pages.
        let is_page = method != Method::POST;
        let mut request = self.http.request(method, below(&self.args.url, path));
        if let Some(token) = &self.args.token {
            request = request.bearer_auth(token.reveal());
        }
        if let Some(origin) = self.args.origin.as_ref().filter(|_| is_page) {
            request = request.header("Origin", origin);
        }
        request
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, String> {
        self.answer(self.request(Method::GET, path)).await
    }

    /// # Errors
    /// Why there is no answer.
    pub(super) async fn answer(&self, request: RequestBuilder) -> Result<Answer, String> {
        let response = request.timeout(ANSWER_TIMEOUT).send().await;
        let response = response.map_err(|error| cause_of(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.map_err(|error| cause_of(&error))?;
        Ok(Answer {
            status,
            headers,
            json: serde_json::from_str(&text).unwrap_or_default(),
            text,
        })
    }

    /// Opens a stream and reads its head.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn open(&self, request: RequestBuilder) -> Result<Response, String> {
        let sent = request.header("Accept", "text/event-stream").send().await;
        sent.map_err(|error| cause_of(&error))
    }
}

impl Answer {
    /// What it says, and its status.
    pub(super) fn told(&self) -> String {
        told(self.status, &self.text)
    }
}

pub(super) fn told(status: StatusCode, text: &str) -> String {
    let detail = json_string_or_field(text, "detail");
    let detail = detail.unwrap_or_else(|| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let detail: String = detail.chars().take(TOLD_CHARS_MAX).collect();
    match detail.is_empty() {
        true => status.to_string(),
        false => format!("{status}: {detail}"),
    }
}

fn below(url: &Url, path: &str) -> Url {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut below = url.clone();
    let base = url.path().trim_end_matches('/').to_owned();
    below.set_path(&format!("{base}{path}"));
    below.set_query((!query.is_empty()).then_some(query));
    below
}

/// reqwest says what it was doing and keeps the reason some levels down.
fn cause_of(error: &dyn std::error::Error) -> String {
    let mut first = error;
    while let Some(cause) = first.source() {
        first = cause;
    }
    first.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_before_the_routes_is_kept() {
        let check = |url: &str, expected: &str| {
            let url = Url::parse(url).expect("a URL");
            assert_eq!(below(&url, "/health?a=b").as_str(), expected);
        };
        check("http://h:1", "http://h:1/health?a=b");
        check("https://h/p/", "https://h/p/health?a=b");
    }
}
