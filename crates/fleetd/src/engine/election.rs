//! Leadership: a claim in the registry under a lease, held by one engine at a time.
//!
//! ```text
//!   Waiting --claim is free--> Claiming --won--> Leading --lease lost, or in doubt--> Waiting
//!      ^                          |
//!      +---------- lost ----------+
//! ```
//!
//! Waiting costs one watch and no traffic; only the leader renews a lease. Every write of a leader
//! is guarded by the claim's creation revision, so one that has lost its claim without knowing is
//! refused by the registry.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{self, LeaderRecord, RecordError};
use fleet_core::trust::Trust;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::backoff::Backoff;
use crate::mirror::{self, Update, Updates};
use crate::store::{Change, Entry, Guard, LeaseId, Result, Store, StoreError, Write};

/// How long a leader that died is still the leader. The store adds up to a second; together they
/// bound the hand-over, which is to take less than five seconds.
const CLAIM_TTL: Duration = Duration::from_secs(3);

/// Engines that see a claim go all want it. Each waits for a part of this, by its machine's id, so
/// that most see the first one's claim before they ask for their own: a hand-over is a few writes,
/// however many engines there are.
const SPREAD: Duration = Duration::from_millis(250);

/// A claim on leadership. It does not change; when it is lost, it is replaced by none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    created: u64,
}

impl Claim {
    /// Fences a write: it lands only while this claim stands.
    pub fn guard(&self) -> Guard {
        Guard::CreatedAt(keys::LEADER.to_owned(), self.created)
    }
}

/// Runs for leadership until it is dropped, and tells `claims` what it holds. While `trust` says
/// that the registry is held, it neither claims it nor keeps a claim.
pub(super) async fn run(
    store: Arc<dyn Store>,
    me: MachineId,
    claims: watch::Sender<Option<Claim>>,
    trust: watch::Receiver<Trust>,
    mut stop: watch::Receiver<bool>,
) {
    let backoff = Backoff::new(me.as_str());
    let mut events = mirror::follow(
        store.clone(),
        vec![keys::LEADER.to_owned()],
        backoff.clone(),
    );
    let wait = SPREAD.mul_f64(f64::from(part(&me)) / 256.0);
    let mut retry = backoff;
    // The newest commit of its own: what is told of earlier ones is old.
    let mut own = 0;
    let mut seen = Seen::Claimed;
    let mut denied = None;
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            event = events.recv() => {
                let Some(event) = event else { return };
                seen.take(&event, own);
                continue;
            }
            () = after(wait, until(trust.clone(), Trust::may_lead)), if seen != Seen::Claimed => {}
        }
        if let Seen::Damaged(at, why) = seen {
            // Nobody's lease ends it.
            let removed = remove(&*store, at).await;
            match removed {
                Ok(revision) => {
                    own = revision;
                    tracing::warn!("removed the claim on leadership (the key `leader`): {why}");
                }
                Err(StoreError::Refused) => {}
                Err(error) => {
                    tracing::debug!("cannot remove the damaged claim: {error}");
                    sleep(retry.wait()).await;
                    continue;
                }
            }
            seen = Seen::Claimed;
            continue;
        }
        match claim(&*store, &me).await {
            Ok(Some((lease, claim))) => {
                tracing::info!("leading");
                own = claim.created;
                denied = None;
                retry.reset();
                claims.send_replace(Some(claim));
                seen = Seen::Claimed;
                let stopped = tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => true,
                    () = until(trust.clone(), |trust| !trust.may_lead()) => {
                        tracing::warn!("no longer leading: the registry is held here");
                        false
                    }
                    error = lead(&*store, lease, &mut events, &mut seen, own) => {
                        tracing::warn!("no longer leading: {error}");
                        false
                    }
                };
                claims.send_replace(None);
                // At once, so that another engine leads at once; a lease that is gone already is no
                // error.
                if let Err(error) = store.revoke(lease).await {
                    tracing::warn!("the claim is left to its lease: {error}");
                }
                if stopped {
                    return;
                }
            }
            // Another engine was first; its claim is on its way here.
            Ok(None) => seen = Seen::Claimed,
            Err(error) => {
                let text = error.to_string();
                if matches!(error, StoreError::Denied(_)) && denied.as_ref() != Some(&text) {
                    // Nobody leads until somebody mends it.
                    tracing::warn!("cannot claim leadership: {text}");
                    denied = Some(text);
                } else {
                    tracing::debug!("cannot claim leadership: {text}");
                }
                sleep(retry.wait()).await;
            }
        }
    }
}

/// Waits until it is so; for ever where nobody tells any more.
async fn until(mut trust: watch::Receiver<Trust>, is_so: impl Fn(&Trust) -> bool) {
    if trust.wait_for(|trust| is_so(trust)).await.is_err() {
        std::future::pending().await
    }
}

/// What is seen of the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Free,
    /// Somebody holds it, or may.
    Claimed,
    /// Something is there that no lease ends, the store revision that wrote it, and what is wrong
    /// with it.
    Damaged(u64, &'static str),
}

impl Seen {
    /// `own`: the newest commit of this engine. What is told of earlier ones, such as the end of a
    /// claim before, is old.
    fn take(&mut self, event: &Update, own: u64) {
        match event {
            Update::Reset(snapshot) if snapshot.revision < own => {}
            Update::Changed(batch) if batch.revision < own => {}
            Update::Reset(snapshot) => *self = Self::of(snapshot.entries.get(keys::LEADER)),
            Update::Changed(batch) => {
                for change in &batch.changes {
                    match change {
                        Change::Put(key, entry) if key == keys::LEADER => {
                            *self = Self::of(Some(entry));
                        }
                        Change::Delete(key) if key == keys::LEADER => *self = Self::Free,
                        _ => {}
                    }
                }
            }
            Update::Away(_) => {}
        }
    }

    fn of(entry: Option<&Entry>) -> Self {
        let Some(entry) = entry else {
            return Self::Free;
        };
        match record::decode::<LeaderRecord>(&entry.value) {
            // Put there by hand, or copied from another etcd: it would stand for ever.
            Ok(_) if entry.lease.is_none() => {
                Self::Damaged(entry.modified, "it has no lease, so that nothing ends it")
            }
            Ok(_) | Err(RecordError::Newer(_)) => Self::Claimed,
            Err(_) => Self::Damaged(entry.modified, "it cannot be read"),
        }
    }
}

/// A number that differs between machines.
fn part(me: &MachineId) -> u8 {
    let digits = me.as_str().bytes();
    digits.fold(0, |part, digit| part.wrapping_mul(31).wrapping_add(digit))
}

async fn after(wait: Duration, first: impl Future<Output = ()>) {
    first.await;
    sleep(wait).await;
}

/// Removes the value in the place of the claim, unless it was written since. Returns the revision
/// of the commit.
async fn remove(store: &dyn Store, at: u64) -> Result<u64> {
    let key = keys::LEADER.to_owned();
    let guard = Guard::Unmodified(key.clone(), at);
    store.commit(vec![guard], vec![Write::Delete(key)]).await
}

/// Answers none if another engine was first.
async fn claim(store: &dyn Store, me: &MachineId) -> Result<Option<(LeaseId, Claim)>> {
    let lease = store.create_lease(CLAIM_TTL).await?;
    let write = Write::Put {
        key: keys::LEADER.to_owned(),
        value: record::encode(&LeaderRecord {
            machine: me.clone(),
        }),
        lease: Some(lease),
    };
    let guard = Guard::Absent(keys::LEADER.to_owned());
    match store.commit(vec![guard], vec![write]).await {
        Ok(created) => Ok(Some((lease, Claim { created }))),
        Err(error) => {
            // A claim that was made without our hearing of it goes with its lease.
            let _ = store.revoke(lease).await;
            match error {
                StoreError::Refused => Ok(None),
                error => Err(error),
            }
        }
    }
}

/// Keeps the claim until it is lost or in doubt; answers why.
async fn lead(
    store: &dyn Store,
    lease: LeaseId,
    events: &mut Updates,
    seen: &mut Seen,
    own: u64,
) -> StoreError {
    let mut lease_ends = Instant::now() + CLAIM_TTL;
    let mut renew_at = Instant::now() + CLAIM_TTL / 3;
    loop {
        tokio::select! {
            biased;
            () = sleep_until(renew_at) => {
                let asked = Instant::now();
                let renewed = tokio::time::timeout_at(lease_ends, store.renew(lease)).await;
                match renewed.unwrap_or(Err(StoreError::LeaseLost)) {
                    Ok(()) => {
                        lease_ends = asked + CLAIM_TTL;
                        renew_at = asked + CLAIM_TTL / 3;
                    }
                    Err(StoreError::Unavailable(_)) if Instant::now() < lease_ends => {
                        renew_at = Instant::now() + CLAIM_TTL / 10;
                    }
                    Err(error) => return error,
                }
            }
            Some(event) = events.recv() => {
                seen.take(&event, own);
                if *seen != Seen::Claimed {
                    return StoreError::LeaseLost;
                }
            }
        }
    }
}
