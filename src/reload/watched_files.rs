//! [`WatchedFiles`]: files that are looked at again and again.
//!
//! By what they hold, not by what the system tells of them: so it is all the
//! same whether a file was written, renamed over, or is behind a symbolic link
//! that was turned, as Kubernetes does with its config maps, and whether the
//! file system tells of changes at all.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, thread};

use tokio::sync::oneshot;
use tokio::time::sleep;

/// How often they are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long they must stay as they are before that counts: whoever writes one
/// may not be done, or write another one next.
const SETTLE: Duration = Duration::from_millis(250);

/// How often that is waited for, for somebody who never stops writing.
const SETTLE_MAX: u32 = 20;

/// Files that are looked at again and again.
#[derive(Debug)]
pub(super) struct WatchedFiles {
    paths: Vec<PathBuf>,
    /// What they held; `None` of one that cannot be read.
    seen: Vec<Option<Vec<u8>>>,
}

impl WatchedFiles {
    /// Notes what these hold now.
    pub(super) async fn new(paths: Vec<PathBuf>) -> Self {
        let seen = read(&paths).await;
        Self { paths, seen }
    }

    /// Notes what they hold now.
    pub(super) async fn note(&mut self) {
        self.seen = read(&self.paths).await;
    }

    /// Watches these from now on; notes what those hold that are new.
    pub(super) async fn watch(&mut self, paths: Vec<PathBuf>) {
        if self.paths != paths {
            *self = Self::new(paths).await;
        }
    }

    /// Waits until one holds something else than was noted, and notes that.
    /// Nothing is lost if it is dropped meanwhile.
    pub(super) async fn changed(&mut self) {
        loop {
            sleep(LOOK_INTERVAL).await;
            let mut now = read(&self.paths).await;
            if now == self.seen {
                continue;
            }
            for _ in 0..SETTLE_MAX {
                sleep(SETTLE).await;
                let again = read(&self.paths).await;
                if again == now {
                    break;
                }
                now = again;
            }
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

/// Reads them on a thread of its own. A file can hang, on a mount whose server is
/// gone: signals must be heard meanwhile, and a thread of the runtime would be
/// waited for at the end.
async fn read(paths: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    let count = paths.len();
    let paths = paths.to_vec();
    let (done, read) = oneshot::channel();
    let reading = move || {
        let held = paths.iter().map(|path| fs::read(path).ok()).collect();
        // Nobody waits any more when the program ends.
        let _ = done.send(held);
    };
    let started = thread::Builder::new()
        .name("files".to_owned())
        .spawn(reading);
    match started {
        Ok(_) => read.await.unwrap_or_else(|_| vec![None; count]),
        Err(_) => vec![None; count],
    }
}
