//! One engine's time as the leader: it follows the registry, decides, and writes what it decided.
//!
//! ```text
//!   listing --all there is--> following --burst of changes--> deciding --commit--> deciding ...
//!      ^                          ^                              |                    |
//!      |                          +------ nothing left ----------|--------------------+
//!      +---------- back-off <--- refused, or unavailable --------+
//! ```
//!
//! What it wrote itself it knows at once. After a commit that was refused, or ended without an
//! answer, it lists all again before it decides anything.

mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_core::keys;
use fleet_core::record::{ClusterRecord, Event, EventKind};
use fleet_core::rollout::Step;
use fleet_core::trust::{ClusterKey, Identity, Judgement, Memory, judge};
use fleet_core::unit::UnitName;
use tokio::time::{Instant, sleep, sleep_until};

use super::commit::Decision;
use super::election::Claim;
use super::events::Events;
use super::index::{Index, PREFIXES};
use super::presence::Steady;
use super::{Engine, garbage, presence, rollout};
use crate::backoff::Backoff;
use crate::mirror::{self, Mirror};
use crate::registry::history;
use crate::store::{Guard, Result, Snapshot, StoreError};

/// How long changes of presence are gathered: when a switch fails, people are told once.
const GATHERING: Duration = Duration::from_secs(1);

/// How long a new leader waits for machines that are known, and not here. Agents that lost their
/// leases in an outage return within seconds, and an engine may lead before any of them is back.
const RETURN: Duration = Duration::from_secs(30);

/// How long a rollout that the registry does not take waits before it is tried again, in
/// milliseconds: an operator may have made room, or given the right that was missing.
const TAKEN_AGAIN: u64 = 10_000;

/// The shortest wait for a time, in milliseconds.
const SOONEST: u64 = 100;

/// The longest wait for a time of the wall clock, which may be set.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Units that are looked at together, and granted what they may in as few commits as that takes: an
/// agent takes one commit as one change, for which systemd reads its files once.
const TOGETHER: usize = 60;

/// One leadership.
pub(super) struct Leadership<'a> {
    engine: &'a Engine,
    claim: &'a Claim,
    /// When it began, and when that was in milliseconds since 1970.
    began: (Instant, u64),
    index: Index,
    /// The newest commit of its own, since the last list.
    written: u64,
    /// When to look at a unit again, by its own clock.
    wakes: BTreeMap<UnitName, u64>,
    /// Units whose rollout the registry does not take, as it was told: the reason names keys that
    /// are others each time.
    stuck: BTreeSet<UnitName>,
    /// Units with nothing left to do, whose grants may be in the registry still.
    settled: BTreeSet<UnitName>,
    /// When to look at presence.
    presence_at: Option<Instant>,
    /// When to forget a machine, in milliseconds since 1970.
    forget_at: Option<u64>,
    steady: Steady,
    /// What the agent beside it remembered when the newest list was begun.
    at_list: Arc<Mutex<Memory>>,
    /// Until when nothing is written, because the registry does not take it.
    waits_until: Option<Instant>,
    has_begun: bool,
    events: Events,
    backoff: Backoff,
    /// The trouble that was last told, until it is over.
    told: Option<String>,
}

impl<'a> Leadership<'a> {
    pub(super) fn new(engine: &'a Engine, claim: &'a Claim) -> Self {
        let at = (engine.clock)();
        let wait = u64::try_from(RETURN.as_millis()).unwrap_or(u64::MAX);
        Self {
            began: (Instant::now(), at),
            engine,
            claim,
            index: Index::awaiting(at.saturating_add(wait)),
            written: 0,
            wakes: BTreeMap::new(),
            stuck: BTreeSet::new(),
            settled: BTreeSet::new(),
            presence_at: None,
            forget_at: None,
            steady: Steady::new((engine.clock)()),
            at_list: Arc::default(),
            waits_until: None,
            has_begun: false,
            events: Events::default(),
            backoff: Backoff::new(engine.me.as_str()),
            told: None,
        }
    }

    /// Leads until it is dropped: the claim is lost.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            let error = self.follow().await;
            // Somebody was first, or the claim is lost, which is on its way here.
            if !matches!(error, StoreError::Refused) {
                self.tell(&error);
            }
            sleep(self.backoff.wait()).await;
        }
    }

    /// Each trouble once, until it is over.
    fn tell(&mut self, error: &StoreError) {
        let text = error.to_string();
        if self.told.as_ref() != Some(&text) {
            tracing::warn!("the leader's work waits: {text}");
            self.told = Some(text);
        }
    }

    /// Lists all there is and goes on from there, until something makes it doubt what it knows;
    /// answers what.
    async fn follow(&mut self) -> StoreError {
        let prefixes = PREFIXES.iter().map(|prefix| (*prefix).to_owned()).collect();
        let backoff = Backoff::new(self.engine.me.as_str());
        let (trust, at_list) = (self.engine.trust.clone(), self.at_list.clone());
        let mirror = Mirror::new(self.engine.store.clone(), prefixes, backoff);
        let mirror = mirror.before_list(move || {
            let memory = trust.borrow().memory.clone();
            *at_list.lock().unwrap_or_else(PoisonError::into_inner) = memory;
        });
        let mut events = mirror.follow();
        self.written = 0;
        let mut is_followed = false;
        loop {
            tokio::select! {
                biased;
                event = events.recv() => {
                    let _busy = self.engine.heart.busy();
                    let Some(mut event) = event else {
                        return StoreError::Unavailable("nobody follows it any more".to_owned());
                    };
                    // Of a burst only the end counts.
                    loop {
                        self.engine.heart.still_busy();
                        match self.take(event) {
                            Ok(followed) => is_followed = followed,
                            Err(error) => return error,
                        }
                        match events.try_recv() {
                            Some(next) => event = next,
                            None => break,
                        }
                    }
                }
                // Until it is followed nothing is done about what is due, which stays due.
                () = sleep_until(self.due()), if is_followed => {}
            }
            // What was seen before the registry went away may be old by now.
            if is_followed && self.waits_until.is_none_or(|until| until <= Instant::now()) {
                let _busy = self.engine.heart.busy();
                match self.work().await {
                    Ok(()) => {
                        self.backoff.reset();
                        self.told = None;
                        self.waits_until = None;
                    }
                    // etcd has no room, say. What is known stays true: to list it all again would
                    // only cost more.
                    Err(error @ (StoreError::Rejected(_) | StoreError::Denied(_))) => {
                        self.waits_until =
                            Some(Instant::now() + Duration::from_millis(TAKEN_AGAIN));
                        self.tell(&error);
                    }
                    Err(error) => return error,
                }
            }
        }
    }

    /// Answers whether the registry is followed from here on.
    fn take(&mut self, event: mirror::Update) -> Result<bool> {
        match event {
            // A list that was made before the last commit, and not yet taken.
            mirror::Update::Reset(snapshot) if snapshot.revision < self.written => {
                return Err(StoreError::Refused);
            }
            mirror::Update::Reset(snapshot) => {
                self.index.reset(&snapshot);
                // The claim may be as old as the backup that this comes from, and the agent not
                // know of it yet. What the agent has heard since the list was begun does not make
                // the list an older registry.
                let at_list = self.at_list.lock().unwrap_or_else(PoisonError::into_inner);
                let memory = at_list.clone();
                drop(at_list);
                let entries = snapshot.entries.iter();
                let instructs = entries.filter(|(key, _)| keys::instructs(key, &self.engine.me));
                let newest = instructs.map(|(_, entry)| entry.modified).max();
                let identity = Identity {
                    instructed: Some(newest.unwrap_or_default()),
                    ..self.index.identity.clone()
                };
                if let Judgement::Hold { reason, .. } = judge(&memory, &identity) {
                    tracing::debug!("nothing is decided for now: {reason}");
                    return Err(StoreError::Refused);
                }
            }
            mirror::Update::Changed(batch) => self.index.apply(batch),
            mirror::Update::Away(error) => {
                tracing::warn!("nothing is decided for now: {error}");
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The time in milliseconds since 1970, by a clock that is never set: what waits for a time
    /// waits for it to pass.
    fn time(&self) -> u64 {
        let (began, at) = self.began;
        at.saturating_add(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When there is something to look at though nothing happened.
    fn due(&self) -> Instant {
        let until = |at: u64, now: u64| Duration::from_millis(at.saturating_sub(now));
        let wakes = self.wakes.values().chain(&self.index.awaited_until);
        let woken = wakes.min().map(|at| until(*at, self.time()));
        let forgets = self.forget_at.map(|at| until(at, (self.engine.clock)()));
        let wait = [woken, forgets].into_iter().flatten().min();
        let due = Instant::now() + wait.map_or(LONGEST_WAIT, |wait| wait.min(LONGEST_WAIT));
        let due = self.presence_at.map_or(due, |at| at.min(due));
        self.waits_until.unwrap_or(due)
    }

    async fn work(&mut self) -> Result<()> {
        if !self.has_begun {
            self.begin().await?;
            self.has_begun = true;
        }
        if std::mem::take(&mut self.index.news.left) {
            self.commit_all(garbage::of_rollouts(&self.index)).await?;
        }
        self.look_at_presence().await?;
        self.look_at_units().await?;
        self.index.rest();
        Ok(())
    }

    /// What a new leader does once.
    async fn begin(&mut self) -> Result<()> {
        if self.index.identity.cluster == ClusterKey::Absent {
            let id = (self.engine.new_cluster_id)();
            tracing::info!(cluster = %id, "the registry is new and has its id now");
            let mut decision = Decision::default();
            let absent = Guard::Absent(keys::CLUSTER.to_owned());
            decision.guards.push(absent);
            decision.put(keys::CLUSTER.to_owned(), &ClusterRecord { id });
            self.commit(decision).await?;
        }
        let store = &self.engine.store;
        // Histories of thousands of units are larger than any machine's memory, and only their keys
        // are wanted.
        let events = store.keys(keys::EVENTS).await?;
        let history = store.keys(keys::HISTORY).await?;
        let owners = store.keys(keys::OWNERS).await?;
        self.events.listed(events.into_keys());
        self.commit_all(garbage::of_histories(&self.index, &history))
            .await?;
        let owners = garbage::of_owners(&self.index, &BTreeSet::new(), &owners);
        self.commit_all(owners).await?;
        let event = Event {
            at: (self.engine.clock)(),
            kind: EventKind::Leading,
            unit: None,
            revision: 0,
            machines: vec![self.engine.me.clone()],
            reason: "it holds the claim now".to_owned(),
        };
        let events = vec![event];
        self.commit(Decision {
            events,
            ..Decision::default()
        })
        .await
    }

    async fn look_at_presence(&mut self) -> Result<()> {
        let now = (self.engine.clock)();
        if self.index.awaited_until.is_some_and(|at| at <= self.time()) {
            self.index.end_waiting();
            self.presence_at = Some(Instant::now());
        }
        if std::mem::take(&mut self.index.news.presence) {
            let at = Instant::now() + GATHERING;
            self.presence_at = Some(self.presence_at.map_or(at, |it| it.min(at)));
        }
        let is_due = self.presence_at.is_some_and(|at| at <= Instant::now())
            || self.forget_at.is_some_and(|at| at <= now);
        if is_due {
            let may_forget = self.steady.may_forget(now);
            let presence = presence::decide(&self.index, now, may_forget);
            if !presence.forgotten.is_empty() {
                // Before they are forgotten: whoever leads next finds them again.
                let owners = self.engine.store.keys(keys::OWNERS).await?;
                let owners = garbage::of_owners(&self.index, &presence.forgotten, &owners);
                self.commit_all(owners).await?;
                self.steady.forgot();
            }
            self.commit_all(presence.decisions).await?;
            self.index.news.returned.clear();
            // Its own notes are no news.
            self.index.news.presence = false;
            self.presence_at = None;
            self.forget_at = presence.next;
            if presence.overdue {
                self.presence_at = Some(self.steady.next());
            }
        }
        Ok(())
    }

    /// Goes on until every unit waits for something.
    async fn look_at_units(&mut self) -> Result<()> {
        let now = self.time();
        let woken = self.wakes.iter().filter(|(_, at)| **at <= now);
        self.index
            .news
            .units
            .extend(woken.map(|(name, _)| name.clone()));
        loop {
            let names = self.next_units();
            if names.is_empty() {
                break;
            }
            match self.look_at(&names).await {
                // Of one of them: it is not to stop the others.
                Err(StoreError::Rejected(_) | StoreError::Denied(_)) => {
                    for name in names {
                        self.look_alone(name).await?;
                    }
                }
                done => done?,
            }
        }
        let settled = std::mem::take(&mut self.settled);
        if settled.is_empty() {
            return Ok(());
        }
        self.commit_all(garbage::of_settled(&self.index, &settled))
            .await
    }

    /// The next units for which there may be something to do.
    fn next_units(&mut self) -> Vec<UnitName> {
        let mut names = Vec::new();
        while names.len() < TOGETHER
            && let Some(name) = self.index.news.units.pop_first()
        {
            self.wakes.remove(&name);
            if self.index.is_active(&name) {
                names.push(name);
            } else {
                self.settled.insert(name);
            }
        }
        names
    }

    async fn look_alone(&mut self, name: UnitName) -> Result<()> {
        match self.look_at(std::slice::from_ref(&name)).await {
            // Too large, say, or a key that no role allows. It stays where it is, and the others go
            // on.
            Err(StoreError::Rejected(why) | StoreError::Denied(why)) => {
                self.index.news.units.remove(&name);
                self.wakes.insert(name.clone(), self.time() + TAKEN_AGAIN);
                let text = format!("unit {name}: its rollout cannot go on: {why}");
                if self.stuck.insert(name) {
                    tracing::warn!("{text}");
                } else {
                    tracing::debug!("{text}");
                }
                Ok(())
            }
            done => done,
        }
    }

    /// Decides what these units do next, and commits it. What is decided of one does not depend on
    /// what is written of another.
    async fn look_at(&mut self, names: &[UnitName]) -> Result<()> {
        let now = self.time();
        let mut steps = Vec::new();
        for name in names {
            self.engine.heart.still_busy();
            let Some(situation) = self.index.situation(name, now) else {
                continue;
            };
            let step = fleet_core::rollout::step(&situation);
            if let Some(at) = step.wake_at {
                self.wakes.insert(name.clone(), at.max(now + SOONEST));
            }
            steps.push((name, step));
        }
        let histories = self.histories(&steps).await?;
        let mut together = Decision::default();
        for (name, step) in steps {
            let history = history::of(&histories, name);
            // What is written is news of the unit itself, so that it is looked at again.
            let before = histories.entries.get(&keys::unit(name));
            let before = before.map(|entry| &*entry.value);
            let decided = rollout::decide(&self.index, name, step, &history, before, now);
            let Some(mut decision) = decided else {
                continue;
            };
            self.write_events(&mut decision);
            if !together.writes.is_empty() && !together.fits(&decision) {
                self.send(std::mem::take(&mut together)).await?;
            }
            together.join(decision);
        }
        if !together.writes.is_empty() {
            self.send(together).await?;
        }
        names.iter().for_each(|name| {
            self.stuck.remove(name);
        });
        Ok(())
    }

    /// The units whose rollout changes as they are in the registry, and their older revisions.
    async fn histories(&self, steps: &[(&UnitName, Step)]) -> Result<Snapshot> {
        let changed = steps.iter().filter(|(_, step)| step.change.is_some());
        let prefixes = changed.flat_map(|(name, _)| [keys::unit(name), keys::history_of(name)]);
        let prefixes: Vec<String> = prefixes.collect();
        if prefixes.is_empty() {
            return Ok(Snapshot::default());
        }
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        self.engine.store.list(&prefixes).await
    }
}
