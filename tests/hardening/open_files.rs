//! A broker whose limit of open files is lower than its settings.

use super::{Raw, refusals};
use crate::support::wait::SOON;
use crate::support::{Broker, SseClient, eventually};

/// 64 of its own, 8 of its one worker, and a hundred connections.
const FILES: u32 = 172;
const CONNECTIONS: usize = 100;
const STREAMS: usize = 94;

/// Opens streams until one is refused.
async fn fill(broker: &Broker) -> Vec<SseClient> {
    let mut clients = Vec::new();
    loop {
        let mut client = broker.stream("42/stream").await;
        client.frame().await;
        let second = client.frame().await;
        if second.event == "problem" {
            let goodbye = client.frame().await;
            assert_eq!(goodbye.json()["reason"], "overload");
            return clients;
        }
        clients.push(client);
    }
}

fn open_files(broker: &Broker) -> usize {
    let files = format!("/proc/{}/fd", broker.process.pid());
    std::fs::read_dir(files).expect("it runs").count()
}

#[tokio::test]
async fn a_broker_out_of_files_refuses_politely_and_recovers() {
    let broker = Broker::embedded()
        .set("server.workers", 1)
        .open_files(FILES)
        .start_ready()
        .await;
    let files_before = open_files(&broker);
    for _ in 0..2 {
        let mut clients = fill(&broker).await;
        assert_eq!(clients.len(), STREAMS);
        // Beside them it answers, and takes what is published.
        let id = broker.publish("42", 1.into()).await;
        for client in &mut clients {
            while client.frame().await.id.as_deref() != Some(&*id) {}
        }
        // Connections past the limit wait, and cost no file.
        let mut waiting = Vec::new();
        for _ in 0..CONNECTIONS {
            waiting.push(Raw::connect(broker.addr).await);
        }
        for client in &mut waiting {
            client
                .send("GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .await;
        }
        for client in &mut waiting {
            let answer = client.rest().await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        assert!(open_files(&broker) < FILES as usize);
        drop(clients);
        eventually("its files are as before", SOON, async || {
            open_files(&broker) <= files_before
        })
        .await;
    }
    assert_eq!(refusals(&broker, "limits.max_streams").await, 2.0);
    let log = broker.process.log().join("\n");
    assert!(!log.contains("Error accepting"), "{log}");
    assert!(log.contains("the limit of open files is lower"), "{log}");
}
