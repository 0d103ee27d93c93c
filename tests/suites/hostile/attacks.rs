//! What each [`Attack`] does, once, and what must come of it.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::foes::{ADDRESS, Attack, CROWDED, Foe, STREAMS_PER_IP};
use crate::support::http::{Answer, Request, connect};
use crate::support::token::{claims_but, hs256, now, signed, token};

/// So long may anything that is due take.
const PATIENCE: Duration = Duration::from_secs(60);
const BUSY: &str = "/api/v1/runs/foe-hot/stream?from=now";
/// So small that the busy run soon fills it.
const SMALL_BUFFER: u32 = 8 * 1024;

type Outcome = Result<(), String>;

/// Fails unless a status is one of those.
fn expect(status: u16, allowed: &[u16], of: &str) -> Outcome {
    match allowed.contains(&status) {
        true => Ok(()),
        false => Err(format!("{status} to {of}")),
    }
}

impl Foe {
    pub(super) async fn attack(&mut self, attack: Attack) -> Outcome {
        match attack {
            Attack::ReadNothing => self.read_nothing().await,
            Attack::SlowHead => {
                // Half of them after a request that was good.
                let good =
                    "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n".repeat(self.rng.usize(..2));
                self.drip(&(good + "GET /health/live HTTP/1.1\r\nX-Slow: "))
                    .await
            }
            Attack::SlowBody => {
                let token = &self.token;
                let head = format!(
                    "POST /api/v1/runs/foe-slow/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
                     Content-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n"
                );
                self.drip(&head).await
            }
            Attack::Connections => self.connect_and_wait().await,
            Attack::Streams => self.open_too_many().await,
            Attack::BadTokens => self.show_bad_tokens().await,
            Attack::OthersRuns => self.reach_for_others_runs().await,
            Attack::Pipeline => self.pipeline().await,
            Attack::Cut => self.cut().await,
            Attack::HugePosts => self.post_huge().await,
            Attack::Garbage => self.send_garbage().await,
            Attack::TicketReplays => self.replay_a_ticket().await,
            Attack::Cursors => self.come_with_cursors().await,
            Attack::NewRuns => self.ask_for_new_runs().await,
            Attack::Posts => self.post().await,
            Attack::Channels => self.publish_oddly().await,
        }
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let connected = connect(self.world.addr, ADDRESS, None).await;
        connected.map_err(|error| format!("not connected: {error}"))
    }

    fn bearing(&self, request: Request) -> Request {
        let header = format!("Bearer {}", self.token);
        request.from(ADDRESS).header("Authorization", header)
    }

    async fn open(&self, request: &Request) -> Result<Answer, String> {
        let answer = timeout(PATIENCE, request.open(self.world.addr)).await;
        let answer = answer.map_err(|_| format!("no answer to {request:?}"))?;
        answer.map_err(|error| format!("{error} at {request:?}"))
    }

    async fn status(&self, request: &Request) -> Result<u16, String> {
        Ok(self.open(request).await?.head.status)
    }

    async fn pause(&mut self, least_ms: u64, most_ms: u64) {
        sleep(Duration::from_millis(self.rng.u64(least_ms..most_ms))).await;
    }

    async fn read_nothing(&mut self) -> Outcome {
        let request = self.bearing(Request::get(BUSY).receive_buffer(SMALL_BUFFER));
        let mut answer = self.open(&request).await?;
        expect(answer.head.status, &[200], "a busy stream")?;
        self.pause(1000, 12_000).await;
        let reading = async { while let Ok(Some(_)) = answer.next().await {} };
        // Time over: it was not closed, and goes by itself.
        let _ = timeout(Duration::from_secs(1), reading).await;
        Ok(())
    }

    /// Sends a byte now and then: the broker closes long before its patience.
    async fn drip(&mut self, beginning: &str) -> Outcome {
        let mut socket = self.connect().await?;
        let dripping = async {
            let (mut reader, mut writer) = socket.split();
            let writing = async {
                writer.write_all(beginning.as_bytes()).await?;
                loop {
                    writer.write_all(b"x").await?;
                    sleep(Duration::from_millis(100)).await;
                }
            };
            let mut answer = Vec::new();
            tokio::select! {
                _ = reader.read_to_end(&mut answer) => {}
                broken = writing => {
                    let _: Result<(), std::io::Error> = broken;
                }
            }
        };
        timeout(PATIENCE, dripping)
            .await
            .map_err(|_| "it may drip for ever".to_owned())
    }

    async fn connect_and_wait(&mut self) -> Outcome {
        let sockets = join_all((0..100).map(|_| self.connect())).await;
        self.pause(0, 1000).await;
        for socket in sockets {
            let socket = socket?;
            if self.rng.bool() {
                socket
                    .set_zero_linger()
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    async fn open_too_many(&mut self) -> Outcome {
        let mut streams = Vec::new();
        for _ in 0..STREAMS_PER_IP + 50 {
            let request = self.bearing(Request::get(BUSY)).from(CROWDED);
            streams.push(
                self.open(&request.header("Accept", "text/event-stream"))
                    .await?,
            );
        }
        // Those past the bound get a problem and a goodbye; the broker counts them.
        let stream = streams.last_mut().ok_or("no stream")?;
        let first = timeout(PATIENCE, stream.next()).await;
        first.map_err(|_| "a silent stream".to_owned())?.ok();
        Ok(())
    }

    async fn show_bad_tokens(&mut self) -> Outcome {
        let rights = json!({"subscribe": ["*"], "publish": ["*"], "admin": true});
        let good = token(&claims_but(rights.clone(), json!({})));
        let claims = claims_but(rights.clone(), json!({})).to_string();
        let (head, rest) = good.split_once('.').expect("three parts");
        let bad = [
            token(&claims_but(rights.clone(), json!({"exp": now() - 100}))),
            token(&claims_but(rights.clone(), json!({"nbf": now() + 100}))),
            token(&claims_but(rights.clone(), json!({"aud": "another"}))),
            token(&claims_but(rights, json!({"iss": "another"}))),
            signed(r#"{"alg":"HS256"}"#, &claims, &hs256(&[b'k'; 64])),
            signed(r#"{"alg":"none"}"#, &claims, &|_| Vec::new()),
            format!("{head}.{}", &rest[1..]),
            good[..self.rng.usize(1..good.len() - 1)].to_owned(),
            "x".repeat(self.rng.usize(1..12_000)),
        ];
        for text in bad {
            for path in ["/api/v1/runs/good-0-1/stream", "/metrics", "/api/v1/runs"] {
                let request = Request::get(path)
                    .from(ADDRESS)
                    .header("Authorization", format!("Bearer {text}"));
                expect(self.status(&request).await?, &[401], &text)?;
            }
        }
        let in_query = Request::get(format!("/api/v1/runs/good-0-1/stream?token={good}"));
        expect(
            self.status(&in_query.from(ADDRESS)).await?,
            &[400],
            "a token in the query",
        )
    }

    async fn reach_for_others_runs(&mut self) -> Outcome {
        for run in [
            "good-0-1",
            "good-1-1",
            "*",
            "foe-*",
            "%2A",
            "ｆoe-1",
            "foe-%EF%BC%91",
        ] {
            for rest in ["/stream", "/events", "", "/stream/redis", "/stream/kubectl"] {
                let request = self.bearing(Request::get(format!("/api/v1/runs/{run}{rest}")));
                expect(self.status(&request).await?, &[400, 404], run)?;
            }
            let path = format!("/api/v1/runs/{run}/events");
            let event = json!({"kind": "status", "data": "failed"}).to_string();
            let request = self.bearing(Request::post(path, "application/json", event));
            expect(self.status(&request).await?, &[400, 403, 404], run)?;
        }
        let all = self.bearing(Request::post(
            "/api/v1/revocations",
            "application/json",
            r#"{"sub":"good-1"}"#,
        ));
        expect(self.status(&all).await?, &[403], "a revocation")?;
        expect(
            self.status(&self.bearing(Request::get("/metrics"))).await?,
            &[403],
            "metrics",
        )
    }

    async fn pipeline(&mut self) -> Outcome {
        let mut socket = self.connect().await?;
        let requests = "GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
        let _ = timeout(
            Duration::from_secs(2),
            socket.write_all(requests.as_bytes()),
        )
        .await;
        self.pause(100, 2000).await;
        Ok(())
    }

    async fn cut(&mut self) -> Outcome {
        let mut answer = self.open(&self.bearing(Request::get(BUSY))).await?;
        expect(answer.head.status, &[200], "a busy stream")?;
        for _ in 0..self.rng.u8(..4) {
            let _ = timeout(Duration::from_secs(1), answer.next()).await;
        }
        if self.rng.bool() {
            answer.reset();
        }
        Ok(())
    }

    async fn post_huge(&mut self) -> Outcome {
        let path = "/api/v1/runs/foe-huge/events";
        let five_mib = vec![b'x'; 5 << 20];
        let request = self.bearing(Request::post(path, "text/plain", five_mib));
        expect(self.status(&request).await?, &[413, 503], "5 MiB")?;
        let mut socket = self.connect().await?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
            self.token
        );
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        let writing = async {
            socket.write_all(head.as_bytes()).await?;
            loop {
                socket.write_all(chunk.as_bytes()).await?;
            }
        };
        // Refused at once, it is read for a second more, so that whoever writes
        // has the answer; then the connection is closed.
        let written: Result<Result<(), std::io::Error>, _> = timeout(PATIENCE, writing).await;
        written.map_err(|_| "read without an end".to_owned())?.ok();
        Ok(())
    }

    async fn send_garbage(&mut self) -> Outcome {
        let random: Vec<u8> = (0..self.rng.usize(1..4000))
            .map(|_| self.rng.u8(..))
            .collect();
        let large = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
        let pieces: [&[u8]; 7] = [
            &random,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET /\r\n\r\n",
            b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
            large.as_bytes(),
            b"\r\n\r\n\r\n",
        ];
        let mut socket = self.connect().await?;
        // It may be closed before it is all sent.
        let _ = socket
            .write_all(pieces[self.rng.usize(..pieces.len())])
            .await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let reading = timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
        let _ = reading.map_err(|_| "left hanging".to_owned())?;
        Ok(())
    }

    async fn replay_a_ticket(&mut self) -> Outcome {
        let wish = r#"{"run_id":"foe-hot"}"#;
        let request = self.bearing(Request::post("/api/v1/tickets", "application/json", wish));
        let mut answer = self.open(&request).await?;
        expect(answer.head.status, &[201], "a ticket")?;
        let mut body = Vec::new();
        while let Ok(Some(piece)) = answer.next().await {
            body.extend_from_slice(&piece);
        }
        let answer: serde_json::Value =
            serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let code = answer["ticket"].as_str().ok_or("no code")?;
        let request = Request::get(format!("{BUSY}&ticket={code}")).from(ADDRESS);
        let showing = join_all((0..8).map(|_| self.status(&request))).await;
        let statuses: Vec<u16> = showing.into_iter().collect::<Result<_, _>>()?;
        let let_in = statuses.iter().filter(|status| **status == 200).count();
        match let_in {
            1 => Ok(()),
            _ => Err(format!("one ticket shown eight times: {statuses:?}")),
        }
    }

    async fn come_with_cursors(&mut self) -> Outcome {
        let n = self.rng.u64(..);
        let cursors = [
            format!("{n}-{n}-{n}"),
            format!("~{n:x}-{n}"),
            format!("k0:{n:x}-{n}-{}", n as u32),
            "x".repeat(self.rng.usize(1..8000)),
            "-".repeat(self.rng.usize(1..100)),
            "\u{fe}\u{ff}".to_owned(),
        ];
        let cursor = &cursors[self.rng.usize(..cursors.len())];
        let request = self
            .bearing(Request::get(BUSY))
            .header("Last-Event-ID", cursor);
        let mut answer = self.open(&request).await?;
        expect(answer.head.status, &[200], cursor)?;
        let _ = timeout(Duration::from_secs(1), answer.next()).await;
        Ok(())
    }

    async fn ask_for_new_runs(&mut self) -> Outcome {
        let runs: Vec<u64> = (0..20).map(|_| self.rng.u64(..)).collect();
        let paths = runs
            .iter()
            .map(|run| format!("/api/v1/runs/foe-{run:x}/stream"));
        let requests: Vec<Request> = paths.map(|path| self.bearing(Request::get(path))).collect();
        for answer in join_all(requests.iter().map(|request| self.open(request))).await {
            expect(answer?.head.status, &[200], "a new run")?;
        }
        Ok(())
    }

    async fn post(&mut self) -> Outcome {
        let path = format!("/api/v1/runs/foe-{}/events?restart=true", self.rng.u8(..50));
        let event = json!({"kind": "output", "data": "x".repeat(self.rng.usize(..2000))});
        let end = json!({"kind": "status", "data": "completed"});
        let body = format!("{event}\n{event}\n{end}\nno JSON\n");
        let key = format!("{:x}", self.rng.u64(..));
        for (kind, body) in [
            ("application/x-ndjson", body.clone().into_bytes()),
            ("application/json", body.into_bytes()),
            ("text/plain", b"\xff\xfe\0\r\n\r\n".to_vec()),
        ] {
            let request = self.bearing(Request::post(&path, kind, body));
            let request = request.header("Idempotency-Key", &key);
            let status = self.status(&request).await?;
            // Busy is an answer; a fault of ours is none.
            expect(status, &[202, 400, 409, 422, 429, 503], kind)?;
        }
        Ok(())
    }

    async fn publish_oddly(&mut self) -> Outcome {
        let long = format!("run:{}:status", "x".repeat(10_000));
        let odd: [&[u8]; 10] = [
            b"run::status",
            b"run:",
            b"run:good-0-1",
            b"run:*:status",
            b"run:good-0-1\n:status",
            b"run:\xff:status",
            b"run:{good-0-1:events",
            b"run:{}:events",
            b"run:_revoked",
            long.as_bytes(),
        ];
        for channel in odd {
            self.publisher.publish(channel, "forged").await;
        }
        let n = self.rng.u64(..);
        let forged = [
            "garbage".to_owned(),
            "1 x y z 0 output 0 0 \nx".to_owned(),
            format!("1 {n} {n} {n} 0 output 0 1 x\n1"),
            format!("99 1 1 1 0 output 0 0 \n{n}"),
        ];
        for slot in 0..20 {
            let generation = self.rng.u64(1..20);
            let channel = format!("run:{{good-{slot}-{generation}}}:events");
            for message in &forged {
                self.publisher.publish(&channel, message).await;
            }
        }
        Ok(())
    }
}
