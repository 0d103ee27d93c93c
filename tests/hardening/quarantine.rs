//! A run whose hub panics again and again, in a build that can be told to
//! (`make faults-off`).

use serde_json::json;

use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

const PANIC: &str = "\"panic\"";

#[tokio::test]
async fn a_run_that_fails_again_and_again_is_set_aside_alone() {
    let redis = Redis::start().await;
    for settings in [Broker::embedded(), Broker::redis(&redis)] {
        let broker = settings
            .variable("RUNCAST_FAULT_PANIC", PANIC)
            .set("hub.max_panics", 3)
            .set("hub.quarantine", "5s")
            .start_ready()
            .await;
        let mut client = broker.follow("42/stream").await;
        let mut other = broker.follow("43/stream").await;
        let mut posted = Vec::new();
        for panics in 1..=3 {
            posted.push(broker.publish("42", json!("panic")).await);
            broker
                .wait_metric("runcast_hub_panics_total", &[], f64::from(panics))
                .await;
            if panics < 3 {
                // Its clients go on: with what failed, too, from the store.
                posted.push(broker.publish("42", json!(panics)).await);
                for id in &posted[posted.len() - 2..] {
                    assert_eq!(client.run_event().await.id(), id);
                }
            }
        }
        let frames = client.rest(SOON).await;
        let [.., problem, goodbye] = frames.as_slice() else {
            panic!("{frames:?}");
        };
        assert_eq!(
            problem.json()["type"],
            "urn:runcast:problem:run-quarantined"
        );
        assert_eq!(goodbye.event, "goodbye");
        broker
            .wait_metric("runcast_quarantined_runs", &[], 1.0)
            .await;
        // It alone is not served, and what is posted is kept.
        let refused = broker.stream("42/stream").await.rest(SOON).await;
        assert_eq!(refused[1].json()["type"], problem.json()["type"]);
        posted.push(broker.publish("42", json!("meanwhile")).await);
        let elsewhere = broker.publish("43", json!("elsewhere")).await;
        let next = other.event().await;
        assert_eq!(next.id(), elsewhere, "no gap before it");
        assert_eq!(broker.get("/health").await.status(), 200);
        eventually("it is served again", 2 * SOON, async || {
            let mut client = broker.stream("42/stream").await;
            client.frame().await;
            client.frame().await.event == "hello"
        })
        .await;
        let mut back = broker.follow("42/stream").await;
        for id in &posted {
            assert_eq!(back.run_event().await.id(), id);
        }
        assert_eq!(broker.metric("runcast_hub_panics_total", &[]).await, 3.0);
    }
}
