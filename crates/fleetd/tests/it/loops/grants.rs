//! Which revision a machine runs: it changes what runs by a grant to its present session only.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_core::keys;
use fleet_core::record::{self, Candidate, Grant, Revision};
use fleet_core::rollout::Phase;
use fleet_core::unit::Content;
use tokio::time::sleep;

use super::fleet::{AGENT_TTL, Fleet, quiet, service, unit};
use super::weather::Sky;

const A: &str = "a.service";

/// Makes that content the unit's candidate.
async fn offer(fleet: &Fleet, content: Content, restarts: u64) -> u64 {
    let (mut record, _) = fleet.record(A).await;
    let number = record.next_number();
    record.candidate = Some(Candidate {
        revision: Revision {
            number,
            at: 0,
            content,
            restarts,
        },
        phase: Phase::Rolling,
        reason: String::new(),
        since: 0,
        failed_on: BTreeSet::new(),
    });
    fleet
        .put(keys::unit(&unit(A)), record::encode(&record))
        .await;
    number
}

/// Ends its rollout: with the candidate as the stable revision, or without the candidate.
async fn end(fleet: &Fleet, promote: bool) {
    let (mut record, _) = fleet.record(A).await;
    let candidate = record.candidate.take().expect("there is a candidate");
    if promote {
        record.stable = candidate.revision;
    }
    fleet
        .put(keys::unit(&unit(A)), record::encode(&record))
        .await;
}

/// A fleet that runs revision 1.
async fn fleet_of(count: usize) -> Fleet {
    let fleet = Fleet::of(count).await;
    fleet.launch(A, service(1, "")).await;
    quiet().await;
    fleet.take_logs();
    fleet
}

/// What each machine says: the revision, and whether it waits for another.
async fn revisions(fleet: &Fleet) -> Vec<(u64, bool)> {
    let mut revisions = Vec::new();
    for machine in &fleet.machines {
        let report = fleet.unit_report(machine, A).await;
        assert!(report.ready && report.available, "{report:?}");
        revisions.push((report.revision, report.deferred));
    }
    revisions
}

/// How often each machine restarted it since this was asked last. Nothing else may have been done
/// but to files.
fn restarts(fleet: &Fleet) -> Vec<usize> {
    let count = |log: &Vec<String>| {
        let ended = |line: &&String| line.starts_with("stop") || line.starts_with("start");
        assert_eq!(log.iter().find(ended), None, "{log:?}");
        log.iter()
            .filter(|line| line.starts_with("restart"))
            .count()
    };
    fleet.take_logs().iter().map(count).collect()
}

#[tokio::test(start_paused = true)]
async fn machine_takes_candidate_and_returns_only_by_grant() {
    let fleet = fleet_of(3).await;
    let candidate = offer(&fleet, service(2, ""), 0).await;
    quiet().await;
    assert_eq!(restarts(&fleet), [0, 0, 0]);
    fleet.grant(&fleet.machines[0], A, candidate).await;
    fleet.grant(&fleet.machines[1], A, candidate).await;
    quiet().await;
    assert_eq!(
        revisions(&fleet).await,
        [(2, false), (2, false), (1, false)]
    );
    assert_eq!(restarts(&fleet), [1, 1, 0]);
    fleet.grant(&fleet.machines[0], A, 1).await;
    quiet().await;
    assert_eq!(
        revisions(&fleet).await,
        [(1, false), (2, false), (1, false)]
    );
    assert_eq!(restarts(&fleet), [1, 0, 0]);
    // The candidate goes while a machine has it: it stays there until it is granted the stable
    // revision.
    end(&fleet, false).await;
    quiet().await;
    assert_eq!(revisions(&fleet).await, [(1, false), (2, true), (1, false)]);
    assert_eq!(restarts(&fleet), [0, 0, 0]);
    fleet.let_all_go().await;
    quiet().await;
    assert_eq!(revisions(&fleet).await, [(1, false); 3]);
    assert_eq!(restarts(&fleet), [0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_promotion_restarts_nobody() {
    let fleet = fleet_of(2).await;
    offer(&fleet, service(2, ""), 0).await;
    fleet.let_all_go().await;
    quiet().await;
    assert_eq!(restarts(&fleet), [1, 1]);
    end(&fleet, true).await;
    quiet().await;
    assert_eq!(revisions(&fleet).await, [(2, false); 2]);
    assert_eq!(restarts(&fleet), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn grant_of_other_session_or_unit_moves_no_machine() {
    let mut fleet = fleet_of(3).await;
    let candidate = offer(&fleet, service(2, ""), 0).await;
    let (_, created) = fleet.record(A).await;
    let [first, second, third] = &fleet.machines[..] else {
        panic!("three machines")
    };
    for (machine, unit_of, session) in [
        (first, created, fleet.session(second).await),
        (second, created - 1, fleet.session(second).await),
    ] {
        let grant = Grant {
            unit: unit_of,
            revision: candidate,
            session,
            was_available: true,
            proved: false,
            leaves: false,
        };
        let key = keys::grant(&machine.id, &unit(A));
        fleet.put(key, record::encode(&grant)).await;
    }
    let damaged = keys::grant(&third.id, &unit(A));
    fleet.damage(damaged.clone()).await;
    let nonsense = format!("{}nonsense", keys::grants_of(&third.id));
    fleet.damage(nonsense.clone()).await;
    fleet.launch("b.service", service(1, "")).await;
    quiet().await;
    assert_eq!(revisions(&fleet).await, [(1, false); 3]);
    let report = fleet.report(third).await.expect("a report");
    assert!(report.problems[&damaged].contains("damaged"), "{report:?}");
    assert_eq!(report.problems.get(&nonsense), None);
    assert!(third.running().await.contains("b.service"));
    fleet.let_all_go().await;
    quiet().await;
    assert_eq!(revisions(&fleet).await, [(2, false); 3]);
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn machine_back_from_a_cut_ignores_its_old_grant() {
    let fleet = fleet_of(2).await;
    let before = fleet.session(&fleet.machines[0]).await;
    let candidate = offer(&fleet, service(2, ""), 0).await;
    fleet.machines[0].weather.turn(Sky::Silent);
    sleep(Duration::from_secs(1)).await;
    // It is still here for all that anybody knows.
    fleet.grant(&fleet.machines[0], A, candidate).await;
    sleep(AGENT_TTL * 2).await;
    fleet.machines[0].weather.turn(Sky::Clear);
    quiet().await;
    assert_ne!(fleet.session(&fleet.machines[0]).await, before);
    assert_eq!(restarts(&fleet), [0, 0]);
    fleet.grant(&fleet.machines[0], A, candidate).await;
    quiet().await;
    assert_eq!(restarts(&fleet), [1, 0]);
}

/// Around the end of a lease, to the tenth of a second: whether the registry or the machine is the
/// first to end it.
#[tokio::test(start_paused = true)]
async fn grant_of_an_outage_counts_only_if_the_session_outlives_it() {
    let mut outlived = [0, 0];
    for tenths in (0..200).step_by(3).chain(200..320) {
        let fleet = fleet_of(1).await;
        let machine = &fleet.machines[0];
        let candidate = offer(&fleet, service(2, ""), 0).await;
        let before = fleet.session(machine).await;
        // The registry hears of each renewal half a second after it was asked for.
        machine.weather.turn(Sky::Slow);
        quiet().await;
        machine.weather.turn(Sky::Silent);
        fleet.grant(machine, A, candidate).await;
        sleep(Duration::from_millis(100) * tenths).await;
        machine.weather.turn(Sky::Clear);
        quiet().await;
        let same = fleet.session(machine).await == before;
        outlived[usize::from(same)] += 1;
        assert_eq!(restarts(&fleet), [usize::from(same)], "{tenths}");
    }
    assert!(outlived.iter().all(|times| *times > 10), "{outlived:?}");
}

#[tokio::test(start_paused = true)]
async fn an_update_on_top_of_another_moves_nobody_by_itself() {
    let fleet = fleet_of(2).await;
    offer(&fleet, service(2, ""), 0).await;
    fleet.grant(&fleet.machines[0], A, 2).await;
    quiet().await;
    assert_eq!(restarts(&fleet), [1, 0]);
    offer(&fleet, service(3, ""), 0).await;
    let (mut record, _) = fleet.record(A).await;
    let candidate = record.candidate.as_mut().expect("there is one");
    candidate.revision.number = 3;
    fleet
        .put(keys::unit(&unit(A)), record::encode(&record))
        .await;
    quiet().await;
    assert_eq!(restarts(&fleet), [0, 0]);
    assert_eq!(revisions(&fleet).await, [(2, true), (1, false)]);
    fleet.let_all_go().await;
    quiet().await;
    assert_eq!(restarts(&fleet), [1, 1]);
    assert_eq!(revisions(&fleet).await, [(3, false); 2]);
}

#[tokio::test(start_paused = true)]
async fn machine_that_missed_a_rollout_waits_for_its_turn() {
    for reboots in [false, true] {
        let mut fleet = fleet_of(2).await;
        fleet.machines[0].weather.turn(Sky::Silent);
        offer(&fleet, service(2, ""), 0).await;
        end(&fleet, true).await;
        sleep(AGENT_TTL * 2).await;
        if reboots {
            fleet.machines[0].reboot().await;
            quiet().await;
            fleet.take_logs();
        }
        fleet.machines[0].weather.turn(Sky::Clear);
        quiet().await;
        assert_eq!(restarts(&fleet), [0, 0]);
        assert_eq!(revisions(&fleet).await, [(1, true); 2]);
        // Once and again, so that it is no accident of the first look.
        fleet.machines[0].kill().await;
        fleet.machines[0].start();
        quiet().await;
        assert_eq!(restarts(&fleet), [0, 0]);
        fleet.grant(&fleet.machines[0], A, 2).await;
        quiet().await;
        assert_eq!(restarts(&fleet), [1, 0]);
        assert_eq!(revisions(&fleet).await, [(2, false), (1, true)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_joins_in_a_rollout_takes_the_stable_revision() {
    let mut fleet = fleet_of(3).await;
    fleet.machines[2].kill().await;
    let name = "b.service";
    fleet.launch(name, service(1, "MachineMetadata=n=2")).await;
    fleet.machines[2].start();
    quiet().await;
    let report = fleet.unit_report(&fleet.machines[2], name).await;
    assert_eq!((report.revision, report.deferred), (1, false));
    // And one whose metadata matches from now on.
    offer(&fleet, service(2, ""), 0).await;
    let id = fleet.machines[1].id.clone();
    let n = |value: &str| [(id.clone(), "n".to_owned(), Some(value.to_owned()))];
    let set = fleet.registry.set_metadata(&n("2")).await;
    set.expect("set");
    quiet().await;
    let report = fleet.unit_report(&fleet.machines[1], name).await;
    assert_eq!((report.revision, report.deferred), (1, false));
}

#[tokio::test(start_paused = true)]
async fn restarted_fleetd_keeps_the_candidate_without_its_grant() {
    let mut fleet = fleet_of(1).await;
    offer(&fleet, service(2, ""), 0).await;
    fleet.let_all_go().await;
    quiet().await;
    assert_eq!(restarts(&fleet), [1]);
    fleet.machines[0].kill().await;
    fleet.machines[0].start();
    quiet().await;
    assert_eq!(restarts(&fleet), [0]);
    assert_eq!(revisions(&fleet).await, [(2, false)]);
}

#[tokio::test(start_paused = true)]
async fn machine_that_keeps_a_revision_follows_other_changes() {
    let fleet = fleet_of(1).await;
    let machine = &fleet.machines[0];
    offer(&fleet, service(2, "MachineMetadata=n=0"), 0).await;
    end(&fleet, true).await;
    quiet().await;
    assert_eq!(revisions(&fleet).await, [(1, true)]);
    let set = async |value: &str| {
        let change = [(machine.id.clone(), "n".to_owned(), Some(value.to_owned()))];
        fleet.registry.set_metadata(&change).await.expect("set");
        quiet().await;
    };
    set("other").await;
    // It stops by grant too.
    assert_eq!(revisions(&fleet).await, [(1, true)]);
    fleet.let_leave().await;
    quiet().await;
    assert!(machine.running().await.is_empty());
    set("0").await;
    // It has nothing to lose any more.
    assert_eq!(revisions(&fleet).await, [(2, false)]);
}

#[tokio::test(start_paused = true)]
async fn requested_restart_happens_once_despite_a_comment_change() {
    let fleet = fleet_of(2).await;
    offer(&fleet, service(1, ""), 1).await;
    quiet().await;
    assert_eq!(restarts(&fleet), [0, 0]);
    fleet.let_all_go().await;
    quiet().await;
    assert_eq!(restarts(&fleet), [1, 1]);
    end(&fleet, true).await;
    offer(&fleet, service(1, "# a comment"), 1).await;
    fleet.let_all_go().await;
    quiet().await;
    end(&fleet, true).await;
    quiet().await;
    assert_eq!(restarts(&fleet), [0, 0]);
    assert_eq!(revisions(&fleet).await, [(3, false); 2]);
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_is_destroyed_and_made_again_is_another_one() {
    let mut fleet = fleet_of(1).await;
    fleet.machines[0].weather.turn(Sky::Silent);
    fleet.destroy(A).await;
    fleet.launch(A, service(1, "")).await;
    offer(&fleet, service(2, ""), 0).await;
    end(&fleet, true).await;
    fleet.machines[0].weather.turn(Sky::Clear);
    quiet().await;
    assert_eq!(revisions(&fleet).await, [(2, false)]);
    fleet.has_converged().await;
}
