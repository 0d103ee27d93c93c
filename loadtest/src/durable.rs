//! [`DurableRun`]: publishes to a run through `runcast_publish`, as an agent
//! would.

use anyhow::{Result, bail};
use redis::{FromRedisValue as _, Pipeline, Value};

/// A run's names in Redis, with the prefix of the settings as shipped.
#[derive(Debug, Clone)]
pub(crate) struct DurableRun {
    run_id: String,
    stream: String,
    meta: String,
}

impl DurableRun {
    /// Names the keys of a run.
    pub(crate) fn new(run_id: &str) -> Self {
        Self {
            run_id: run_id.to_owned(),
            stream: format!("run:{{{run_id}}}:stream"),
            meta: format!("run:{{{run_id}}}:meta"),
        }
    }

    /// Returns the key of its stream.
    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    /// Returns the key of its hash.
    pub(crate) fn meta(&self) -> &str {
        &self.meta
    }

    /// Adds the publish of one output event to `pipe`.
    pub(crate) fn publish<'a>(&self, pipe: &'a mut Pipeline, payload: &[u8]) -> &'a mut Pipeline {
        pipe.cmd("FCALL")
            .arg("runcast_publish")
            .arg(2)
            .arg(&self.stream)
            .arg(&self.meta)
            .arg(&self.run_id)
            .arg("output")
            .arg("loadtest")
            .arg(payload)
    }

    /// The same of the numbered producer `loadtest`, in its epoch 1.
    pub(crate) fn publish_numbered(&self, pipe: &mut Pipeline, payload: &[u8], seq: u64) {
        let options = self.publish(pipe, payload);
        options.arg("PRODUCER").arg("loadtest").arg(1).arg(seq);
    }
}

/// Makes sure that each event of a pipeline was accepted as a new one.
pub(crate) fn check_accepted(answers: &[Value]) -> Result<()> {
    for answer in answers {
        let words = Vec::<String>::from_redis_value_ref(answer)?;
        if words.first().map(String::as_str) != Some("OK") {
            bail!("Redis accepted no event: {words:?}");
        }
    }
    Ok(())
}
