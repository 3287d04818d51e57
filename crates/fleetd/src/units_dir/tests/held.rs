//! Directories that go, come and differ; restarts, a registry that is away, several machines.

use super::*;
use crate::units_dir::disk::SETTLE;

#[tokio::test]
async fn a_directory_may_appear_later_and_where_nothing_was() {
    let machine = Machine::bare(&FakeRegistry::default());
    sleep(QUIET).await;
    machine.no_problem().await;
    fs::create_dir(machine.path("")).expect("made");
    machine.publish("web.service", "1").await;
}

#[tokio::test]
async fn a_missing_directory_holds_its_units_and_comes_back() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("web.service", "1").await;
    let away = machine.folder.path().join("away");
    fs::rename(machine.path(""), &away).expect("moved");
    machine.problem("units", "is missing").await;
    machine.stays_quiet().await;
    fs::rename(&away, machine.path("")).expect("moved");
    machine.no_problem().await;
    machine.publish("web.service", "2").await;
}

#[tokio::test]
async fn other_directory_in_its_place_is_held_until_marked() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("web.service", "1").await;
    fs::rename(machine.path(""), machine.folder.path().join("away")).expect("moved");
    fs::create_dir(machine.path("")).expect("made");
    machine.write("other.service", "1");
    machine.problem("units", "has lost its marker").await;
    machine.stays_quiet().await;
    machine.write(MARKER, "");
    machine.has("other.service", "1").await;
    machine.has_not("web.service").await;
}

#[tokio::test]
async fn a_writer_left_behind_in_a_replaced_directory_blocks_nothing() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("web.service", "1").await;
    let mut left_behind = fs::File::create(machine.path("web.service")).expect("opened");
    left_behind.write_all(b"half").expect("written");
    let new = machine.folder.path().join("new");
    fs::create_dir(&new).expect("made");
    fs::write(new.join(MARKER), "").expect("written");
    fs::write(new.join("web.service"), "2").expect("written");
    sleep(QUIET).await;
    fs::rename(machine.path(""), machine.folder.path().join("away")).expect("moved");
    fs::rename(&new, machine.path("")).expect("moved");
    machine.has("web.service", "2").await;
}

#[tokio::test]
async fn a_directory_emptied_at_once_is_held() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("a.service", "1").await;
    machine.publish("b.service", "1").await;
    machine.remove("a.service");
    sleep(GONE / 2).await;
    machine.remove("b.service");
    machine
        .problem("units", "had 2 unit files and has none now")
        .await;
    machine.stays_quiet().await;
    // They come back one by one, and the other is not taken as gone meanwhile.
    machine.write("b.service", "1");
    sleep(GONE / 2).await;
    machine.write("a.service", "1");
    machine.stays_quiet().await;
    machine.no_problem().await;
}

#[tokio::test]
async fn emptied_directory_is_released_when_its_units_are_destroyed() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("a.service", "1").await;
    machine.publish("b.service", "1").await;
    machine.remove("a.service");
    machine.remove("b.service");
    machine.problem("units", "has none now").await;
    machine.registry.inner().units.clear();
    machine.write(".anything", "an event, sooner than the minute");
    machine.no_problem().await;
    machine.publish("a.service", "1").await;
}

#[tokio::test]
async fn directory_is_marked_only_after_the_first_publication() {
    let machine = Machine::new("a", &FakeRegistry::default());
    sleep(QUIET).await;
    assert!(!machine.path(MARKER).exists());
    machine.publish("web.service", "1").await;
    assert!(machine.path(MARKER).exists());
}

#[tokio::test]
async fn re_created_directory_without_units_is_marked_again() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("web.service", "1").await;
    machine.remove("web.service");
    machine.has_not("web.service").await;
    fs::remove_dir_all(machine.path("")).expect("removed");
    fs::create_dir(machine.path("")).expect("made");
    machine.publish("web.service", "2").await;
    assert!(machine.path(MARKER).exists());
    machine.publish("web.service", "3").await;
}

#[tokio::test]
async fn restart_publishes_nothing_again_and_sees_changes() {
    let machine = Machine::new("a", &FakeRegistry::default());
    for unit in ["a.service", "b.service", "c.service"] {
        machine.publish(unit, "1").await;
    }
    let machine = machine.restart().await;
    sleep(RECENT).await;
    machine.stays_quiet().await;
    let (name, registry, folder) = machine.stop().await;
    let published = registry.inner().log.len();
    registry.inner().units.remove("c.service");
    fs::write(folder.path().join("units/a.service"), "2").expect("written");
    fs::remove_file(folder.path().join("units/b.service")).expect("removed");
    let machine = Machine::start(name, registry, folder);
    machine.has("a.service", "2").await;
    machine.has_not("b.service").await;
    machine.stays_quiet().await;
    assert_eq!(
        machine.log()[published..].len(),
        2,
        "c.service stays destroyed: {:?}",
        machine.log()
    );
}

#[tokio::test]
async fn a_damaged_state_file_holds_everything_until_it_is_mended() {
    let mut machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("web.service", "1").await;
    for (bytes, why) in [
        ("{", "damaged"),
        (r#"{"format":2,"new":[]}"#, "its format is 2"),
    ] {
        let (name, registry, folder) = machine.stop().await;
        let state = folder.path().join("state").join(STATE_FILE);
        fs::write(&state, bytes).expect("written");
        fs::write(folder.path().join("units/web.service"), "2").expect("written");
        machine = Machine::start(name, registry, folder);
        machine.problem(STATE_FILE, why).await;
        machine.problem(STATE_FILE, "Nothing is published").await;
        machine.stays_quiet().await;
        assert_eq!(fs::read_to_string(&state).expect("text"), bytes);
    }
    fs::remove_file(machine.folder.path().join("state").join(STATE_FILE)).expect("removed");
    machine.write("other.service", "1");
    machine.has("other.service", "1").await;
    // What it published is forgotten, so it may not change what the fleet has.
    machine
        .problem("web.service", "seen for the first time")
        .await;
    machine.write("web.service", "3");
    machine.has("web.service", "3").await;
    machine.no_problem().await;
}

#[tokio::test]
async fn while_the_registry_is_away_changes_wait_and_none_is_lost() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("a.service", "1").await;
    machine.publish("b.service", "1").await;
    machine.registry.inner().away = true;
    machine.write("a.service", "2");
    machine
        .problem("units", "changes wait: registry unavailable")
        .await;
    machine.write("a.service", "3");
    machine.write("c.service", "1");
    machine.remove("b.service");
    let calls = machine.registry.inner().calls;
    sleep(QUIET).await;
    assert!(machine.registry.inner().calls - calls <= 2, "it backs off");
    machine.registry.inner().away = false;
    machine.has("a.service", "3").await;
    machine.has("c.service", "1").await;
    machine.has_not("b.service").await;
    machine.no_problem().await;
}

#[tokio::test]
async fn last_of_two_machines_with_same_files_destroys_the_unit() {
    let registry = FakeRegistry::default();
    let (a, b) = (Machine::new("a", &registry), Machine::new("b", &registry));
    a.publish("web.service", "1").await;
    b.publish("web.service", "1").await;
    a.publish("web.service", "2").await;
    b.publish("web.service", "2").await;
    let expected = [
        "a publish web.service 1",
        "b adopt web.service",
        "a publish web.service 2",
        "b adopt web.service",
    ];
    assert_eq!(registry.inner().log, expected);
    a.remove("web.service");
    eventually("disowned", || registry.inner().log.len() == 5).await;
    assert_eq!(
        registry.newest("web.service").as_deref(),
        Some("2"),
        "b still owns it"
    );
    b.remove("web.service");
    b.has_not("web.service").await;
}

#[tokio::test]
async fn two_machines_with_different_files_do_not_fight() {
    let registry = FakeRegistry::default();
    let (a, b) = (Machine::new("a", &registry), Machine::new("b", &registry));
    a.publish("web.service", "from a").await;
    b.publish("web.service", "from b").await;
    a.write("other.service", "1");
    b.write("other.service", "1");
    // Both have looked again, and neither took the occasion.
    eventually("published and adopted", || a.log().len() == 4).await;
    a.stays_quiet().await;
    assert_eq!(registry.newest("web.service").as_deref(), Some("from b"));
}

#[tokio::test]
async fn a_machine_that_comes_back_with_an_old_copy_publishes_nothing() {
    let registry = FakeRegistry::default();
    let (a, b) = (Machine::new("a", &registry), Machine::new("b", &registry));
    a.publish("web.service", "old").await;
    a.publish("web.service", "new").await;
    b.write("web.service", "old");
    b.stays_quiet().await;
    b.problem("web.service", "the registry has a newer revision")
        .await;
    registry.inner().units.remove("web.service");
    b.publish("other.service", "1").await;
    assert_eq!(
        registry.newest("web.service"),
        None,
        "nor does it bring back what was destroyed"
    );
}

#[tokio::test]
async fn a_machine_from_an_old_image_changes_nothing_and_says_so() {
    let registry = FakeRegistry::default();
    let first = Machine::new("a", &registry);
    first.publish("web.service", "1").await;
    first.publish("web.service", "2").await;
    first.publish("old.service", "1").await;
    first.remove("old.service");
    first.has_not("old.service").await;
    let image = tempfile::tempdir().expect("a folder");
    let units = image.path().join("units");
    fs::create_dir(&units).expect("made");
    for (file, text) in [
        ("web.service", "0"),
        ("old.service", "1"),
        ("new.service", "1"),
    ] {
        fs::write(units.join(file), text).expect("written");
    }
    let second = Machine::start("b", registry.clone(), image);
    second.has("new.service", "1").await;
    second
        .problem("web.service", "seen for the first time")
        .await;
    second
        .problem("old.service", "the unit was destroyed")
        .await;
    assert_eq!(registry.newest("web.service").as_deref(), Some("2"));
    assert_eq!(registry.newest("old.service"), None);
    // A person who changes the file means it.
    second.write("web.service", "3");
    second.has("web.service", "3").await;
}

#[tokio::test]
async fn a_service_copied_before_its_timer_is_loaded_not_launched() {
    let registry = FakeRegistry::default();
    let machine = Machine::new("a", &registry);
    machine.write("b.service", "1");
    sleep(SETTLE / 4).await;
    machine.write("b.timer", "[Timer]\nOnCalendar=daily");
    machine.has("b.timer", "[Timer]\nOnCalendar=daily").await;
    let targets = |unit: &str| registry.inner().units[unit].target;
    assert_eq!(targets("b.service"), Some(TargetState::Loaded));
    assert_eq!(targets("b.timer"), Some(TargetState::Launched));
    let log = machine.log();
    assert!(log[0].starts_with("a publish b.service"), "{log:?}");
}

#[tokio::test]
async fn an_adoption_that_was_overtaken_changes_nothing() {
    let registry = FakeRegistry::default();
    let (a, b) = (Machine::new("a", &registry), Machine::new("b", &registry));
    a.publish("web.service", "1").await;
    registry.inner().overtakes = Some(Content::from("2"));
    b.write("web.service", "1");
    eventually("overtaken", || registry.inner().overtakes.is_none()).await;
    b.stays_quiet().await;
    assert_eq!(registry.newest("web.service").as_deref(), Some("2"));
    assert_eq!(registry.inner().log, ["a publish web.service 1"]);
}

#[tokio::test]
async fn a_machine_with_another_id_owns_what_it_published_before() {
    let registry = FakeRegistry::default();
    let a = Machine::new("a", &registry);
    a.publish("web.service", "1").await;
    let b = a.becomes("b").await;
    eventually("owned", || {
        registry.inner().log == ["a publish web.service 1", "b adopt web.service"]
    })
    .await;
    b.remove("web.service");
    eventually("disowned", || registry.inner().log.len() == 3).await;
    // The other id owns it until it is forgotten.
    assert_eq!(registry.newest("web.service").as_deref(), Some("1"));
}
