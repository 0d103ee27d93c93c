//! The contract in memory.

use std::sync::{Arc, OnceLock};

use runcast_actors::broker::BrokerSettings;
use runcast_actors::memory_store::MemoryStore;
use runcast_actors::metrics::Metrics;
use runcast_actors::store::RunStore;

use super::contract::{Backend, contract_tests};

/// One store, whose settings are those it was first opened with.
#[derive(Default)]
struct MemoryBackend(OnceLock<Arc<MemoryStore>>);

impl Backend for MemoryBackend {
    fn open(&self, settings: BrokerSettings) -> Arc<dyn RunStore> {
        let make = || {
            let (metrics, sink) = (Arc::new(Metrics::default()), Box::new(|_: &_, _| {}));
            Arc::new(MemoryStore::new(&settings, metrics, sink))
        };
        Arc::clone(self.0.get_or_init(make)) as Arc<dyn RunStore>
    }
}

async fn empty() -> MemoryBackend {
    MemoryBackend::default()
}

contract_tests!(in_memory, super::empty);
