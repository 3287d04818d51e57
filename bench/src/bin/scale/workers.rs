//! The threads that the agents share. Each drives one runtime, as in fleetd.

use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;

/// The threads. Dropping them ends what runs on them.
pub(crate) struct Workers {
    handles: Vec<Handle>,
    stop: Arc<Notify>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(count: usize) -> Result<Self> {
        let stop = Arc::new(Notify::new());
        let (mut handles, mut threads) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (stop, (tell, told)) = (stop.clone(), mpsc::channel());
            threads.push(thread::spawn(move || {
                let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
                    return;
                };
                let stopped = stop.notified();
                if tell.send(runtime.handle().clone()).is_ok() {
                    runtime.block_on(stopped);
                }
            }));
            handles.push(told.recv().context("a thread without a runtime")?);
        }
        Ok(Self {
            handles,
            stop,
            threads,
        })
    }

    /// Returns the runtime for the given number.
    pub(crate) fn of(&self, number: usize) -> &Handle {
        &self.handles[number % self.handles.len()]
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.notify_waiters();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}
