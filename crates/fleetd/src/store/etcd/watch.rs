//! A watch of several prefixes on one stream of etcd.
//!
//! etcd sends a commit's events below one prefix in one message and never splits them. A message
//! may have several commits. The connection's own pings find a dead peer, so an idle watch costs
//! etcd nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};

use super::endpoints::{Connection, Endpoints};
use super::failure::Failure;
use super::{entry, relative};
use crate::store::{Batch, Change, Result, StoreError, Watch};

pub(super) struct EtcdWatch {
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) opened: Opened,
}

/// A stream whose watches etcd has accepted.
pub(super) struct Opened {
    connection: Arc<Connection>,
    stream: WatchStream,
    key_prefix: String,
    ready: VecDeque<Batch>,
}

impl Opened {
    /// Opens a stream with a watch for each of these prefixes, which are whole keys. There is at
    /// least one.
    pub(super) async fn open(
        connection: Arc<Connection>,
        key_prefix: String,
        keys: Vec<String>,
        after: u64,
    ) -> Result<Self, Failure> {
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(after.saturating_add(1) as i64);
        let mut keys = keys.into_iter();
        let mut awaited = keys.len();
        let first = keys.next().unwrap_or_default();
        let mut stream = connection
            .watch()
            .watch(first, Some(options.clone()))
            .await?;
        for key in keys {
            stream.watch(key, Some(options.clone())).await?;
        }
        let mut opened = Self {
            connection,
            stream,
            key_prefix,
            ready: VecDeque::new(),
        };
        while awaited > 0 {
            // The first watch may have events before the last one is accepted.
            let response = opened.receive().await?;
            if response.created() {
                awaited -= 1;
            }
        }
        Ok(opened)
    }

    /// Waits for one message and keeps its batches. Safe to cancel.
    async fn receive(&mut self) -> Result<WatchResponse, Failure> {
        let ended = || Failure::Unknown("the watch was ended".into());
        let response = self.stream.message().await?.ok_or_else(ended)?;
        if let Ok(compacted @ 1..) = u64::try_from(response.compact_revision()) {
            return Err(Failure::Final(StoreError::Compacted(compacted)));
        }
        // etcd sends nothing after that, and keeps the stream open. An expired login looks the
        // same, so this is not final.
        if response.canceled() {
            let reason = response.cancel_reason();
            return Err(Failure::Unknown(format!("the watch was refused: {reason}")));
        }
        self.ready.extend(batches(&response, &self.key_prefix));
        Ok(response)
    }
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Batch> {
        loop {
            if let Some(batch) = self.opened.ready.pop_front() {
                return Ok(batch);
            }
            if let Err(failure) = self.opened.receive().await {
                self.endpoints.failed_on(&self.opened.connection, &failure);
                return Err(self.opened.connection.error(failure));
            }
        }
    }
}

fn batches(response: &WatchResponse, key_prefix: &str) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for event in response.events() {
        let Some(pair) = event.kv() else { continue };
        let Some(key) = relative(pair, key_prefix) else {
            continue;
        };
        let change = match event.event_type() {
            EventType::Put => Change::Put(key, entry(pair)),
            EventType::Delete => Change::Delete(key),
        };
        let revision = pair.mod_revision() as u64;
        match batches.last_mut() {
            Some(batch) if batch.revision == revision => batch.changes.push(change),
            _ => batches.push(Batch {
                revision,
                changes: vec![change],
            }),
        }
    }
    batches
}
