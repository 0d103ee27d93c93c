//! Our Lua in Redis: loaded, replaced, reloaded, and used by who may do little.

use std::time::{Duration, Instant};

use runcast_actors::broker::{BrokerSettings, NewEvent, PublishError};
use runcast_actors::store::{AppendBatch, PageFrom, PageQuery};

use super::contract::{
    Backend, append, append_by, append_ok, duplicate_of, head, new_id, output, outputs, producer,
    read, run, texts, traced,
};
use super::redis::{RedisBackend, before_functions, by_functions, by_scripts};

/// A library of our name with another version inside.
fn other_version(version: u32) -> String {
    format!(
        "#!lua name=runcast\n\
         redis.register_function{{function_name='runcast_version', \
         callback=function() return {version} end, flags={{'no-writes'}}}}\n\
         redis.register_function('runcast_publish', function() return {{'OK','9-9-9'}} end)\n"
    )
}

async fn version(backend: &RedisBackend) -> u32 {
    backend.command(&["FCALL", "runcast_version", "0"]).await
}

#[tokio::test]
async fn an_older_library_is_replaced() {
    let backend = by_functions().await;
    let load = ["FUNCTION", "LOAD", &other_version(1)];
    backend.command::<String>(&load).await;
    let store = backend.open(BrokerSettings::default());
    assert_eq!(append_ok(&store, "42", outputs(1)).await[0].seq, 1);
    assert_eq!(version(&backend).await, 4);
}

/// Somebody loads one while we publish: then an option of ours is unknown.
#[tokio::test]
async fn a_library_that_lacks_an_option_is_replaced() {
    let backend = by_functions().await;
    let store = backend.open(BrokerSettings::default());
    append_ok(&store, "42", outputs(1)).await;
    let older = include_str!("../../actors/src/redis/runcast.lua");
    let older = older.replace("local VERSION = 4", "local VERSION = 3");
    let older = older.replace("'TRACE'", "'LATER'");
    let load = ["FUNCTION", "LOAD", "REPLACE", &older];
    backend.command::<String>(&load).await;
    let results = append(&store, "42", traced(outputs(2))).await;
    assert_eq!(
        results
            .iter()
            .map(|result| new_id(result).seq)
            .collect::<Vec<_>>(),
        [2, 3]
    );
    assert_eq!(version(&backend).await, 4);
    let page = read(&store, "42", PageFrom::After(1), 5).await;
    assert!(page.events.iter().all(|event| event.trace.is_some()));
}

#[tokio::test]
async fn a_newer_library_is_left_alone() {
    let backend = by_functions().await;
    let load = ["FUNCTION", "LOAD", &other_version(99)];
    backend.command::<String>(&load).await;
    let store = backend.open(BrokerSettings::default());
    let id = append_ok(&store, "42", outputs(1)).await[0];
    assert_eq!(id.to_string(), "9-9-9");
    assert_eq!(version(&backend).await, 99);
}

/// By functions no script is made, and the other way round.
#[tokio::test]
async fn one_way_is_taken() {
    for (backend, libraries, scripts) in [(by_functions().await, 1, 0), (by_scripts().await, 0, 2)]
    {
        let store = backend.open(BrokerSettings::default());
        append_ok(&store, "42", outputs(3)).await;
        assert_eq!(
            read(&store, "42", PageFrom::After(0), 5).await.events.len(),
            3
        );
        let listed: Vec<redis::Value> = backend.command(&["FUNCTION", "LIST"]).await;
        assert_eq!(listed.len(), libraries);
        let memory: String = backend.command(&["INFO", "memory"]).await;
        let cached = format!("number_of_cached_scripts:{scripts}\r\n");
        assert!(memory.contains(&cached), "{memory}");
    }
}

/// Redis forgets what was loaded, now and then; no call fails for it.
#[tokio::test]
async fn what_redis_forgot_is_loaded_again() {
    for backend in [
        by_functions().await,
        by_scripts().await,
        before_functions().await,
    ] {
        let is_6_2 = backend
            .command::<String>(&["INFO", "server"])
            .await
            .contains(":6.2.");
        let store = backend.open(BrokerSettings::default());
        for round in 0..3 {
            append_ok(&store, "42", outputs(5)).await;
            backend.command::<String>(&["SCRIPT", "FLUSH"]).await;
            if !is_6_2 {
                backend.command::<String>(&["FUNCTION", "FLUSH"]).await;
            }
            let page = read(&store, "42", PageFrom::After(0), 100).await;
            assert_eq!(page.events.len(), (round + 1) * 5);
            if round == 1 {
                backend.command::<String>(&["SCRIPT", "FLUSH"]).await;
            }
        }
    }
}

/// Many clients find Redis without our Lua at once: each batch is accepted
/// whole and in order, whoever loads it.
#[tokio::test]
async fn clients_that_load_it_at_once_keep_their_order() {
    // So large that Redis reads a batch in parts, with others between.
    let large: Vec<NewEvent> = (0..20).map(|_| output("x".repeat(20_000))).collect();
    for backend in [by_functions().await, by_scripts().await] {
        let stores = [(); 16].map(|()| backend.open(BrokerSettings::default()));
        let appended = stores.iter().enumerate().map(|(n, store)| {
            let batch = AppendBatch {
                // Those of one event have loaded it before the others are through.
                events: large[..if n % 2 == 0 { 20 } else { 1 }].to_vec(),
                producer: producer(&format!("p{n}"), 1, 1),
                ..AppendBatch::default()
            };
            append(store, "42", batch)
        });
        for results in futures_util::future::join_all(appended).await {
            assert!(results.iter().all(|result| new_id(result).seq > 0));
        }
        let page = read(&stores[0], "42", PageFrom::Before(u64::MAX), 20).await;
        assert_eq!(page.head.map(|head| head.last.seq), Some(168));
        assert!(page.events.iter().all(|event| event.lost == 0));
    }
}

/// A Redis that comes back without its data has neither functions nor scripts.
#[tokio::test]
async fn a_restarted_redis_is_published_to_at_once() {
    for mut backend in [by_functions().await, before_functions().await] {
        let store = backend.open(BrokerSettings::default());
        let old = append_ok(&store, "42", outputs(5)).await[4];
        backend.redis.kill();
        backend.redis.restart().await;
        // The connection may learn of the loss only now; it is made anew.
        crate::support::eventually("accepted", crate::support::wait::SOON, async || {
            let result = append_by(&store, "42", ("p", 1, 1), output("new")).await;
            assert!(
                matches!(result, Ok(_) | Err(PublishError::Unavailable(_))),
                "{result:?}"
            );
            result.is_ok()
        })
        .await;
        let new = head(&store, "42").await.last;
        assert!(new.epoch > old.epoch && new.seq == 1);
        assert_eq!(
            texts(&read(&store, "42", PageFrom::After(0), 9).await),
            ["new"]
        );
    }
}

/// Who may only read loads nothing, and still reads.
#[tokio::test]
async fn a_user_who_may_only_read_reads() {
    let may_read = ["+hmget", "+xrange", "+xrevrange", "+time"];
    for (ways, is_loaded) in [
        (&["%R~run:*", "+fcall_ro"][..], true),
        (&["%R~run:*", "+evalsha_ro", "+eval_ro"], false),
        (&["~run:*", "+evalsha", "+eval"], false),
    ] {
        let backend = by_functions().await;
        let all = backend.open(BrokerSettings::default());
        let ids = append_ok(&all, "42", outputs(3)).await;
        if !is_loaded {
            backend.command::<String>(&["FUNCTION", "FLUSH"]).await;
        }
        let backend = backend.only(&[&may_read[..], ways].concat()).await;
        let store = backend.open(BrokerSettings::default());
        for _ in 0..2 {
            let page = read(&store, "42", PageFrom::After(0), 10).await;
            assert_eq!(page.events.len(), 3, "{ways:?}");
        }
        let positions = store.positions(&[run("42"), run("43")]).await;
        assert_eq!(positions, Ok(vec![Some(ids[2]), None]));
        let batch = AppendBatch {
            events: outputs(2),
            ..AppendBatch::default()
        };
        for result in append(&store, "42", batch).await {
            assert!(
                matches!(result, Err(PublishError::Unavailable(_))),
                "{result:?}"
            );
        }
        assert_eq!(head(&all, "42").await.last, ids[2]);
    }
}

/// Who may only publish does so by a function that is there.
#[tokio::test]
async fn a_user_who_may_only_publish_publishes() {
    let backend = by_functions().await;
    append_ok(&backend.open(BrokerSettings::default()), "42", outputs(1)).await;
    let rules = "~run:* &run:* +fcall +fcall_ro +hmget +hlen +hgetall +hset +hdel +del \
                 +expire +time +xadd +xrange +xrevrange +publish";
    let rules: Vec<&str> = rules.split_whitespace().collect();
    let backend = backend.only(&rules).await;
    let store = backend.open(BrokerSettings::default());
    let batch = || AppendBatch {
        events: outputs(2),
        restart: true,
        producer: producer("p", 1, 1),
        ..AppendBatch::default()
    };
    let first = new_id(&append(&store, "42", batch()).await[0]);
    assert_eq!(
        append(&store, "42", batch()).await[0],
        duplicate_of(Some(first))
    );
}

/// A Redis that says nothing is told of after `redis.command_timeout`, and a
/// batch that waits delays no reader.
#[tokio::test]
async fn every_call_has_its_deadline() {
    let backend = by_functions().await;
    let mut settings = BrokerSettings::default();
    settings.redis.command_timeout = Duration::from_millis(300);
    let store = backend.open(settings);
    append_ok(&store, "42", outputs(1)).await;
    head(&store, "42").await;
    backend.redis.freeze();
    let begin = Instant::now();
    let query = PageQuery {
        from: PageFrom::After(0),
        events_max: 1,
        bytes_max: 1,
    };
    let batch = AppendBatch {
        events: outputs(3),
        ..AppendBatch::default()
    };
    let runs = [run("42")];
    let forty_two = run("42");
    let (page, positions, results) = tokio::join!(
        store.read(&forty_two, query),
        store.positions(&runs),
        append(&store, "42", batch),
    );
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    assert!(page.is_err() && positions.is_err());
    for result in results {
        assert!(
            matches!(result, Err(PublishError::Unavailable(_))),
            "{result:?}"
        );
    }
    backend.redis.thaw();
    let counters = &backend.metrics.store;
    let counted = [&counters.reads, &counters.checks, &counters.read_failures];
    assert_eq!(counted.map(|counter| counter.get()), [2, 1, 2]);
    assert_eq!(counters.read_events.get(), 1);
}
