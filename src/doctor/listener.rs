//! [`Listener`]: a stream that is read while the doctor does something else;
//! notes when what came.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_rt::task::JoinHandle;
use futures_util::{StreamExt as _, stream};
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value as Json;
use sse_stream::SseByteStream;

use super::client::{Client, told};

/// How often it is looked whether what is waited for has come; when it came is
/// noted by itself.
const LOOK: Duration = Duration::from_millis(5);

/// What came of a stream.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) head: Option<(StatusCode, HeaderMap)>,
    pub(super) events: Vec<HeardEvent>,
    /// Why there will be no more.
    pub(super) ended: Option<String>,
}

/// One event.
#[derive(Debug)]
pub(super) struct HeardEvent {
    pub(super) at: Instant,
    pub(super) event: String,
    pub(super) id: Option<String>,
    pub(super) data: Json,
}

impl Heard {
    pub(super) fn event(&self, name: &str) -> Option<&HeardEvent> {
        self.events.iter().find(|event| event.event == name)
    }

    pub(super) fn with_id(&self, id: &str) -> Option<&HeardEvent> {
        self.events
            .iter()
            .find(|event| event.id.as_deref() == Some(id))
    }

    /// The value of a header, in lower case.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let (_, headers) = self.head.as_ref()?;
        let value = headers.get(name)?.to_str().ok()?;
        Some(value.to_ascii_lowercase())
    }
}

/// A stream that is being read; closed when dropped.
pub(super) struct Listener {
    heard: Rc<RefCell<Heard>>,
    task: JoinHandle<()>,
}

impl Listener {
    pub(super) fn start(client: &Client, request: RequestBuilder) -> Self {
        let heard: Rc<RefCell<Heard>> = Rc::default();
        let (client, notes) = (client.clone(), Rc::clone(&heard));
        let task = actix_rt::spawn(async move {
            let ended = listen(&client, request, &notes).await;
            notes.borrow_mut().ended = Some(ended);
        });
        Self { heard, task }
    }

    /// Looks at what has come so far.
    pub(super) fn heard<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.heard.borrow())
    }

    /// Waits until `look` finds it, the stream ends, or `patience` does.
    pub(super) async fn wait(&self, patience: Duration, look: impl Fn(&Heard) -> bool) -> bool {
        let begin = Instant::now();
        loop {
            if self.heard(&look) {
                return true;
            }
            let ended = self.heard(|heard| heard.ended.is_some());
            if ended || begin.elapsed() >= patience {
                return self.heard(&look);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads the stream to its end; returns why it ended.
async fn listen(client: &Client, request: RequestBuilder, heard: &RefCell<Heard>) -> String {
    let response = match client.open(request).await {
        Ok(response) => response,
        Err(error) => return error,
    };
    let status = response.status();
    heard.borrow_mut().head = Some((status, response.headers().clone()));
    if status != StatusCode::OK {
        return told(status, &response.text().await.unwrap_or_default());
    }
    let chunks = stream::try_unfold(response, async |mut response| {
        let chunk = response.chunk().await?;
        Ok::<_, reqwest::Error>(chunk.map(|chunk| (chunk, response)))
    });
    let mut events = SseByteStream::new(Box::pin(chunks));
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => return format!("the connection broke: {error}"),
        };
        let data = event.data.unwrap_or_default();
        heard.borrow_mut().events.push(HeardEvent {
            at: Instant::now(),
            event: event.event.unwrap_or_default(),
            id: event.id,
            data: serde_json::from_str(&data).unwrap_or_default(),
        });
    }
    "the stream was closed".to_owned()
}
