//! This machine's presence and report in the registry, under one lease.
//!
//! The lease is all that moves while nothing changes: one keep-alive every third of its time. The
//! report is written when it has changed, the first time at once and then after a pause that
//! gathers what follows; the pause is longer on a machine where something changes all the time.
//! While a job runs, the report waits a moment for its end, so that an ordinary start or stop is
//! one write and not two.
//!
//! A commit that got no answer may be made later, after another one of this or of the next session.
//! Every commit writes the report, guarded by how it was, so that one which comes late is refused.
//!
//! While the host shuts down, the report says only that: what stops then is no failure, and the
//! leader counts the machine as unavailable at once. The presence stays until its lease ends.
//!
//! Another machine may have the same id: see [`duplicate_id`](super::duplicate_id).

mod alive;
mod body;
mod pace;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{self, Known, MachineRecord, ReportBase};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

pub(super) use self::alive::Alive;
pub(super) use self::body::{Outgoing, ReportBody};
use self::pace::{LONG_PAUSE, PAUSE, Pace};
use super::clocks::Clocks;
use super::duplicate_id::{Place, Twins};
use super::goodbye::Goodbye;
use super::report_base::{Base, Changes, Units};
use crate::backoff::Backoff;
use crate::store::{Guard, LeaseId, Result, Store, StoreError, Write};
use crate::systemd::Systemd;

/// How long a report waits for the end of a job. An ordinary start takes ten milliseconds, on a
/// busy machine several times that.
const SETTLING: Duration = Duration::from_millis(100);

/// When a report that the registry does not take is tried again. The lease goes on meanwhile, and
/// with it every grant.
const TAKEN_AGAIN: Duration = Duration::from_secs(10);

/// Why a report says nothing of any unit.
const NOT_TAKEN: &str = "the registry does not take its report";

/// What goes into the registry for this machine.
pub(super) struct Session {
    pub(super) store: Arc<dyn Store>,
    pub(super) me: MachineId,
    pub(super) presence: watch::Receiver<MachineRecord>,
    pub(super) ttl: Duration,
    /// To the agent: its grants are for one session. Told anew when the session is another one, or
    /// is certain again.
    pub(super) alive: watch::Sender<Option<Alive>>,
    /// To the agent: that another machine has this one's id.
    pub(super) twin: watch::Sender<Option<String>>,
    /// From the agent: there may be news under this machine's id.
    pub(super) place: watch::Receiver<u64>,
    /// From the agent.
    pub(super) word: watch::Receiver<Outgoing>,
    /// From the units directory, by subject.
    pub(super) directory: watch::Receiver<BTreeMap<String, String>>,
    /// Says whether the host is shutting down.
    pub(super) systemd: Arc<dyn Systemd>,
    /// From the daemon, which stops with the host.
    pub(super) goodbye: Goodbye,
}

/// A lease, and when it is renewed.
struct Lease {
    id: LeaseId,
    ends: Instant,
    renew_at: Instant,
    /// When the newest answered renewal was asked for.
    clocks: Clocks,
}

impl Session {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(self.me.as_str());
        let mut granted = None;
        let mut told = None;
        loop {
            let held = self.hold(&mut granted, &mut backoff, &mut told).await;
            self.alive.send_replace(None);
            let Err(error) = held else {
                // The other machine of this id is gone.
                continue;
            };
            // A registry may be away for days: each reason is told once in a row, not every two
            // seconds.
            let error = error.to_string();
            if told.as_ref() != Some(&error) {
                tracing::warn!("this machine is not visible in the registry: {error}");
                told = Some(error);
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// Takes a lease and keeps it, until an error that a new lease may mend, or until another
    /// machine of this id came and went. `granted`: one that no answer has said to be in use, kept
    /// for the next try. Forgets what was `told` once this machine is visible.
    async fn hold(
        &mut self,
        granted: &mut Option<Lease>,
        backoff: &mut Backoff,
        told: &mut Option<String>,
    ) -> Result<()> {
        let mut lease = match granted.take().filter(|it| Instant::now() < it.ends) {
            Some(lease) => lease,
            None => self.create_lease().await?,
        };
        let id = lease.id;
        // Before anybody else knows of the session: no grant for it comes earlier.
        self.tell_alive(&lease);
        let mut base = Base::default();
        let mut written = self.current();
        let mut shown = self.presence.borrow_and_update().clone();
        let here_since = match self.enter(id, &written, &mut base).await {
            // Where thousands come at once, answers are late: a lease more for each try would make
            // them later.
            Err(error @ StoreError::Unavailable(_)) => {
                *granted = Some(lease);
                return Err(error);
            }
            entered => entered?,
        };
        let mut at = Some(here_since);
        backoff.reset();
        *told = None;
        let mut twins = Twins::new(self.me.clone(), id.0, here_since);
        let mut look_at = Some(Instant::now() + PAUSE);
        let mut pace = Pace::new();
        let mut quiet_until = pace.after_report();
        let mut differs_since = None;
        let mut not_taken = None;
        loop {
            let has_moved = *self.presence.borrow() != shown;
            let pending = has_moved || self.current() != written;
            differs_since = pending.then(|| differs_since.unwrap_or_else(Instant::now));
            let settled = differs_since.filter(|_| self.word.borrow().is_moving);
            let settled = settled.map_or(quiet_until, |since| since + SETTLING);
            tokio::select! {
                biased;
                () = sleep_until(lease.renew_at) => {
                    if self.renew(&mut lease, backoff).await? {
                        self.tell_alive(&lease);
                    }
                }
                () = due(look_at), if look_at.is_some() => match self.look(&mut twins).await {
                    Ok(found) => (at, look_at) = (found, None),
                    Err(StoreError::Unavailable(_)) if Instant::now() < lease.ends => {
                        look_at = Some(Instant::now() + backoff.wait());
                    }
                    Err(error) => return Err(error),
                },
                () = self.goodbye.asked() => {
                    let written = self.write(id, at, false, &ReportBody::shuts_down(), &mut base).await;
                    if let Err(StoreError::Refused) = written {
                        base.forget();
                        at = self.look(&mut twins).await?;
                        let _ = self.write(id, at, false, &ReportBody::shuts_down(), &mut base).await;
                    }
                    self.goodbye.is_said();
                }
                () = sleep_until(quiet_until.max(settled)), if pending => {
                    let mut report = self.current();
                    if self.systemd.is_shutting_down().await {
                        report = ReportBody::shuts_down();
                        if written == report {
                            quiet_until = Instant::now() + LONG_PAUSE;
                            continue;
                        }
                    }
                    let machine = self.presence.borrow_and_update().clone();
                    match self.write(id, at, has_moved, &report, &mut base).await {
                        Ok(revision) => {
                            at = Some(revision);
                            shown = machine;
                            if has_moved {
                                twins.moved(revision);
                            }
                            written = report;
                            differs_since = None;
                            quiet_until = pace.after_report();
                            if not_taken.take().is_some() {
                                tracing::info!("the registry takes this machine's report again");
                            }
                        }
                        // With another session every grant to this one would be void.
                        Err(StoreError::Unavailable(_)) if Instant::now() < lease.ends => {
                            quiet_until = Instant::now() + backoff.wait();
                        }
                        // It has no room, say. To leave would lose every grant, and to come back
                        // takes room, too.
                        Err(error @ (StoreError::Rejected(_) | StoreError::Denied(_)))
                            if Instant::now() < lease.ends =>
                        {
                            let error = error.to_string();
                            if not_taken.as_ref() != Some(&error) {
                                tracing::warn!("the report of this machine is old: {error}");
                                not_taken = Some(error);
                            }
                            quiet_until = Instant::now() + TAKEN_AGAIN;
                        }
                        // An earlier one that got no answer was made, or it is another machine's.
                        Err(StoreError::Refused) => {
                            base.forget();
                            at = self.look(&mut twins).await?;
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(()) = self.place.changed() => look_at = Some(Instant::now() + PAUSE),
                Ok(()) = self.word.changed() => {}
                Ok(()) = self.directory.changed() => {}
                Ok(()) = self.presence.changed() => {}
            }
            match twins.place() {
                Place::Ours => {}
                Place::Lost => return Err(StoreError::LeaseLost),
                Place::Taken => return self.stand_aside(lease, twins, backoff).await,
            }
        }
    }

    /// Leaves the place to the other machine of this id, where that one and people can see it,
    /// until it is free.
    async fn stand_aside(
        &mut self,
        mut lease: Lease,
        mut twins: Twins,
        backoff: &mut Backoff,
    ) -> Result<()> {
        // No grant is for this machine from now on.
        self.alive.send_replace(None);
        let mut note_at = Some(Instant::now());
        let mut look_at = Some(Instant::now() + PAUSE);
        // Whatever fails meanwhile: to come back before the other one is gone would take its place,
        // and void its grants.
        while twins.place() == Place::Taken {
            tokio::select! {
                biased;
                () = sleep_until(lease.renew_at) => {
                    if self.renew(&mut lease, backoff).await.is_err() {
                        lease = self.another_lease(backoff).await;
                        twins.move_to(lease.id.0);
                        note_at = Some(Instant::now());
                    }
                }
                () = due(note_at), if note_at.is_some() => {
                    let noted = self.note(&lease).await;
                    note_at = noted.err().map(|_| Instant::now() + backoff.wait());
                }
                () = due(look_at), if look_at.is_some() => {
                    let looked = self.look(&mut twins).await;
                    look_at = looked.err().map(|_| Instant::now() + backoff.wait());
                }
                Ok(()) = self.place.changed() => look_at = Some(Instant::now() + PAUSE),
            }
        }
        // The note goes with it.
        self.store.revoke(lease.id).await
    }

    /// Says below the other machine's presence that this one stands aside.
    async fn note(&self, lease: &Lease) -> Result<u64> {
        let note = Write::Put {
            key: keys::twin(&self.me, lease.id.0),
            value: record::encode(&self.machine(lease.id)),
            lease: Some(lease.id),
        };
        self.store.commit(Vec::new(), vec![note]).await
    }

    /// Tries until there is one.
    async fn another_lease(&self, backoff: &mut Backoff) -> Lease {
        loop {
            match self.create_lease().await {
                Ok(lease) => return lease,
                Err(_) => tokio::time::sleep(backoff.wait()).await,
            }
        }
    }

    async fn create_lease(&self) -> Result<Lease> {
        let (asked, clocks) = (Instant::now(), Clocks::now());
        let id = self.store.create_lease(self.ttl).await?;
        Ok(Lease {
            id,
            ends: asked + self.ttl,
            renew_at: asked + self.ttl / 3,
            clocks,
        })
    }

    /// Makes this machine visible. Answers the store revision that did.
    async fn enter(&self, lease: LeaseId, said: &ReportBody, base: &mut Base) -> Result<u64> {
        let at = self.written_at().await?;
        self.write(lease, at, true, said, base).await
    }

    /// Renews a lease, if the registry answers. Answers whether it did.
    async fn renew(&self, lease: &mut Lease, backoff: &mut Backoff) -> Result<bool> {
        let (asked, clocks) = (Instant::now(), Clocks::now());
        let renewed = timeout_at(lease.ends, self.store.renew(lease.id)).await;
        let unanswered = || StoreError::Unavailable("no renewal of its lease was answered".into());
        match renewed.unwrap_or_else(|_| Err(unanswered())) {
            Ok(()) => {
                backoff.reset();
                lease.ends = asked + self.ttl;
                lease.renew_at = asked + self.ttl / 3;
                lease.clocks = clocks;
                Ok(true)
            }
            // The registry may come back before the lease ends; then nothing was lost.
            Err(StoreError::Unavailable(_)) if Instant::now() < lease.ends => {
                // The less often, the longer it lasts: a registry that has too much to do is not
                // asked for what can wait.
                let left = lease.ends - Instant::now();
                lease.renew_at = Instant::now() + left / 8 + backoff.wait();
                Ok(false)
            }
            Err(error) => {
                // In fleet 1.0's words, which scripts look for in the journal.
                tracing::error!(
                    "Server monitor triggered: Monitor timed out before successful heartbeat"
                );
                Err(error)
            }
        }
    }

    fn tell_twins(&self, twins: &Twins) {
        let problem = twins.problem();
        self.twin.send_if_modified(|told| {
            let is_news = *told != problem;
            match &problem {
                Some(text) if is_news => tracing::warn!("{text}"),
                None if is_news => {
                    tracing::info!("no other machine has the id of this one any more")
                }
                _ => {}
            }
            *told = problem;
            is_news
        });
    }

    fn tell_alive(&self, lease: &Lease) {
        let now = Alive {
            session: lease.id.0,
            until: lease.ends,
            clocks: lease.clocks,
        };
        let session = now.session;
        self.alive.send_if_modified(|alive| {
            let was = alive.as_ref().and_then(Alive::session);
            *alive = Some(now);
            was != Some(session)
        });
    }

    fn current(&self) -> ReportBody {
        let mut said = self.word.borrow().said.clone();
        said.problems.extend(self.directory.borrow().clone());
        said
    }

    /// The store revision that wrote the report which is there, if any.
    async fn written_at(&self) -> Result<Option<u64>> {
        let report = keys::report(&self.me);
        let snapshot = self.store.list(&[&report]).await?;
        Ok(snapshot.entries.get(&report).map(|entry| entry.modified))
    }

    /// The same, with what is under this machine's id at that moment; that is told.
    async fn look(&self, twins: &mut Twins) -> Result<Option<u64>> {
        let (presence, report) = (keys::machine(&self.me), keys::report(&self.me));
        let snapshot = self.store.list(&[&presence, &report]).await?;
        twins.see(&snapshot);
        self.tell_twins(twins);
        Ok(snapshot.entries.get(&report).map(|entry| entry.modified))
    }

    /// Answers the store revision that wrote it. `at`: of the report that it takes the place of.
    async fn write(
        &self,
        lease: LeaseId,
        at: Option<u64>,
        all: bool,
        said: &ReportBody,
        base: &mut Base,
    ) -> Result<u64> {
        let units = said.units.clone().unwrap_or_default();
        let (changes, new_base) = base.report(&units);
        let report = Changes {
            problems: said.problems.clone(),
            unknown: said.unknown(),
            ..changes
        };
        let mut guards = vec![unmodified(keys::report(&self.me), at)];
        if let Some(at) = base.at() {
            guards.push(unmodified(keys::report_base(&self.me), Some(at)));
        }
        match self
            .put(lease, guards.clone(), all, &report, new_base.as_ref())
            .await
        {
            // Too large, say. A machine that cannot tell everything tells at least that.
            Err(StoreError::Rejected(why)) => {
                let report = Changes {
                    problems: BTreeMap::from([("report".to_owned(), why)]),
                    unknown: Some(NOT_TAKEN.to_owned()),
                    ..Changes::default()
                };
                self.put(lease, guards, all, &report, None).await
            }
            Ok(revision) => {
                if new_base.is_some() {
                    base.written(units, revision);
                }
                Ok(revision)
            }
            error => error,
        }
    }

    async fn put(
        &self,
        lease: LeaseId,
        guards: Vec<Guard>,
        all: bool,
        report: &Changes,
        base: Option<&ReportBase<Units>>,
    ) -> Result<u64> {
        let put = |key, value, lease| Write::Put { key, value, lease };
        let report = record::encode(report);
        let mut writes = vec![put(keys::report(&self.me), report, Some(lease))];
        if let Some(base) = base {
            let key = keys::report_base(&self.me);
            writes.push(put(key, record::encode(base), Some(lease)));
        }
        if all {
            let machine = self.machine(lease);
            let presence = record::encode(&machine);
            writes.push(put(keys::machine(&self.me), presence, Some(lease)));
            // Stays when the lease ends, so that the machine is missed.
            let known = record::encode(&Known {
                machine,
                offline_since: None,
            });
            writes.push(put(keys::known(&self.me), known, None));
        }
        self.store.commit(guards, writes).await
    }

    /// What it says of the machine, in that session.
    fn machine(&self, lease: LeaseId) -> MachineRecord {
        MachineRecord {
            session: lease.0,
            ..self.presence.borrow().clone()
        }
    }
}

/// That a key is as that store revision wrote it; without one, that it is not there.
fn unmodified(key: String, at: Option<u64>) -> Guard {
    match at {
        Some(at) => Guard::Unmodified(key, at),
        None => Guard::Absent(key),
    }
}

/// Waits until then; the caller knows whether there is such a time.
async fn due(at: Option<Instant>) {
    sleep_until(at.unwrap_or_else(Instant::now)).await;
}
