//! A units directory in memory, for simulations: what lies in it is known in its moment, and told
//! without the kernel.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::directory::{Directory, File};
use tokio::sync::watch;
use tokio::time::sleep;

use super::DEBOUNCE;
use super::problems::Findings;
use super::source::Source;

/// The directory. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Memory {
    files: Arc<watch::Sender<Directory>>,
    seen: watch::Receiver<Directory>,
}

impl Default for Memory {
    fn default() -> Self {
        let files = watch::Sender::new(Directory::Present {
            marked: false,
            files: BTreeMap::new(),
        });
        Self {
            seen: files.subscribe(),
            files: Arc::new(files),
        }
    }
}

impl Memory {
    /// Puts an entry in place, or takes it away (none).
    pub fn put(&self, name: &str, file: Option<File>) {
        self.files.send_modify(|directory| {
            if let Directory::Present { files, .. } = directory {
                match file {
                    Some(file) => files.insert(name.to_owned(), file),
                    None => files.remove(name),
                };
            }
        });
    }

    /// For somebody who has not looked yet.
    pub(super) fn seen_anew(&self) -> Self {
        Self {
            files: self.files.clone(),
            seen: self.files.subscribe(),
        }
    }
}

#[async_trait]
impl Source for Memory {
    async fn changed(&mut self) {
        // This one holds a sender.
        let _ = self.seen.changed().await;
    }

    async fn settle(&mut self) {
        sleep(DEBOUNCE).await;
    }

    async fn look(
        &mut self,
        _findings: &mut Findings,
    ) -> io::Result<Option<(Directory, Option<Duration>)>> {
        Ok(Some((self.seen.borrow_and_update().clone(), None)))
    }

    async fn mark(&mut self) -> io::Result<()> {
        self.files.send_modify(|directory| {
            if let Directory::Present { marked, .. } = directory {
                *marked = true;
            }
        });
        Ok(())
    }

    fn is_slow(&self) -> bool {
        false
    }
}
