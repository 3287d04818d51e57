//! When an agent obeys what it is told, and what it has then.

use fleet_core::keys;
use fleet_core::record::{self, ClusterRecord, DestroyedRecord};

use super::clocks::Clocks;
use super::*;
use crate::store::{Batch, Change, Embedded, Entry, Snapshot};
use crate::systemd::fake::Fake;

fn agent(folder: &tempfile::TempDir) -> Agent {
    let config = Config {
        me: MachineId::parse("190c6f8fbbd25efb88aad49e6c499b79").expect("valid"),
        presence: watch::channel(MachineRecord {
            primary_ip: String::new(),
            metadata: Default::default(),
            version: String::new(),
            session: 0,
        })
        .1,
        ttl: Duration::from_secs(30),
        desired_file: folder.path().join("desired.json"),
        marks_file: None,
    };
    let store = Arc::new(Embedded::in_memory());
    Agent::new(config, store, Arc::new(Fake::new()), Heart::default())
}

fn cluster(id: &str) -> (String, Entry) {
    let value = record::encode(&ClusterRecord { id: id.to_owned() });
    (keys::CLUSTER.to_owned(), entry(value, 1))
}

fn entry(value: Vec<u8>, created: u64) -> Entry {
    Entry {
        value: value.into(),
        created,
        modified: created,
        lease: None,
    }
}

fn revision(number: u64) -> record::Revision {
    let content = format!("[Service]\nExecStart=/x {number}\n[X-Fleet]\nGlobal=true\n");
    record::Revision {
        number,
        at: 0,
        content: content.as_str().into(),
        restarts: 0,
    }
}

fn launched() -> record::UnitRecord {
    record::UnitRecord {
        target: fleet_core::unit::TargetState::Launched,
        stable: revision(1),
        candidate: None,
        last: None,
        owners: Default::default(),
    }
}

#[tokio::test]
async fn session_certain_again_makes_grants_count_without_event() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut agent = agent(&folder);
    let name = UnitName::parse("a.service").expect("valid");
    let candidate = record::Candidate {
        revision: revision(2),
        phase: fleet_core::rollout::Phase::Rolling,
        reason: String::new(),
        since: 0,
        failed_on: Default::default(),
    };
    let unit = record::UnitRecord {
        candidate: Some(candidate),
        ..launched()
    };
    let grant = record::Grant {
        unit: 2,
        revision: 2,
        session: 7,
        was_available: true,
        proved: false,
        leaves: false,
    };
    let granted = keys::grant(&agent.config.me, &name);
    let entries = [
        cluster("c1"),
        (keys::unit(&name), entry(record::encode(&unit), 2)),
        (granted, entry(record::encode(&grant), 3)),
    ];
    let all = Update::Reset(Snapshot {
        revision: 10,
        entries: entries.into(),
    });
    let has = |agent: &Agent| agent.saved.as_ref().expect("obeyed").desired[&name].revision;
    agent.take_all([all].into_iter()).expect("obeyed");
    assert_eq!(has(&agent), 1);
    let until = Instant::now() + Duration::from_secs(30);
    agent.alive.send_replace(Some(Alive {
        session: 7,
        until,
        clocks: Clocks::now(),
    }));
    assert!(agent.adopt_again().is_some());
    assert_eq!(has(&agent), 2);
    // While the registry is not followed no session changes that.
    agent.following.take(Heard::Away("no answer"));
    assert_eq!(agent.adopt_again(), None);
}

/// A registry went back to a backup, and came along another way to where it had been.
#[tokio::test]
async fn other_file_with_same_revision_number_restarts_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut agent = agent(&folder);
    let name = UnitName::parse("a.service").expect("valid");
    let list = |unit: &record::UnitRecord| {
        let entries = [
            cluster("c1"),
            (keys::unit(&name), entry(record::encode(unit), 2)),
        ];
        Update::Reset(Snapshot {
            revision: 10,
            entries: entries.into(),
        })
    };
    let has = |agent: &Agent| agent.saved.as_ref().expect("obeyed").desired[&name].clone();
    agent.take_all([list(&launched())].into_iter());
    let before = has(&agent);
    assert_eq!((before.revision, before.deferred), (1, false));
    let mut other = launched();
    other.stable.content = revision(7).content;
    for _ in 0..2 {
        agent.take_all([list(&other)].into_iter());
        let kept = has(&agent);
        assert_eq!((kept.revision, kept.deferred), (0, true));
        assert_eq!(kept.content, before.content);
    }
}

/// As fleetd wrote it before there were grants.
#[tokio::test]
async fn a_desired_state_of_an_older_version_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut agent = agent(&folder);
    let old = r#"{"format":1,"seen":{"cluster":"c1","revision":7},"desired":{"a.service":{"revision":3,"content":"[Service]\nExecStart=/x\n","process":"p","install":false,"launch":true,"excludes":[]}}}"#;
    std::fs::write(&agent.config.desired_file, old).expect("written");
    agent.load();
    assert_eq!(agent.disk, None);
    let saved = agent.saved.expect("read");
    let name = UnitName::parse("a.service").expect("valid");
    let desired = &saved.desired[&name];
    assert_eq!((desired.revision, desired.created), (3, 0));
    assert_eq!(
        (desired.min_ready, desired.deferred),
        (Duration::ZERO, false)
    );
}

#[tokio::test]
async fn registry_wiped_right_after_a_change_is_not_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut agent = agent(&folder);
    let ours = Update::Reset(Snapshot {
        revision: 10,
        entries: [cluster("c1")].into(),
    });
    assert!(agent.take_all([ours].into_iter()).is_some());
    let change = Update::Changed(Batch {
        revision: 11,
        changes: vec![Change::Delete("units/a.service".to_owned())],
    });
    let wiped = Update::Reset(Snapshot {
        revision: 12,
        entries: [cluster("c2")].into(),
    });
    let dirty = agent.take_all([change, wiped].into_iter());
    assert_eq!(dirty, None, "{:?}", agent.following.held());
}

#[tokio::test]
async fn removal_is_believed_only_with_the_id_read_after_it() {
    let units = keys::unit(&UnitName::parse("a.service").expect("valid"));
    let me = MachineId::parse("190c6f8fbbd25efb88aad49e6c499b79").expect("valid");
    let changed = |change| Batch {
        revision: 11,
        changes: vec![change],
    };
    for key in [units.clone(), keys::metadata(&me)] {
        let beside = index::beside(&changed(Change::Delete(key)));
        assert_eq!(beside, Some(keys::CLUSTER));
    }
    let put = Change::Put(units.clone(), entry(record::encode(&launched()), 2));
    assert_eq!(index::beside(&changed(put)), None);

    // Somebody said so, of that unit or of another one.
    for (destroyed, beside) in [("a.service", None), ("b.service", Some(keys::CLUSTER))] {
        let unit = UnitName::parse(destroyed).expect("valid");
        let said = record::encode(&DestroyedRecord { unit });
        let batch = Batch {
            revision: 11,
            changes: vec![
                Change::Put(keys::DESTROYED.to_owned(), entry(said, 2)),
                Change::Delete(units.clone()),
            ],
        };
        assert_eq!(index::beside(&batch), beside, "{destroyed}");
    }
}

#[tokio::test]
async fn only_a_list_ends_a_hold() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut agent = agent(&folder);
    let list = |revision| {
        let entries = [cluster("c1")].into();
        [Update::Reset(Snapshot { revision, entries })].into_iter()
    };
    agent.take_all(list(10)).expect("obeyed");
    let (key, ours) = cluster("c1");
    let event = |revision, change| {
        let changes = vec![change];
        [Update::Changed(Batch { revision, changes })].into_iter()
    };
    assert_eq!(agent.take_all(event(11, Change::Delete(key.clone()))), None);
    // News of another prefix that was on its way, say.
    assert_eq!(agent.take_all(event(12, Change::Put(key, ours))), None);
    assert!(agent.wants_list && agent.following.held().is_some());
    assert!(agent.take_all(list(12)).is_some());
    assert_eq!((agent.wants_list, agent.following.held()), (false, None));
}

/// As a later fleetd may write it, before somebody goes back to this one.
#[tokio::test]
async fn desired_state_of_newer_version_is_refused_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut agent = agent(&folder);
    let newer = r#"{"format":2,"seen":"otherwise"}"#;
    std::fs::write(&agent.config.desired_file, newer).expect("written");
    agent.load();
    let told = agent.disk.clone().expect("told");
    assert!(told.contains("desired.json"), "{told}");
    assert!(told.contains("its format is 2, and this version reads up to 1: upgrade fleetd here"));
    let ours = Update::Reset(Snapshot {
        revision: 10,
        entries: [cluster("c1")].into(),
    });
    assert_eq!(agent.take_all([ours].into_iter()), None);
    let left = std::fs::read_to_string(&agent.config.desired_file).expect("reads");
    assert_eq!(left, newer);
}

#[tokio::test(start_paused = true)]
async fn local_change_is_observed_beside_an_earlier_wish() {
    let systemd = Arc::new(Fake::new());
    let mut host = Host::new(systemd.clone(), Heart::default(), Marks::in_memory());
    let name = UnitName::parse("a.service").expect("valid");
    let want = Desired {
        revision: 1,
        content: revision(1).content,
        process: "x".to_owned(),
        install: false,
        launch: true,
        excludes: BTreeSet::new(),
        created: 1,
        min_ready: Duration::ZERO,
        deferred: false,
        leaving: false,
        grant: 0,
    };
    let desired = BTreeMap::from([(name.clone(), want)]);
    let told = async || tokio::time::timeout(Duration::from_secs(5), systemd.changed()).await;
    while let Ok(dirty) = told().await {
        let done = host.converge(Some(&desired), Cause::Host(dirty)).await;
        done.expect("systemd answers");
    }
    let since = |host: &Host| host.report().expect("looked")[&name].since;
    let before = since(&host);
    // By hand, and up again before anybody has looked.
    systemd.restart(&name).await.expect("restarted");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let names = BTreeSet::from([name.clone()]);
    let states = systemd.states(&names).await.expect("it answers");
    assert_eq!(states[&name].active, "active");
    let wanted = Cause::Wanted(names);
    let done = host.converge(Some(&desired), wanted).await;
    done.expect("systemd answers");
    assert!(since(&host) > before, "{before}");
    assert!(told().await.is_err(), "it was looked at");
}

/// What the machine keeps of a unit that its metadata does not match any more.
#[tokio::test]
async fn a_unit_that_no_longer_matches_stays_until_a_new_grant() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut agent = agent(&folder);
    let name = UnitName::parse("a.service").expect("valid");
    let selecting = |kind: &str| {
        let mut unit = launched();
        let content = format!("[Service]\nExecStart=/x\n[X-Fleet]\nGlobal=true\n{kind}");
        unit.stable.content = content.as_str().into();
        unit
    };
    let until = Instant::now() + Duration::from_secs(30);
    agent.alive.send_replace(Some(Alive {
        session: 7,
        until,
        clocks: Clocks::now(),
    }));
    let mut revision = 10;
    let mut take = |agent: &mut Agent, kind: &str, grant: Option<u64>| {
        revision += 1;
        let grant = grant.map(|at| {
            let grant = record::Grant {
                unit: 2,
                revision: 1,
                session: 7,
                was_available: true,
                proved: false,
                leaves: true,
            };
            (
                keys::grant(&agent.config.me, &name),
                entry(record::encode(&grant), at),
            )
        });
        let unit = (
            keys::unit(&name),
            entry(record::encode(&selecting(kind)), 2),
        );
        let entries = [cluster("c1"), unit].into_iter().chain(grant);
        let all = Update::Reset(Snapshot {
            revision,
            entries: entries.collect(),
        });
        agent.take_all([all].into_iter());
        let desired = &agent.saved.as_ref().expect("obeyed").desired;
        desired.get(&name).map(|it| (it.leaving, it.deferred))
    };
    let (here, elsewhere) = ("", "MachineMetadata=kind=al\n");
    assert_eq!(take(&mut agent, here, None), Some((false, false)));
    assert_eq!(take(&mut agent, elsewhere, None), Some((true, true)));
    // It belongs here again before the grant comes, which then says nothing about a later time.
    assert_eq!(take(&mut agent, here, Some(20)), Some((false, false)));
    assert_eq!(take(&mut agent, elsewhere, Some(20)), Some((true, true)));
    assert_eq!(take(&mut agent, elsewhere, Some(21)), None);
    assert_eq!(take(&mut agent, elsewhere, Some(21)), None);
    // A unit that is stopped or drained waits for no grant.
    assert_eq!(take(&mut agent, here, None), Some((false, false)));
    agent
        .index
        .set_own([("kind".to_owned(), "b".to_owned())].into());
    assert_eq!(take(&mut agent, elsewhere, None), Some((true, true)));
    let mut stopped = selecting(elsewhere);
    stopped.target = fleet_core::unit::TargetState::Inactive;
    let entries = [
        cluster("c1"),
        (keys::unit(&name), entry(record::encode(&stopped), 2)),
    ];
    let all = Update::Reset(Snapshot {
        revision: 40,
        entries: entries.into(),
    });
    agent.take_all([all].into_iter());
    let desired = &agent.saved.as_ref().expect("obeyed").desired;
    assert!(!desired.contains_key(&name));
}

#[tokio::test]
async fn stale_desired_state_is_not_believed_by_the_next_fleetd() {
    let folder = tempfile::tempdir().expect("a folder");
    let next = || {
        let mut agent = agent(&folder);
        let marks = Marks::open(folder.path().join("marks.json"));
        agent.host = Host::new(agent.systemd.clone(), Heart::default(), marks);
        agent.load();
        agent
    };
    let name = UnitName::parse("a.service").expect("valid");
    let says = |target| {
        let unit = record::UnitRecord {
            target,
            ..launched()
        };
        let entries = [
            cluster("c1"),
            (keys::unit(&name), entry(record::encode(&unit), 2)),
        ];
        Update::Reset(Snapshot {
            revision: 10,
            entries: entries.into(),
        })
    };
    use fleet_core::unit::TargetState::{Inactive, Launched};
    let mut agent = next();
    agent
        .take_all([says(Launched)].into_iter())
        .expect("obeyed");
    // Nothing can be written in its place any more.
    let blocked = folder.path().join("desired.new");
    std::fs::create_dir(&blocked).expect("made");
    agent
        .take_all([says(Inactive)].into_iter())
        .expect("obeyed");
    assert!(agent.disk.is_some());

    // The unit was stopped here: the file that still wants it is not followed.
    let mut agent = next();
    assert!(agent.saved.is_none() && agent.disk.is_some());
    assert!(matches!(agent.following.memory(), Memory::Of(seen) if seen.cluster == "c1"));
    std::fs::remove_dir(&blocked).expect("removed");
    agent
        .take_all([says(Inactive)].into_iter())
        .expect("obeyed");
    assert_eq!(agent.disk, None);
    let agent = next();
    assert!(agent.saved.is_some_and(|saved| saved.desired.is_empty()));
}
