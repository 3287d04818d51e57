//! A leader alone on the stage: the tests play the agents, by writing what these would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::{MachineId, Metadata, Scheduling};
use fleet_core::record::{
    self, Candidate, Event, EventKind, Grant, Known, MachineRecord, MachineReport, MetadataRecord,
    ReportChanges, Revision, UnitRecord, UnitReport,
};
use fleet_core::rollout::{Choice, Phase, Present, choose};
use fleet_core::unit::{Content, TargetState, UnitFile, UnitName};
use fleetd::engine::Engine;
use fleetd::health::Heart;
use fleetd::store::{Embedded, LeaseId, Store, Write};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::fleet::{cluster, unit};

/// When the tests begin, in milliseconds since 1970.
const BEGIN: u64 = 1_700_000_000_000;

/// Longer than a leader takes for whatever it has to do, and than a lost claim takes to be
/// another's.
pub(crate) async fn settle() {
    sleep(Duration::from_secs(10)).await;
}

pub(crate) fn id(number: usize) -> MachineId {
    MachineId::parse(&format!("{:032x}", number + 1)).expect("32 digits")
}

pub(crate) fn revision(number: u64, content: Content) -> Revision {
    Revision {
        number,
        at: 0,
        content,
        restarts: 0,
    }
}

/// A machine that somebody plays.
pub(crate) struct Player {
    pub(crate) id: MachineId,
    pub(crate) metadata: Metadata,
    /// None while it is offline.
    pub(crate) lease: Option<LeaseId>,
    /// Revisions that fail here.
    pub(crate) fails: BTreeSet<u64>,
    /// What it has of each unit: the revision and its process.
    pub(crate) has: BTreeMap<UnitName, (u64, String)>,
}

/// The registry, and who writes to it.
pub(crate) struct Stage {
    pub(crate) store: Embedded,
    pub(crate) players: Vec<Player>,
    begin: Instant,
    /// By how many milliseconds the wall clock of every leader was set forward, or back.
    clock_set: Arc<AtomicI64>,
    engine: Option<JoinHandle<()>>,
    stop: Option<watch::Sender<bool>>,
}

impl Stage {
    /// A leader, and that many machines that are here and have nothing.
    pub(crate) async fn of(count: usize) -> Self {
        let mut stage = Self::without_a_leader(count).await;
        stage.lead();
        settle().await;
        stage
    }

    pub(crate) async fn without_a_leader(count: usize) -> Self {
        let players = (0..count).map(|number| Player {
            id: id(number),
            metadata: Metadata::from([("n".to_owned(), number.to_string())]),
            lease: None,
            fails: BTreeSet::new(),
            has: BTreeMap::new(),
        });
        let mut stage = Self {
            players: players.collect(),
            store: cluster("one").await,
            begin: Instant::now(),
            clock_set: Arc::default(),
            engine: None,
            stop: None,
        };
        for number in 0..count {
            stage.comes(number).await;
        }
        stage
    }

    /// Another engine leads from now on; the one before is dead.
    pub(crate) fn lead(&mut self) {
        self.lead_over(Arc::new(self.store.clone()));
    }

    pub(crate) fn lead_over(&mut self, store: Arc<dyn Store>) {
        self.end();
        let (begin, set) = (self.begin, self.clock_set.clone());
        let clock = move || {
            let true_time = BEGIN + u64::try_from(begin.elapsed().as_millis()).expect("small");
            true_time.saturating_add_signed(set.load(Ordering::Relaxed))
        };
        let engine = Engine::new(store, id(999), Heart::default(), || "0".repeat(32));
        let (stop, stopping) = watch::channel(false);
        self.engine = Some(tokio::spawn(engine.with_clock(clock).run(stopping)));
        self.stop = Some(stop);
    }

    /// Ends the leader wherever it is, as a kill does.
    pub(crate) fn end(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.abort();
        }
    }

    /// From now on the wall clocks of leaders differ from the true time by that.
    pub(crate) fn set_clock(&self, seconds: i64) {
        self.clock_set.store(seconds * 1000, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> u64 {
        BEGIN + u64::try_from(self.begin.elapsed().as_millis()).expect("small")
    }

    pub(crate) async fn write(&self, writes: Vec<Write>) -> u64 {
        let written = self.store.commit(Vec::new(), writes).await;
        written.expect("written")
    }

    pub(crate) async fn put<T: serde::Serialize>(&self, key: String, value: &T) -> u64 {
        self.put_bytes(key, record::encode(value)).await
    }

    pub(crate) async fn put_bytes(&self, key: String, value: Vec<u8>) -> u64 {
        let lease = None;
        self.write(vec![Write::Put { key, value, lease }]).await
    }

    pub(crate) async fn read<T: serde::de::DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> BTreeMap<String, T> {
        let snapshot = self.store.list(&[prefix]).await.expect("lists");
        let entries = snapshot.entries.into_iter();
        let read =
            entries.filter_map(|(key, entry)| Some((key, record::decode(&entry.value).ok()?)));
        read.collect()
    }

    pub(crate) async fn unit(&self, name: &str) -> UnitRecord {
        let key = keys::unit(&unit(name));
        let mut records = self.read(&key).await;
        records.remove(&key).expect("a unit")
    }

    /// A unit that is launched, with that stable revision and no other; all who are here have it.
    pub(crate) async fn launch(&mut self, name: &str, content: Content) {
        let record = UnitRecord {
            target: TargetState::Launched,
            stable: revision(1, content),
            candidate: None,
            last: None,
            owners: BTreeSet::new(),
        };
        self.put(keys::unit(&unit(name)), &record).await;
        self.obey_all().await;
        settle().await;
    }

    /// An update begins.
    pub(crate) async fn update(&self, name: &str, content: Content) -> u64 {
        let mut record = self.unit(name).await;
        record.candidate = Some(Candidate {
            revision: revision(record.next_number(), content),
            phase: Phase::Rolling,
            reason: String::new(),
            since: self.now(),
            failed_on: BTreeSet::new(),
        });
        self.put(keys::unit(&unit(name)), &record).await
    }

    pub(crate) async fn set_phase(&self, name: &str, phase: Phase) -> u64 {
        let mut record = self.unit(name).await;
        let candidate = record.candidate.as_mut().expect("a candidate");
        candidate.phase = phase;
        candidate.reason = "said so".to_owned();
        candidate.since = self.now();
        self.put(keys::unit(&unit(name)), &record).await
    }

    pub(crate) async fn schedule(&self, number: usize, scheduling: Scheduling) {
        let record = MetadataRecord {
            scheduling,
            ..MetadataRecord::default()
        };
        self.put(keys::metadata(&id(number)), &record).await;
    }

    /// The machine comes, with a new session.
    pub(crate) async fn comes(&mut self, number: usize) {
        let lease = self
            .store
            .create_lease(Duration::from_secs(1_000_000_000))
            .await
            .expect("a lease");
        let player = &mut self.players[number];
        player.lease = Some(lease);
        let machine = MachineRecord {
            primary_ip: String::new(),
            metadata: player.metadata.clone(),
            version: String::new(),
            session: lease.0,
        };
        let put = |key, value, lease| Write::Put { key, value, lease };
        let known = Known {
            machine: machine.clone(),
            offline_since: None,
        };
        let report = self.report(number).await;
        let me = id(number);
        self.write(vec![
            put(keys::machine(&me), record::encode(&machine), Some(lease)),
            put(keys::report(&me), record::encode(&report), Some(lease)),
            put(keys::known(&me), record::encode(&known), None),
        ])
        .await;
    }

    /// The machine goes, with all that it said.
    pub(crate) async fn goes(&mut self, number: usize) {
        let lease = self.players[number].lease.take().expect("it is here");
        self.store.revoke(lease).await.expect("revoked");
    }

    pub(crate) async fn grant(&self, number: usize, name: &str) -> Option<Grant> {
        let key = keys::grant(&id(number), &unit(name));
        self.read(&key).await.remove(&key)
    }

    /// The machine does what it may, and reports it.
    pub(crate) async fn obey(&mut self, number: usize) {
        let Some(lease) = self.players[number].lease else {
            return;
        };
        let snapshot = self.store.list(&[keys::METADATA]).await.expect("lists");
        let metadata = snapshot.entries.get(&keys::metadata(&id(number)));
        let set = metadata.and_then(|it| record::decode::<MetadataRecord>(&it.value).ok());
        let cordoned = set.is_some_and(|set| !set.scheduling.is_normal());
        let grants = self.read::<Grant>(&keys::grants_of(&id(number))).await;
        for (key, record) in self.read::<UnitRecord>(keys::UNITS).await {
            let name = keys::unit_of(&key).expect("a unit's key");
            let entry = self
                .store
                .list(&[&key])
                .await
                .expect("lists")
                .entries
                .remove(&key);
            let created = entry.expect("it is there").created;
            let grant = grants.get(&keys::grant(&id(number), &name));
            let valid = grant.filter(|it| it.unit == created && it.session == lease.0);
            let player = &mut self.players[number];
            let process = |it: &Revision| it.process(&UnitFile::parse(it.content.as_bytes()));
            let stable = process(&record.stable);
            let has = player.has.get(&name);
            if cordoned && has.is_none() {
                continue;
            }
            let present = has.map(|(revision, process)| Present {
                revision: *revision,
                process,
                launched: true,
            });
            match choose(&record, valid.map(|it| it.revision), present, &stable) {
                Choice::Keep => {}
                Choice::Stable => {
                    player.has.insert(name, (record.stable.number, stable));
                }
                Choice::Candidate => {
                    let candidate = &record.candidate.as_ref().expect("chosen").revision;
                    player
                        .has
                        .insert(name, (candidate.number, process(candidate)));
                }
            }
        }
        let report = self.report(number).await;
        self.write(vec![Write::Put {
            key: keys::report(&id(number)),
            value: record::encode(&report),
            lease: Some(lease),
        }])
        .await;
    }

    pub(crate) async fn obey_all(&mut self) {
        for number in 0..self.players.len() {
            self.obey(number).await;
        }
    }

    /// What the machine says.
    async fn report(&self, number: usize) -> MachineReport {
        let player = &self.players[number];
        let units = self.read::<UnitRecord>(keys::UNITS).await;
        let grants = self
            .store
            .list(&[&keys::grants_of(&player.id)])
            .await
            .expect("lists")
            .entries;
        let mut report: MachineReport = MachineReport::default();
        for (key, grant) in &grants {
            if let Err(error) = record::decode::<Grant>(&grant.value) {
                report.problems.insert(key.clone(), error.to_string());
            }
        }
        for (name, (revision, _)) in &player.has {
            let Some(record) = units.get(&keys::unit(name)) else {
                continue;
            };
            let fails = player.fails.contains(revision);
            let awaited = record.candidate.as_ref().map(|it| it.revision.number);
            let grant = grants.get(&keys::grant(&player.id, name));
            let unit = UnitReport {
                load: "loaded".to_owned(),
                active: if fails { "failed" } else { "active" }.to_owned(),
                revision: *revision,
                launched: true,
                ready: !fails,
                available: !fails,
                failed: fails.then(|| "failed (exit-code)".to_owned()),
                deferred: *revision != record.stable.number && Some(*revision) != awaited,
                grant: grant.map_or(0, |it| it.modified),
                ..UnitReport::default()
            };
            report.units.insert(name.clone(), unit);
        }
        report
    }

    /// The machines that were told to go on and have not, or whose unit is not available, of those
    /// that are here.
    pub(crate) async fn down(&self, name: &str) -> Vec<usize> {
        let name = unit(name);
        let reports = self.read::<ReportChanges>(keys::REPORTS).await;
        let grants = self
            .store
            .list(&[keys::GRANTS])
            .await
            .expect("lists")
            .entries;
        let is_down = |number: &usize| {
            let player = &self.players[*number];
            let Some(lease) = player.lease else {
                return false;
            };
            let report = reports.get(&keys::report(&player.id));
            let report = report.and_then(|it| it.units.get(&name));
            let Some(report) = report.filter(|it| it.available) else {
                return true;
            };
            let entry = grants.get(&keys::grant(&player.id, &name));
            let grant =
                entry.and_then(|it| Some((record::decode::<Grant>(&it.value).ok()?, it.modified)));
            grant.is_some_and(|(grant, at)| {
                grant.session == lease.0 && !grant.proved && report.grant < at
            })
        };
        (0..self.players.len()).filter(is_down).collect()
    }

    /// The revision that each machine has.
    pub(crate) fn revisions(&self, name: &str) -> Vec<u64> {
        let has = self.players.iter().map(|it| it.has.get(&unit(name)));
        has.map(|has| has.map_or(0, |(revision, _)| *revision))
            .collect()
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        self.read(keys::EVENTS).await.into_values().collect()
    }

    pub(crate) async fn kinds(&self) -> Vec<EventKind> {
        self.events().await.iter().map(|event| event.kind).collect()
    }

    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let snapshot = self.store.list(&[prefix]).await.expect("lists");
        snapshot.entries.into_keys().collect()
    }

    pub(crate) async fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        let snapshot = self.store.list(&[key]).await.expect("lists");
        snapshot.entries.get(key).map(|entry| entry.value.to_vec())
    }

    /// The store revision that made a key.
    pub(crate) async fn store_revision_of(&self, key: &str) -> u64 {
        let snapshot = self.store.list(&[key]).await.expect("lists");
        snapshot.entries[key].created
    }
}
