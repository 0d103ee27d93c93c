//! `POST /api/v1/tickets`: one-use codes for clients that can send no header,
//! as a browser's EventSource.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::header;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use runcast_actors::access::Bearer;
use runcast_actors::broker::Broker;
use runcast_actors::protocol::{Problem, RunId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::HttpState;
use super::caller::Caller;
use super::cors::check_origin;
use super::gate::Gate;
use super::problem::{ApiError, ProblemJson, task_failed};
use super::small_body::read_json;
use crate::auth::{Identity, Kinds, Rights, RunPattern};

/// Random bytes of a code.
const CODE_BYTES: usize = 32;

/// Characters of a code, in base64.
const CODE_LEN: usize = 43;

/// Body of a request for a ticket.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TicketRequestJson {
    /// The run that it is to open a stream of.
    #[schema(example = "42")]
    run_id: String,
}

/// A ticket.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TicketJson {
    /// What to send as `?ticket=`, once.
    ticket: String,
    /// How many seconds it is good for.
    #[schema(example = 30)]
    expires_in: u64,
}

/// A ticket as the store keeps it: what its token admits, and no more than one
/// run of that.
#[derive(Debug, Serialize, Deserialize)]
struct Ticket {
    run_id: String,
    sub: String,
    jti: Option<String>,
    iat: Option<u64>,
    exp: u64,
    kinds: Kinds,
}

impl Ticket {
    fn identity(self) -> Option<Identity> {
        let run_id = RunId::parse(&self.run_id).ok()?;
        Some(Identity {
            bearer: Bearer {
                subject: self.sub.into(),
                token_id: self.jti.map(Into::into),
                issued_at: self.iat,
                expires_at: self.exp,
            },
            rights: Rights {
                subscribe: vec![RunPattern::Exact(run_id)],
                kinds: self.kinds,
                ..Rights::default()
            },
        })
    }
}

/// Issues a ticket that opens one stream of one run, on any broker.
#[utoipa::path(
    post,
    path = "/api/v1/tickets",
    tag = "access",
    request_body = TicketRequestJson,
    responses(
        (status = 201, description = "The ticket: for ?ticket= of a stream, once", body = TicketJson),
        (status = 400, description = "Bad run id or JSON", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 401, description = "No token, or one that does not count", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 403, description = "From a page of an origin that is not allowed", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 404, description = "No such run, or none that the token may read; auth.mode is none", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 413, description = "Body too large", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 415, description = "Unsupported body type", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 429, description = "This subject has auth.max_tickets_per_subject tickets that are good", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 503, description = "The store is unavailable, or all tickets are out", content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn tickets(
    caller: Caller,
    request: HttpRequest,
    payload: Payload,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let (Some(gate), Some(bearer)) = (&state.gate, caller.bearer()) else {
        return Err(ApiError::auth_disabled());
    };
    check_origin(&request, &state.settings.allowed_origins)?;
    let wish: TicketRequestJson = {
        let client = caller.client(&state, &request);
        read_json(&state, &request, payload, client).await?
    };
    caller.still_counts(&state)?;
    let run_id = RunId::parse(&wish.run_id).map_err(ApiError::bad_run_id)?;
    caller.may_read(&run_id)?;
    let room = gate.issued.take(&bearer.subject)?;
    let ticket = Ticket {
        run_id: run_id.to_string(),
        sub: bearer.subject.to_string(),
        jti: bearer.token_id.as_deref().map(str::to_owned),
        iat: bearer.issued_at,
        exp: bearer.expires_at,
        kinds: caller.kinds(),
    };
    let ticket = serde_json::to_string(&ticket).expect("a ticket has only text keys");
    let code = new_code().ok_or_else(ApiError::internal)?;
    let ttl = gate.ticket_ttl;
    let name = TicketName::of(&code);
    let keeping = Data::clone(&state);
    // A task of its own: a client that goes away in the middle must not get its
    // room back while the store keeps the ticket.
    let kept = actix_web::rt::spawn(async move {
        let kept = keeping.broker.put_ticket(&name.0, ticket, ttl).await;
        if kept.is_err()
            && let Some(gate) = &keeping.gate
        {
            gate.issued.give_back(&room);
        }
        kept
    });
    kept.await.map_err(task_failed)??;
    gate.tickets.with_label_values(&["issued"]).inc();
    let answer = TicketJson {
        ticket: code,
        expires_in: ttl.as_secs(),
    };
    Ok(HttpResponse::Created()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(answer))
}

/// What a ticket is kept under: whoever reads the store learns no code.
#[derive(Debug, Clone)]
pub(super) struct TicketName(pub(super) String);

impl TicketName {
    fn of(code: &str) -> Self {
        let hash = Sha256::digest(code.as_bytes());
        Self(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Returns who may open a stream with a code, and the ticket's name: it is good
/// until the stream begins.
///
/// # Errors
/// 401 for a code that is none; 503 when the store does not answer.
pub(super) async fn look_up(
    gate: &Gate,
    broker: &Broker,
    code: &str,
) -> Result<(Identity, TicketName), ApiError> {
    let is_code = code.len() == CODE_LEN
        && code
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !is_code {
        return Err(gate.bad_ticket());
    }
    let name = TicketName::of(code);
    let ticket = broker.ticket(&name.0).await?;
    let ticket = ticket.ok_or_else(|| gate.bad_ticket())?;
    let ticket = serde_json::from_str::<Ticket>(&ticket).ok();
    let identity = ticket.and_then(Ticket::identity);
    let identity = identity.ok_or_else(|| gate.bad_ticket())?;
    Ok((identity, name))
}

fn new_code() -> Option<String> {
    let mut bytes = [0; CODE_BYTES];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// Bounds the tickets that are good at once, in all and of each subject.
#[derive(Debug)]
pub(super) struct Issued {
    ttl: Duration,
    max: usize,
    max_per_subject: usize,
    good: Mutex<Good>,
}

/// Room that was taken for a ticket.
#[derive(Debug)]
struct Room {
    ends: Instant,
    subject: Arc<str>,
}

#[derive(Debug, Default)]
struct Good {
    /// When each ends, the oldest first, and whose it is.
    tickets: VecDeque<(Instant, Arc<str>)>,
    by_subject: HashMap<Arc<str>, usize>,
}

impl Good {
    fn forget(&mut self, now: Instant) {
        while let Some((_, subject)) = self.tickets.pop_front_if(|(ends, _)| *ends <= now) {
            self.count_down(&subject);
        }
    }

    fn count_down(&mut self, subject: &Arc<str>) {
        if let Some(count) = self.by_subject.get_mut(subject) {
            *count -= 1;
            if *count == 0 {
                self.by_subject.remove(subject);
            }
        }
    }
}

impl Issued {
    pub(super) fn new(ttl: Duration, max: usize, max_per_subject: usize) -> Self {
        Self {
            ttl,
            max,
            max_per_subject,
            good: Mutex::default(),
        }
    }

    /// Takes room for a ticket of `subject`, until it ends. One that was used
    /// keeps its room until then, too: whether it was, another broker knows.
    ///
    /// # Errors
    /// 429 if the subject has too many, 503 if all have.
    fn take(&self, subject: &Arc<str>) -> Result<Room, ApiError> {
        let now = Instant::now();
        let mut good = self.good();
        good.forget(now);
        let of_subject = good.by_subject.get(subject).copied().unwrap_or_default();
        if of_subject >= self.max_per_subject {
            let detail = format!(
                "this subject has its {} tickets (auth.max_tickets_per_subject); use them, or wait",
                self.max_per_subject
            );
            return Err(Problem::new(429, "too-many-tickets", "Too many tickets", detail).into());
        }
        if good.tickets.len() >= self.max {
            let detail = format!(
                "this broker has its {} tickets (auth.max_tickets) out; try again",
                self.max
            );
            return Err(Problem::new(503, "too-many-tickets", "Too many tickets", detail).into());
        }
        let ends = now + self.ttl;
        let subject = Arc::clone(subject);
        good.tickets.push_back((ends, Arc::clone(&subject)));
        *good.by_subject.entry(Arc::clone(&subject)).or_default() += 1;
        Ok(Room { ends, subject })
    }

    /// Gives back the room of a ticket that the store does not keep.
    fn give_back(&self, room: &Room) {
        let mut good = self.good();
        let is_it = |(ends, subject): &(Instant, Arc<str>)| {
            *ends == room.ends && Arc::ptr_eq(subject, &room.subject)
        };
        // Not long ago, so it is near the end; not there, if it has ended.
        if let Some(index) = good.tickets.iter().rposition(is_it) {
            good.tickets.remove(index);
            good.count_down(&room.subject);
        }
    }

    fn good(&self) -> MutexGuard<'_, Good> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_bounded_in_all_and_of_each_subject() {
        let subjects: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).to_vec();
        let issued = Issued::new(Duration::from_secs(60), 3, 2);
        let slug = |subject: &Arc<str>| {
            let taken = issued.take(subject);
            taken.map(|_| ()).map_err(|it| it.to_string())
        };
        assert_eq!((slug(&subjects[0]), slug(&subjects[0])), (Ok(()), Ok(())));
        assert!(slug(&subjects[0]).is_err_and(|it| it.contains("per_subject")));
        assert_eq!(slug(&subjects[1]), Ok(()));
        assert!(slug(&subjects[2]).is_err_and(|it| it.contains("auth.max_tickets)")));
        let later = Instant::now() + Duration::from_secs(61);
        issued.good.lock().expect("nobody panicked").forget(later);
        assert_eq!(slug(&subjects[0]), Ok(()));
        let good = issued.good.lock().expect("nobody panicked");
        assert_eq!((good.tickets.len(), good.by_subject.len()), (1, 1));
    }

    #[test]
    fn room_that_is_given_back_is_free_at_once() {
        let subject: Arc<str> = "a".into();
        let issued = Issued::new(Duration::from_secs(60), 2, 2);
        let kept = issued.take(&subject).expect("room");
        let refused = issued.take(&subject).expect("room");
        assert!(issued.take(&subject).is_err());
        issued.give_back(&refused);
        let again = issued.take(&subject).expect("room");
        assert!(issued.take(&subject).is_err());
        for room in [again, kept] {
            issued.give_back(&room);
        }
        let good = issued.good();
        assert!(good.tickets.is_empty() && good.by_subject.is_empty());
    }

    #[test]
    fn a_ticket_is_what_its_token_admits_of_one_run() {
        let json = r#"{"run_id":"42","sub":"a","jti":null,"iat":1,"exp":2,"kinds":["log"]}"#;
        let ticket: Ticket = serde_json::from_str(json).expect("a ticket");
        assert_eq!(serde_json::to_string(&ticket).expect("JSON"), json);
        let identity = ticket.identity().expect("a run id");
        assert!(identity.rights.publish.is_empty() && !identity.rights.admin);
        assert_eq!(format!("{:?}", identity.rights.subscribe), r#"["42"]"#);
        assert_eq!(Vec::from(identity.rights.kinds).len(), 1);
    }

    #[test]
    fn codes_are_long_and_differ() {
        let (one, other) = (new_code(), new_code());
        assert_ne!(one, other);
        assert_eq!(one.map(|code| code.len()), Some(CODE_LEN));
    }
}
