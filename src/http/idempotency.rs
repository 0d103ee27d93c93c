//! [`IdempotencyKeys`]: the answers to posts that carried an
//! `Idempotency-Key`, so that a post sent again is not published again.
//!
//! What this broker answered it remembers itself, for a while. For posts that
//! go to another broker, or to this one after its end, the store keeps the same
//! in a claim (`PostClaim`).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::MessageBody as _;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use bytes::Bytes;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use runcast_actors::protocol::{Problem, RunId};
use runcast_actors::store::PostClaim;
use sha2::{Digest as _, Sha256};

use super::body_form::BodyForm;
use super::problem::ApiError;

/// The request header.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Longest key taken.
const KEY_BYTES_MAX: usize = 255;

/// Bytes of an answer that count as one key, about two hundred ids: a post of
/// ten thousand events has an answer of half a megabyte, and the bound must
/// hold for those, too.
const BYTES_PER_KEY: usize = 8 * 1024;

/// Value of an `Idempotency-Key` header, to the letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// Reads the header, if there is one.
    ///
    /// # Errors
    /// 400 for an empty or long one, bytes that are not printable ASCII, and
    /// more than one.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY);
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let is_good = (1..=KEY_BYTES_MAX).contains(&value.len())
            && value
                .as_bytes()
                .iter()
                .all(|byte| matches!(byte, b' '..=b'~'))
            && values.next().is_none();
        match value.to_str() {
            Ok(text) if is_good => Ok(Some(Self(text.into()))),
            _ => {
                let detail = format!(
                    "an Idempotency-Key is 1 to {KEY_BYTES_MAX} printable ASCII characters, and given once"
                );
                let (slug, title) = ("bad-idempotency-key", "Bad idempotency key");
                Err(Problem::new(400, slug, title, detail).into())
            }
        }
    }
}

/// What tells one post from another: a hash of what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Hashes a post's query string and body; `form` is what its body's bytes
    /// mean.
    pub(super) fn of(form: BodyForm, query: &str, body: &[u8]) -> Self {
        let hash = Sha256::new()
            .chain_update([form as u8])
            .chain_update((query.len() as u64).to_be_bytes())
            .chain_update(query)
            .chain_update(body)
            .finalize();
        Self(hash.into())
    }

    /// Returns what a post with `key` is claimed by on all brokers. Its
    /// producer is of this very post, and of one limit: with another, other
    /// events of it would be refused, and the rest be numbered differently.
    pub(super) fn claim(
        &self,
        key: &IdempotencyKey,
        event_bytes_max: u64,
        ttl: Duration,
    ) -> PostClaim {
        let key = Sha256::digest(key.0.as_bytes());
        let producer = Sha256::new()
            .chain_update(key)
            .chain_update(self.0)
            .chain_update(event_bytes_max.to_be_bytes())
            .finalize();
        PostClaim {
            key: hex(&key),
            fingerprint: hex(&self.0),
            producer: format!("post-{}", hex(&producer)),
            ttl,
        }
    }
}

/// An answer that can be given again.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

impl Answer {
    /// Takes an answer apart.
    ///
    /// # Errors
    /// 500 for a body that is not whole; all of ours are.
    pub(super) fn of(response: HttpResponse) -> Result<Self, ApiError> {
        let (head, body) = response.into_parts();
        Ok(Self {
            status: head.status(),
            content_type: head.headers().get(header::CONTENT_TYPE).cloned(),
            body: body.try_into_bytes().map_err(|_| ApiError::internal())?,
        })
    }

    /// Writes it as one text: status and media type, then the body.
    pub(super) fn to_text(&self) -> String {
        let content_type = self.content_type.as_ref().and_then(|it| it.to_str().ok());
        let body = String::from_utf8_lossy(&self.body);
        format!(
            "{} {}\n{body}",
            self.status.as_u16(),
            content_type.unwrap_or_default()
        )
    }

    /// Reads what [`Answer::to_text`] wrote.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let (head, body) = text.split_once('\n')?;
        let (status, content_type) = head.split_once(' ')?;
        Some(Self {
            status: StatusCode::from_bytes(status.as_bytes()).ok()?,
            content_type: Some(HeaderValue::from_str(content_type).ok()?),
            body: Bytes::copy_from_slice(body.as_bytes()),
        })
    }

    fn response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status);
        answer.insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(content_type) = &self.content_type {
            answer.insert_header((header::CONTENT_TYPE, content_type.clone()));
        }
        answer.body(self.body.clone())
    }
}

/// What came of a post that was not answered here before.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was published now, and this answer stands for every post with the
    /// key.
    Final(Answer),
    /// The same, but another broker published it.
    Elsewhere(Answer),
    /// What became of some of its events is not known: whoever sends it again
    /// is to have it published.
    Open(Answer),
}

/// An answer that stands for every post with its key.
#[derive(Debug)]
struct Remembered {
    fingerprint: Fingerprint,
    answer: Answer,
    from_elsewhere: bool,
}

/// What is not remembered.
#[derive(Debug)]
enum NotKept {
    Error(ApiError),
    Open(Answer),
}

impl Remembered {
    fn weight(&self) -> u32 {
        let weight = self.answer.body.len().div_ceil(BYTES_PER_KEY).max(1);
        u32::try_from(weight).unwrap_or(u32::MAX)
    }
}

/// The answers by run and key. Bounded in number and bytes; when full the one
/// used longest ago is forgotten, and its post would be published again.
#[derive(Debug)]
pub(super) struct IdempotencyKeys {
    answers: Cache<(RunId, IdempotencyKey), Arc<Remembered>>,
}

/// What became of a post with a key.
#[derive(Debug)]
pub(super) struct Once {
    /// The answer.
    pub(super) response: HttpResponse,
    /// Whether it is that of an earlier post.
    pub(super) replayed: bool,
}

impl IdempotencyKeys {
    /// Remembers `keys` answers for `ttl` each.
    pub(super) fn new(keys: usize, ttl: Duration) -> Self {
        let answers = Cache::builder()
            .max_capacity(keys as u64)
            .weigher(|_, answer: &Arc<Remembered>| answer.weight())
            // The default policy may refuse a new key to keep one often used.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(ttl)
            .build();
        Self { answers }
    }

    /// Returns the answer of the first post with this key, which is that of
    /// `publish` if there was none. Posts with one key that come together
    /// wait for the first of them.
    ///
    /// # Errors
    /// 422 if the first post asked for something else. An error of `publish` is
    /// not remembered.
    pub(super) async fn once(
        &self,
        run_id: RunId,
        key: IdempotencyKey,
        fingerprint: Fingerprint,
        publish: impl Future<Output = Result<Outcome, ApiError>>,
    ) -> Result<Once, ApiError> {
        let answering = async {
            let (answer, from_elsewhere) = match publish.await {
                Ok(Outcome::Final(answer)) => (answer, false),
                Ok(Outcome::Elsewhere(answer)) => (answer, true),
                Ok(Outcome::Open(answer)) => return Err(NotKept::Open(answer)),
                Err(error) => return Err(NotKept::Error(error)),
            };
            Ok(Arc::new(Remembered {
                fingerprint,
                answer,
                from_elsewhere,
            }))
        };
        let entry = self
            .answers
            .entry((run_id, key))
            .or_try_insert_with(answering)
            .await;
        let entry = match entry {
            Ok(entry) => entry,
            Err(not_kept) => {
                return match &*not_kept {
                    NotKept::Error(error) => Err(error.clone()),
                    NotKept::Open(answer) => Ok(Once {
                        response: answer.response(),
                        replayed: false,
                    }),
                };
            }
        };
        if entry.value().fingerprint != fingerprint {
            return Err(key_reused());
        }
        Ok(Once {
            response: entry.value().answer.response(),
            replayed: !entry.is_fresh() || entry.value().from_elsewhere,
        })
    }

    /// Returns how many answers are remembered, without those out of time.
    pub(super) async fn count(&self) -> u64 {
        self.answers.run_pending_tasks().await;
        self.answers.entry_count()
    }
}

/// 422 for a key that stands for another post.
pub(super) fn key_reused() -> ApiError {
    let detail = "this Idempotency-Key was used for another body, content type or query of this run; give every post its own";
    let (slug, title) = ("idempotency-key-reused", "Idempotency key reused");
    Problem::new(422, slug, title, detail).into()
}

/// Returns the first 16 bytes of a hash in hexadecimal digits.
fn hex(hash: &[u8]) -> String {
    let digits = hash.iter().take(16).map(|byte| format!("{byte:02x}"));
    digits.collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn key(text: &str) -> Result<Option<IdempotencyKey>, ApiError> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(text.as_bytes()).expect("a header's value");
        headers.insert(header::HeaderName::from_static("idempotency-key"), value);
        IdempotencyKey::of(&headers)
    }

    fn good_key(text: &str) -> IdempotencyKey {
        key(text).expect("good").expect("present")
    }

    fn run() -> RunId {
        RunId::parse("42").expect("a run id")
    }

    fn fingerprint(body: &str) -> Fingerprint {
        Fingerprint::of(BodyForm::Json, "", body.as_bytes())
    }

    fn accepted(body: String) -> Answer {
        let response = HttpResponse::Accepted()
            .content_type("text/plain")
            .body(body);
        Answer::of(response).expect("whole")
    }

    async fn body_of(once: Once) -> (u16, String, bool) {
        let status = once.response.status().as_u16();
        let body = once.response.into_body().try_into_bytes().expect("whole");
        let text = String::from_utf8(body.to_vec()).expect("text");
        (status, text, once.replayed)
    }

    #[test]
    fn a_key_is_short_printable_ascii() {
        assert_eq!(
            IdempotencyKey::of(&HeaderMap::new()).expect("none is fine"),
            None
        );
        let longest = "k".repeat(255);
        for text in ["k", "\"retry-1\"", "a b~", &longest] {
            assert_eq!(&*good_key(text).0, text);
        }
        let too_long = "k".repeat(256);
        for text in ["", "a\tb", "é", &too_long] {
            let error = key(text).expect_err(text);
            assert!(error.to_string().starts_with("bad-idempotency-key"));
        }
    }

    #[test]
    fn a_fingerprint_changes_with_each_part() {
        let all = [
            Fingerprint::of(BodyForm::Json, "a", b"b"),
            Fingerprint::of(BodyForm::Text, "a", b"b"),
            Fingerprint::of(BodyForm::Json, "ab", b""),
            Fingerprint::of(BodyForm::Json, "", b"ab"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|other| other != one));
        }
    }

    #[actix_web::test]
    async fn a_key_stands_for_its_first_answer() {
        let keys = IdempotencyKeys::new(10, TTL);
        let published = Cell::new(0);
        let publish = || async {
            published.set(published.get() + 1);
            tokio::task::yield_now().await;
            Ok(Outcome::Final(accepted(format!(
                "answer {}",
                published.get()
            ))))
        };
        let once = |body, publish| keys.once(run(), good_key("k"), fingerprint(body), publish);
        let (first, second) = tokio::join!(once("a", publish()), once("a", publish()));
        let answers = [
            body_of(first.expect("accepted")).await,
            body_of(second.expect("accepted")).await,
        ];
        assert_eq!(answers[0], (202, "answer 1".to_owned(), false));
        assert_eq!(answers[1], (202, "answer 1".to_owned(), true));
        let error = once("b", publish()).await.expect_err("another body");
        assert!(error.to_string().starts_with("idempotency-key-reused"));
        assert_eq!((published.get(), keys.count().await), (1, 1));
    }

    #[actix_web::test]
    async fn what_is_not_final_is_not_remembered_and_what_is_stays() {
        let keys = IdempotencyKeys::new(10, TTL);
        let once = async |outcome| {
            let publishing = async { outcome };
            keys.once(run(), good_key("k"), fingerprint("a"), publishing)
                .await
        };
        let down = Problem::new(503, "slug", "Title", "detail");
        once(Err(down.into())).await.expect_err("not remembered");
        let open = once(Ok(Outcome::Open(accepted("half".to_owned())))).await;
        assert_eq!(body_of(open.expect("an answer")).await.1, "half");
        let whole = || Ok(Outcome::Elsewhere(accepted("whole".to_owned())));
        let first = body_of(once(whole()).await.expect("remembered")).await;
        assert_eq!(first, (202, "whole".to_owned(), true));
        let down = Problem::new(503, "slug", "Title", "detail");
        let second = body_of(once(Err(down.into())).await.expect("replayed")).await;
        assert_eq!(second, first);
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let response = HttpResponse::Conflict()
            .content_type("application/problem+json")
            .body("{\n}\n");
        let answer = Answer::of(response).expect("whole");
        let text = answer.to_text();
        assert_eq!(text, "409 application/problem+json\n{\n}\n");
        let again = Answer::from_text(&text).expect("well-formed");
        assert_eq!(
            (again.status, again.content_type),
            (answer.status, answer.content_type)
        );
        assert_eq!(again.body, answer.body);
        for text in ["", "202", "202 x", "x y\n"] {
            assert!(Answer::from_text(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_claim_is_that_of_key_post_and_limit() {
        let claim = |k, body, limit| fingerprint(body).claim(&good_key(k), limit, TTL);
        let first = claim("k", "a", 1);
        assert_eq!(first, claim("k", "a", 1));
        assert!(first.producer.len() <= 64 && first.key.len() == 32);
        let other_body = claim("k", "b", 1);
        assert_eq!(other_body.key, first.key);
        assert_ne!(other_body.fingerprint, first.fingerprint);
        for other in [other_body, claim("k2", "a", 1), claim("k", "a", 2)] {
            assert_ne!(other.producer, first.producer);
        }
    }

    #[actix_web::test]
    async fn long_answers_count_as_several_keys() {
        let keys = IdempotencyKeys::new(10, TTL);
        for n in 0..100 {
            let answer = async { Ok(Outcome::Final(accepted("x".repeat(5 * BYTES_PER_KEY)))) };
            let key = good_key(&n.to_string());
            let once = keys.once(run(), key, fingerprint("a"), answer).await;
            once.expect("accepted");
        }
        assert_eq!(keys.count().await, 2);
    }
}
