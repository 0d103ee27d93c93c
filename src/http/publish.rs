//! `POST /api/v1/runs/{run_id}/events`: durable publish over HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};
use runcast_actors::broker::{PublishError, PublishResult, Published, client_network};
use runcast_actors::metrics::Limit;
use runcast_actors::protocol::{Problem, RunId};
use runcast_actors::store::{AppendBatch, Claimed, PostClaim, Producer};
use serde::Serialize;
use utoipa::ToSchema;

use super::HttpState;
use super::body_form::BodyForm;
use super::caller::Caller;
use super::cors::check_origin;
use super::idempotency::{Answer, Fingerprint, IdempotencyKey, Outcome, key_reused};
use super::problem::{ApiError, ProblemJson, task_failed};
use super::publish_body::{BodyLimits, read_events};
use super::query::Pairs;
use super::request_trace::trace_of;
use super::run_path::RunPath;

/// What to do about an event whose fate is unknown.
const RETRY_IS_SAFE: &str = "send the post again with its Idempotency-Key: it is published once";
const RETRY_MAY_REPEAT: &str =
    "sent again it may stand twice, unless the post has an Idempotency-Key from the first";

/// One event of a `POST`, as a publisher writes it.
#[derive(Debug, ToSchema)]
#[allow(
    dead_code,
    reason = "only its schema is used; publish_body reads the JSON"
)]
pub(super) struct NewEventJson {
    /// `output`, `status` or `log`.
    #[schema(example = "output")]
    kind: String,
    /// Default `stdout`; a status has none.
    #[schema(example = "stdout")]
    source: Option<String>,
    /// Any JSON, passed on to the letter.
    data: Option<serde_json::Value>,
    /// In place of `data`: bytes.
    data_base64: Option<String>,
}

/// Answer to a `POST` of which at least one event was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PublishedJson {
    /// An id for each event in its order; `null` for one refused or not known.
    ids: Vec<Option<String>>,
    /// Why the others have none.
    errors: Vec<EventErrorJson>,
}

/// Why one event of a `POST` was refused.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct EventErrorJson {
    /// Place of the event in the body, from 0.
    index: usize,
    /// A problem type.
    #[serde(rename = "type")]
    #[schema(example = "urn:runcast:problem:run-closed")]
    kind: String,
    /// What to do.
    detail: String,
}

/// Publishes events durably.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{run_id}/events",
    tag = "publish",
    params(
        ("run_id" = String, Path, description = "The run", max_length = 128),
        ("restart" = Option<bool>, Query, description = "true begins the run anew, over or not"),
        ("kind" = Option<String>, Query, description = "Of the lines of a text/plain body; default output"),
        ("source" = Option<String>, Query, description = "Of the lines of a text/plain body; default stdout"),
        ("Idempotency-Key" = Option<String>, Header, description = "1–255 printable ASCII; the same post with the same key is published once", max_length = 255),
    ),
    request_body(content(
        (NewEventJson = "application/json"),
        (String = "application/x-ndjson"),
        (String = "text/plain"),
    )),
    responses(
        (status = 202, description = "At least one event was accepted", body = PublishedJson),
        (status = 400, description = "Bad run id, query value or JSON", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 401, description = "No token, or one that does not count", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 403, description = "The token may not publish here; from a page of an origin that is not allowed", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 404, description = "No such run, or none that the token may know of", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 409, description = "The run is over, or the producer was replaced", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 413, description = "Body or event too large", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 415, description = "Unsupported body type", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 422, description = "JSON that is no event, or an Idempotency-Key used for another post", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 429, description = "This address or subject publishes too fast, or has too much under way; `Retry-After` says when", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 503, description = "The store is unavailable", content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn publish(
    caller: Caller,
    RunPath(run_id): RunPath,
    request: HttpRequest,
    payload: Payload,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    check_origin(&request, &state.settings.allowed_origins)?;
    caller.may_publish(&run_id)?;
    let query = Pairs::parse(request.query_string());
    let restart = query.switch("restart")?;
    if restart {
        caller.may_restart()?;
    }
    let form = BodyForm::of(request.headers())?;
    let key = IdempotencyKey::of(request.headers())?;
    let limits = &state.broker.live().limits;
    let body = state
        .body_room
        .read(
            &request,
            payload,
            limits.max_body_bytes.as_u64(),
            caller.client(&state, &request),
        )
        .await?;
    let events = read_events(
        form,
        &body.bytes,
        &query,
        BodyLimits {
            events: limits.max_batch_events,
            source_bytes: limits.max_source_bytes,
        },
    )?;
    caller.still_counts(&state)?;
    caller.may_publish_kinds(events.iter().map(|event| event.kind))?;
    check_pace(&state, &caller, &request, events.len())?;
    let batch = AppendBatch {
        events,
        restart,
        producer: None,
        trace: trace_of(&request),
    };
    let Some(key) = key else {
        let results = publish_all(&state, run_id, batch).await?;
        drop(body.room);
        return answer(results, RETRY_MAY_REPEAT);
    };
    let fingerprint = Fingerprint::of(form, request.query_string(), &body.bytes);
    // A task of its own: a client that goes away in the middle is the one that
    // comes back with its key, and what was published must be known by then.
    actix_web::rt::spawn(async move {
        let answer = publish_once(state, run_id, key, fingerprint, batch).await;
        drop(body.room);
        answer
    })
    .await
    .map_err(task_failed)?
}

/// Takes the events from the pace of the token's subject, then from that of the
/// address. A post that the second refuses has been taken from the first: its
/// repetition waits a little longer for that.
///
/// # Errors
/// 429 for a client that publishes too fast.
fn check_pace(
    state: &HttpState,
    caller: &Caller,
    request: &HttpRequest,
    events: usize,
) -> Result<(), ApiError> {
    let now = Instant::now();
    let limits = &state.broker.live().limits;
    if let Some(bearer) = caller.bearer() {
        let subject = Arc::clone(&bearer.subject);
        let rate = limits.publish_rate_per_subject;
        let paces = &state.publish_pace_of_subjects;
        let taken = paces.take(rate, subject, now, events);
        let limit = Limit::PublishRatePerSubject;
        taken.map_err(|wait| too_fast(state, "this token's subject", rate, limit, wait))?;
    }
    if let Some(address) = state.addresses.of(request) {
        let (rate, limit) = (limits.publish_rate_per_ip, Limit::PublishRatePerIp);
        let paces = &state.publish_pace;
        let taken = paces.take(rate, client_network(address), now, events);
        taken.map_err(|wait| too_fast(state, "this address", rate, limit, wait))?;
    }
    Ok(())
}

fn too_fast(state: &HttpState, who: &str, rate: usize, limit: Limit, wait: Duration) -> ApiError {
    state.broker.refused(limit);
    let detail = format!(
        "{who} may publish {rate} events in a second ({}); nothing was published, send it again later",
        limit.as_str()
    );
    let problem = Problem::new(429, "publishing-too-fast", "Publishing too fast", detail);
    ApiError::from(problem).retry_after(wait)
}

async fn publish_once(
    state: Data<HttpState>,
    run_id: RunId,
    key: IdempotencyKey,
    fingerprint: Fingerprint,
    batch: AppendBatch,
) -> Result<HttpResponse, ApiError> {
    let limits = &state.broker.live().limits;
    let claim = fingerprint.claim(
        &key,
        limits.max_event_bytes.as_u64(),
        limits.idempotency_ttl,
    );
    let publishing = publish_claimed(&state, &run_id, &claim, batch);
    let once = state
        .idempotency
        .once(run_id.clone(), key, fingerprint, publishing)
        .await?;
    if once.replayed {
        state.metrics.idempotent_replays.inc();
    }
    Ok(once.response)
}

/// Publishes a post unless another broker did, or is about to.
async fn publish_claimed(
    state: &HttpState,
    run_id: &RunId,
    claim: &PostClaim,
    batch: AppendBatch,
) -> Result<Outcome, ApiError> {
    let lease = match state.broker.claim(run_id, claim).await? {
        Claimed::Mine(lease) => lease,
        Claimed::Settled(text) => {
            let answer = Answer::from_text(&text).ok_or_else(ApiError::internal)?;
            return Ok(Outcome::Elsewhere(answer));
        }
        Claimed::Other => return Err(key_reused()),
        Claimed::Busy => {
            let detail = "another broker took this post and has not said what came of it; send it again with its key";
            return Err(Problem::new(503, "post-under-way", "Post under way", detail).into());
        }
    };
    let producer = lease.map(|_| Producer {
        id: claim.producer.clone(),
        epoch: 1,
        first_seq: 1,
    });
    let batch = AppendBatch { producer, ..batch };
    let outcome = match publish_all(state, run_id.clone(), batch).await {
        Ok(results) => outcome_of(results),
        Err(error) => Err(error),
    };
    if let Some(lease) = lease {
        let kept = match &outcome {
            Ok(Outcome::Final(answer)) => Some(answer.to_text()),
            _ => None,
        };
        state.broker.settle(run_id, claim, lease, kept).await;
    }
    outcome
}

/// What stands for all posts with the key: all but an unknown fate.
fn outcome_of(results: Vec<PublishResult>) -> Result<Outcome, ApiError> {
    let is_unknown = |result: &PublishResult| matches!(result, Err(PublishError::Unavailable(_)));
    let is_final = !results.iter().any(is_unknown);
    let response = match answer(results, RETRY_IS_SAFE) {
        Err(error) if error.is_ours() => return Err(error),
        Err(error) => error.error_response(),
        Ok(response) => response,
    };
    let answer = Answer::of(response)?;
    Ok(match is_final {
        true => Outcome::Final(answer),
        false => Outcome::Open(answer),
    })
}

/// Publishes the events that are not too large, and gives every event its
/// result in the body's order.
async fn publish_all(
    state: &HttpState,
    run_id: RunId,
    mut batch: AppendBatch,
) -> Result<Vec<PublishResult>, ApiError> {
    let limit = state.broker.live().limits.max_event_bytes.as_u64();
    let fits: Vec<bool> = batch
        .events
        .iter()
        .map(|event| event.payload.len() as u64 <= limit)
        .collect();
    let mut fitting = fits.iter().copied();
    batch.events.retain(|_| fitting.next().unwrap_or_default());
    let mut published = match batch.events.is_empty() {
        true => Vec::new(),
        false => state.broker.publish(run_id, batch).await?,
    }
    .into_iter();
    Ok(fits
        .into_iter()
        .map(|fits| match fits {
            false => Err(PublishError::TooLarge { limit }),
            true => published.next().unwrap_or_else(|| {
                Err(PublishError::Unavailable(
                    "the store gave no answer for it".to_owned(),
                ))
            }),
        })
        .collect())
}

/// 202 if any event was accepted, else one problem that stands for all;
/// `advice` is for whoever does not know the fate of an event.
fn answer(results: Vec<PublishResult>, advice: &str) -> Result<HttpResponse, ApiError> {
    let errors: Vec<EventErrorJson> = results
        .iter()
        .enumerate()
        .filter_map(|(index, result)| event_error(index, result, advice))
        .collect();
    if results.iter().all(Result::is_err) {
        let problem = problem_of_all(results.iter().filter_map(|result| result.as_ref().err()));
        return Err(ApiError::from(problem).with_event_errors(errors));
    }
    let ids = results
        .into_iter()
        .map(|result| Some(result.ok()?.id?.to_string()))
        .collect();
    Ok(HttpResponse::Accepted().json(PublishedJson { ids, errors }))
}

/// Says why an event has no id, if it has none.
fn event_error(index: usize, result: &PublishResult, advice: &str) -> Option<EventErrorJson> {
    let (slug, detail) = match result {
        Ok(Published { id: Some(_), .. }) => return None,
        Ok(Published { id: None, .. }) => (
            "id-unknown",
            "this post was sent before, and which id the event got is no longer known".to_owned(),
        ),
        Err(error @ PublishError::Unavailable(_)) => (slug_of(error), format!("{error}; {advice}")),
        Err(error) => (slug_of(error), error.to_string()),
    };
    Some(EventErrorJson {
        index,
        kind: format!("urn:runcast:problem:{slug}"),
        detail,
    })
}

fn slug_of(error: &PublishError) -> &'static str {
    match error {
        PublishError::Closed => "run-closed",
        PublishError::Fenced => "producer-fenced",
        PublishError::TooLarge { .. } => "event-too-large",
        PublishError::Unavailable(_) => "store-unavailable",
    }
}

/// The problem of a `POST` of which nothing was accepted: what may pass comes
/// first, then what the publisher can only change by asking otherwise.
fn problem_of_all<'a>(errors: impl Iterator<Item = &'a PublishError> + Clone) -> Problem {
    let first = |wanted: fn(&PublishError) -> bool| errors.clone().find(|error| wanted(error));
    let chosen = first(|error| matches!(error, PublishError::Unavailable(_)))
        .or_else(|| first(|error| matches!(error, PublishError::Closed)))
        .or_else(|| first(|error| matches!(error, PublishError::Fenced)))
        .or_else(|| errors.clone().next());
    let Some(error) = chosen else {
        return Problem::new(422, "no-events", "No events", "the body holds no event");
    };
    let (status, title) = match error {
        PublishError::Closed => (409, "Run closed"),
        PublishError::Fenced => (409, "Producer fenced"),
        PublishError::TooLarge { .. } => (413, "Event too large"),
        PublishError::Unavailable(_) => (503, "Store unavailable"),
    };
    Problem::new(status, slug_of(error), title, error.to_string())
}

#[cfg(test)]
mod tests {
    use actix_web::body::MessageBody as _;
    use actix_web::http::header;
    use runcast_actors::protocol::DurableId;

    use super::*;

    fn check(results: Vec<PublishResult>, status: u16, expected: serde_json::Value) {
        let response = answer(results, "advice").unwrap_or_else(|error| error.error_response());
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(
            response.headers().contains_key(header::RETRY_AFTER),
            status == 503
        );
        let body = response.into_body().try_into_bytes().expect("a whole body");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        for (key, value) in expected.as_object().expect("an object") {
            assert_eq!(&body[key], value, "{body}");
        }
    }

    #[test]
    fn the_answer_follows_the_fate_of_the_events() {
        use serde_json::json;
        let id = Published::new(DurableId {
            epoch: 1,
            seq: 2,
            us: 3,
        });
        let large = || Err(PublishError::TooLarge { limit: 9 });
        let gone = || Err(PublishError::Unavailable("timeout".to_owned()));
        check(vec![Ok(id)], 202, json!({"ids": ["1-2-3"], "errors": []}));
        let forgotten = Published {
            id: None,
            is_duplicate: true,
        };
        check(
            vec![Ok(forgotten), Ok(id)],
            202,
            json!({"ids": [null, "1-2-3"], "errors": [{"index": 0, "type": "urn:runcast:problem:id-unknown", "detail": "this post was sent before, and which id the event got is no longer known"}]}),
        );
        check(
            vec![Ok(id), gone()],
            202,
            json!({"ids": ["1-2-3", null], "errors": [{"index": 1, "type": "urn:runcast:problem:store-unavailable", "detail": "it is unknown whether the event was accepted: timeout; advice"}]}),
        );
        check(
            vec![large(), Ok(id)],
            202,
            json!({"ids": [null, "1-2-3"], "errors": [{"index": 0, "type": "urn:runcast:problem:event-too-large", "detail": "the event is larger than 9 bytes"}]}),
        );
        for (results, status, slug) in [
            (
                vec![Err(PublishError::Closed), Err(PublishError::Closed)],
                409,
                "run-closed",
            ),
            (vec![Err(PublishError::Fenced)], 409, "producer-fenced"),
            (vec![large(), Err(PublishError::Closed)], 409, "run-closed"),
            (vec![large(), large()], 413, "event-too-large"),
            (vec![gone()], 503, "store-unavailable"),
            (
                vec![Err(PublishError::Closed), gone()],
                503,
                "store-unavailable",
            ),
        ] {
            let ids: Vec<Option<String>> = vec![None; results.len()];
            check(
                results,
                status,
                json!({"type": format!("urn:runcast:problem:{slug}"), "ids": ids}),
            );
        }
    }
}
