//! Outlets of Redis, plain and durable.

use anyhow::{Context as _, Result};
use redis::{Connection, Pipeline, Value};

use super::Outlet;
use crate::durable::{DurableRun, check_accepted};

fn connect(url: &str) -> Result<Connection> {
    redis::Client::open(url)
        .and_then(|client| client.get_connection())
        .with_context(|| format!("cannot connect to {url}"))
}

/// Publishes to channels.
pub(super) struct Plain {
    connection: Connection,
    channels: Vec<String>,
    pipe: Pipeline,
}

impl Plain {
    pub(super) fn connect(url: &str, channels: Vec<String>) -> Result<Self> {
        Ok(Self {
            connection: connect(url)?,
            channels,
            pipe: redis::pipe(),
        })
    }
}

impl Outlet for Plain {
    fn push(&mut self, run: usize, payload: &[u8]) {
        let channel = &self.channels[run];
        self.pipe.cmd("PUBLISH").arg(channel).arg(payload);
    }

    fn send(&mut self) -> Result<u64> {
        let answers = query(&mut self.pipe, &mut self.connection)?;
        let nobody = |answer: &&Value| **answer == Value::Int(0);
        Ok(answers.iter().filter(nobody).count() as u64)
    }
}

/// Publishes through the function, which does not tell who heard it; but it
/// may refuse a message, and that is an error.
pub(super) struct Durable {
    connection: Connection,
    runs: Vec<DurableRun>,
    pipe: Pipeline,
}

impl Durable {
    pub(super) fn connect(url: &str, runs: Vec<DurableRun>) -> Result<Self> {
        Ok(Self {
            connection: connect(url)?,
            runs,
            pipe: redis::pipe(),
        })
    }
}

impl Outlet for Durable {
    fn push(&mut self, run: usize, payload: &[u8]) {
        self.runs[run].publish(&mut self.pipe, payload);
    }

    fn send(&mut self) -> Result<u64> {
        check_accepted(&query(&mut self.pipe, &mut self.connection)?)?;
        Ok(0)
    }
}

fn query(pipe: &mut Pipeline, connection: &mut Connection) -> Result<Vec<Value>> {
    let answers = pipe.query(connection).context("cannot publish");
    pipe.clear();
    answers
}
