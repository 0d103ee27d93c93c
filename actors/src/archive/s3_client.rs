//! [`S3Client`]: the HTTP client of S3, the one that the rest of the program
//! has. `object_store` brings one of its own with HTTP/2, if it is let.

use std::error::Error as _;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};

/// How long a connection that is not used is kept.
const IDLE: Duration = Duration::from_secs(30);

/// Makes clients.
#[derive(Debug)]
pub(super) struct S3Client {
    timeout: Duration,
}

impl S3Client {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout }
    }
}

impl HttpConnector for S3Client {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        // Whoever was first has installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(self.timeout)
            .read_timeout(self.timeout)
            .pool_idle_timeout(IDLE)
            // A signed request is for one place.
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let client = client.map_err(|error| object_store::Error::Generic {
            store: "HTTP client",
            source: Box::new(error),
        })?;
        Ok(HttpClient::new(Service(client)))
    }
}

#[derive(Debug)]
struct Service(reqwest::Client);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string().parse();
        let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        // A part of a few MiB at most, and it lies in memory.
        let body = body.collect().await.map_err(|error| {
            let source: Box<dyn std::error::Error + Send + Sync> = error.into();
            HttpError::new_boxed(HttpErrorKind::Unknown, source)
        })?;
        *request.body_mut() = Some(body.to_bytes().into());
        let mut answer = self.0.execute(request).await.map_err(failed)?;
        let status = answer.status();
        let headers = std::mem::take(answer.headers_mut());
        let body = reqwest::Body::from(answer).map_err(failed);
        let mut response = HttpResponse::new(HttpResponseBody::new(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// Says what may be tried again.
fn failed(error: reqwest::Error) -> HttpError {
    let is_timeout = error.is_timeout();
    let kind = if error.is_connect() {
        HttpErrorKind::Connect
    } else if is_timeout {
        HttpErrorKind::Timeout
    } else if error.is_decode() {
        HttpErrorKind::Decode
    } else if is_interrupted(&error) {
        HttpErrorKind::Interrupted
    } else {
        HttpErrorKind::Request
    };
    // It may be signed.
    HttpError::new(kind, error.without_url())
}

fn is_interrupted(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}
