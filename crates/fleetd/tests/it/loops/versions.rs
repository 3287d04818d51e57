//! What a newer version wrote, met by this one: said, left as it is, and nothing on the host is
//! touched.

use std::path::{Path, PathBuf};

use fleet_core::keys;
use fleet_core::machine::Scheduling;
use fleet_core::record::{Grant, Progress};
use fleet_core::trust::Footing;
use fleetd::registry::{Registry, RegistryError};

use super::fleet::{Fleet, Machine, quiet, service, set, unit};
use super::rollouts::{roll, ten};
use super::stage::{id, settle};

const A: &str = "a.service";
const WEB: &str = "web.service";

/// The same with the next format. Answers what is in it now.
fn upgrade(file: &Path) -> String {
    let text = std::fs::read_to_string(file).expect("a file");
    let newer = text.replacen(r#""format":1"#, r#""format":2"#, 1);
    assert_ne!(text, newer);
    std::fs::write(file, &newer).expect("written");
    newer
}

/// A machine that runs a unit, with a file of a newer version, and changes that wait for it.
async fn downgraded(file: impl Fn(&Machine) -> PathBuf) -> (Fleet, PathBuf, String) {
    let mut fleet = Fleet::of(1).await;
    for name in [A, "gone.service", "updated.service"] {
        fleet.launch(name, service(1, "")).await;
    }
    quiet().await;
    let machine = &mut fleet.machines[0];
    machine.kill().await;
    let file = file(machine);
    let newer = upgrade(&file);
    machine.take_log();
    fleet.destroy("gone.service").await;
    fleet.submit("updated.service", service(2, ""), None).await;
    fleet.launch("new.service", service(1, "")).await;
    fleet.machines[0].start();
    quiet().await;
    fleet.let_all_go().await;
    quiet().await;
    fleet.machines[0].systemd.crash(&unit(A));
    quiet().await;
    assert_eq!(fleet.take_logs().concat(), Vec::<String>::new());
    let on_file = std::fs::read_to_string(&file).expect("it is there");
    assert_eq!(on_file, newer, "it is kept for the version that wrote it");
    (fleet, file, newer)
}

#[tokio::test(start_paused = true)]
async fn a_desired_state_of_a_newer_version_holds_everything() {
    for name in ["desired.json", "seen.json"] {
        let (mut fleet, file, _) =
            downgraded(|machine| machine.desired_file().with_file_name(name)).await;
        let machine = &fleet.machines[0];
        let footing = machine.trust().borrow().footing.clone();
        assert!(matches!(footing, Footing::Held(_)), "{footing:?}");
        let report = fleet.report(machine).await.expect("a report");
        for subject in ["registry", "state directory"] {
            let told = &report.problems[subject];
            let says = |text: &str| assert!(told.contains(text), "{told}");
            says(name);
            says("its format is 2, and this version reads up to 1: upgrade fleetd here");
        }
        let registry = Registry::new(std::sync::Arc::new(machine.weather.clone()));
        let registry = registry.trusting(machine.trust());
        let refused = registry.destroy(&unit(A)).await;
        assert!(matches!(refused, Err(RegistryError::Held(_))));
        // The next step that it names.
        fleet.machines[0].kill().await;
        for name in ["desired.json", "seen.json"] {
            std::fs::remove_file(file.with_file_name(name)).expect("removed");
        }
        fleet.machines[0].start();
        quiet().await;
        let log = fleet.take_logs().concat();
        assert!(log.contains(&"stop gone.service".to_owned()), "{log:?}");
        fleet.let_all_go().await;
        quiet().await;
        assert!(fleet.running().await[0].contains("new.service"));
    }
}

#[tokio::test(start_paused = true)]
async fn marks_of_a_newer_version_leave_every_unit_as_it_is() {
    let (mut fleet, file, _) = downgraded(Machine::marks_file).await;
    let report = fleet.report(&fleet.machines[0]).await.expect("a report");
    let told = &report.problems["marks.json"];
    assert!(
        told.contains("its format is 2, and this version reads up to 1: upgrade fleetd here"),
        "{told}"
    );
    assert!(
        report
            .units
            .values()
            .all(|unit| !unit.available && !unit.deferred)
    );
    fleet.machines[0].kill().await;
    std::fs::remove_file(file).expect("removed");
    fleet.machines[0].start();
    quiet().await;
    fleet.let_all_go().await;
    quiet().await;
    assert!(fleet.running().await[0].is_superset(&set(&["new.service", "updated.service"])));
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_newer_version_is_refused_and_left_to_it() {
    let mut fleet = Fleet::of(2).await;
    for name in [A, "b.service"] {
        fleet.launch(name, service(1, "")).await;
    }
    quiet().await;
    fleet.take_logs();
    let machine = fleet.machines[1].id.clone();
    let newer = br#"{"format":2,"what":"ever"}"#;
    let written = [keys::unit(&unit(A)), keys::metadata(&machine)];
    for key in &written {
        fleet.put(key.clone(), newer.to_vec()).await;
    }
    quiet().await;
    let registry = &fleet.registry;
    let owner = fleet_core::record::Owner::Api;
    let submitted = registry.submit(&unit(A), service(2, ""), owner, None).await;
    let label = (machine.clone(), "k".to_owned(), Some("v".to_owned()));
    let labelled = registry.set_metadata(&[label]).await;
    let cordoned = registry
        .set_scheduling(&machine, Scheduling::Cordoned)
        .await;
    for refused in [submitted.map(drop), labelled, cordoned.map(drop)] {
        let text = refused.expect_err("refused").to_string();
        let says = "its format is 2, and this version reads up to 1: upgrade fleetd here";
        assert!(text.contains(says), "{text}");
    }
    for machine in &mut fleet.machines {
        machine.kill().await;
        machine.start();
    }
    quiet().await;
    assert_eq!(fleet.take_logs().concat(), Vec::<String>::new());
    for key in &written {
        assert_eq!(&*fleet.entry(key).await.expect("it is there").value, newer);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_writes_over_nothing_of_a_newer_one() {
    let mut stage = ten().await;
    let newer = br#"{"format":2,"what":"ever"}"#;
    let known = keys::known(&id(2));
    let grant = keys::grant(&id(1), &unit(WEB));
    for key in [&known, &grant] {
        stage.put_bytes(key.clone(), newer.to_vec()).await;
    }
    stage.goes(2).await;
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    for _ in 0..20 {
        settle().await;
        stage.obey_all().await;
    }
    assert_eq!(stage.revisions(WEB)[1], 1, "it is given nothing");
    let candidate = stage.unit(WEB).await.candidate;
    assert!(candidate.is_some(), "the state of one machine is unknown");
    for key in [&known, &grant] {
        let all = stage.bytes(key).await;
        assert_eq!(all.as_deref(), Some(newer.as_slice()), "{key}");
    }
    stage.write(vec![fleetd::store::Write::Delete(grant)]).await;
    roll(&mut stage).await;
    assert_eq!(stage.unit(WEB).await.stable.number, 2);
    let all = stage.bytes(&known).await;
    assert_eq!(all.as_deref(), Some(newer.as_slice()));
    // Nor is a rollout gone on with that a newer one has begun.
    let progress = keys::rollout(&unit(WEB));
    stage.put_bytes(progress.clone(), newer.to_vec()).await;
    stage.update(WEB, service(3, "MaxUnavailable=3")).await;
    settle().await;
    let granted = stage.read::<Grant>(keys::GRANTS).await;
    assert!(
        granted.values().all(|grant| grant.revision == 2),
        "{granted:?}"
    );
    assert_eq!(
        stage.bytes(&progress).await.as_deref(),
        Some(newer.as_slice())
    );
    let gone = fleetd::store::Write::Delete(progress);
    stage.write(vec![gone]).await;
    settle().await;
    assert_eq!(stage.read::<Progress>(keys::ROLLOUTS).await.len(), 1);
}
