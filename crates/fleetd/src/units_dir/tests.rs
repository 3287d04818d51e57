//! A units directory with real files and real inotify, against a registry in memory.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;

use fleet_core::unit::TargetState;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::fake::FakeRegistry;
use super::*;

/// Longer than any pause of the loop except the minute between looks: what did not happen by then does not.
const QUIET: Duration = Duration::from_millis(350);
const PATIENCE: Duration = Duration::from_secs(10);

fn check(_: &UnitName, content: &Content) -> Result<(), String> {
    match content.as_bytes() {
        b"" => Err("unit file is empty".to_owned()),
        b"local" => Err("not global".to_owned()),
        _ => Ok(()),
    }
}

fn id(name: &str) -> MachineId {
    MachineId::parse(&name.repeat(32)).expect("one hexadecimal digit")
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(3)).await;
    }
}

/// One machine with a units directory; a second one may share the registry.
struct Machine {
    name: &'static str,
    folder: tempfile::TempDir,
    registry: FakeRegistry,
    problems: watch::Receiver<Problems>,
    running: JoinHandle<Infallible>,
}

impl Machine {
    fn new(name: &'static str, registry: &FakeRegistry) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("units")).expect("made");
        Self::start(name, registry.clone(), folder)
    }

    /// Without a units directory.
    fn bare(registry: &FakeRegistry) -> Self {
        Self::start(
            "a",
            registry.clone(),
            tempfile::tempdir().expect("a folder"),
        )
    }

    fn start(name: &'static str, registry: FakeRegistry, folder: tempfile::TempDir) -> Self {
        let (sink, problems) = watch::channel(Problems::new());
        let units = folder.path().join("units");
        let state = folder.path().join("state");
        let publisher = registry.seen_from(name);
        let running =
            tokio::spawn(UnitsDir::new(&units, &state, &id(name), publisher, check, sink).run());
        Self {
            name,
            folder,
            registry,
            problems,
            running,
        }
    }

    async fn stop(self) -> (&'static str, FakeRegistry, tempfile::TempDir) {
        self.running.abort();
        let _ = self.running.await;
        (self.name, self.registry, self.folder)
    }

    async fn restart(self) -> Self {
        let (name, registry, folder) = self.stop().await;
        Self::start(name, registry, folder)
    }

    /// The same disk in a machine of another id.
    async fn becomes(self, name: &'static str) -> Self {
        let (_, registry, folder) = self.stop().await;
        Self::start(name, registry, folder)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join("units").join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).expect("written");
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.path(file)).expect("removed");
    }

    async fn has(&self, unit: &str, text: &str) {
        eventually(&format!("{unit} is {text}"), || {
            self.registry.newest(unit).as_deref() == Some(text)
        })
        .await;
    }

    async fn has_not(&self, unit: &str) {
        eventually(&format!("no {unit}"), || {
            self.registry.newest(unit).is_none()
        })
        .await;
    }

    /// Publishes a file, and waits until it is remembered.
    async fn publish(&self, unit: &str, text: &str) {
        self.write(unit, text);
        self.has(unit, text).await;
        let state = self.folder.path().join("state").join(STATE_FILE);
        let print = directory::Fingerprint::of(&Content::from(text));
        let print = serde_json::to_string(&print).expect("text");
        eventually("remembered", || {
            let state = fs::read_to_string(&state).unwrap_or_default();
            state.contains(&format!("\"{unit}\":{{\"content\":{print}"))
        })
        .await;
    }

    async fn problem(&self, path: &str, text: &str) {
        let found = || {
            let problems = self.problems.borrow();
            problems
                .iter()
                .any(|(subject, it)| subject.ends_with(path) && it.contains(text))
        };
        eventually(&format!("{path}: {text}"), found).await;
    }

    async fn no_problem(&self) {
        eventually("no problem", || self.problems.borrow().is_empty()).await;
    }

    fn log(&self) -> Vec<String> {
        self.registry.inner().log.clone()
    }

    /// Nothing more is asked of the registry.
    async fn stays_quiet(&self) {
        let before = self.log();
        sleep(QUIET).await;
        assert_eq!(self.log(), before);
    }
}

#[tokio::test]
async fn a_file_that_appears_changes_and_goes_is_published_updated_and_disowned() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("web.service", "1").await;
    machine.publish("web.service", "2").await;
    machine.remove("web.service");
    machine.has_not("web.service").await;
    assert_eq!(
        machine.log(),
        [
            "a publish web.service 1",
            "a publish web.service 2",
            "a disown web.service"
        ]
    );
}

#[tokio::test]
async fn a_new_file_is_published_within_a_tenth_of_a_second() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("first.service", "1").await;
    // The best of some: the machine that runs the tests may be busy.
    let mut best = PATIENCE;
    for text in ["1", "2", "3", "4", "5"] {
        let start = Instant::now();
        machine.write("web.service", text);
        machine.has("web.service", text).await;
        best = best.min(start.elapsed());
    }
    assert!(best < Duration::from_millis(100), "{best:?}");
}

#[tokio::test]
async fn a_directory_that_does_not_change_asks_the_registry_nothing() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("web.service", "1").await;
    sleep(QUIET).await;
    let calls = machine.registry.inner().calls;
    machine.write("notes.txt", "a problem, but nothing for the registry");
    machine.problem("notes.txt", "not a unit file").await;
    machine.stays_quiet().await;
    assert_eq!(machine.registry.inner().calls, calls);
    // A file in question is asked for once, and not at every event around it.
    machine.write("bad.service", "local");
    machine.problem("bad.service", "not global").await;
    machine.stays_quiet().await;
    let calls = machine.registry.inner().calls;
    fs::write(machine.folder.path().join("beside"), "").expect("written");
    machine.stays_quiet().await;
    assert_eq!(machine.registry.inner().calls, calls);
}

#[tokio::test]
async fn a_bad_file_is_reported_and_leaves_the_last_good_revision() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("web.service", "1").await;
    machine.write("web.service", "local");
    machine.problem("units/web.service", "not global").await;
    machine.publish("other.service", "1").await;
    assert_eq!(machine.registry.newest("web.service").as_deref(), Some("1"));
    machine.publish("web.service", "2").await;
    machine.no_problem().await;
}

#[tokio::test]
async fn a_unit_that_the_registry_refuses_does_not_stop_the_others() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.registry.inner().refuses = Some("dbus.service");
    machine.write("dbus.service", "1");
    machine
        .problem("units/dbus.service", "clashes with a unit of the system")
        .await;
    machine.publish("web.service", "1").await;
}

#[tokio::test]
async fn a_file_is_never_read_half() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("first.service", "1").await;
    symlink("web@.service", machine.path("web@1.service")).expect("linked");
    let mut file = fs::File::create(machine.path("web@.service")).expect("created");
    for part in ["first ", "second "] {
        file.write_all(part.as_bytes()).expect("written");
        sleep(QUIET).await;
    }
    assert_eq!(machine.log(), ["a publish first.service 1"]);
    file.write_all(b"third").expect("written");
    drop(file);
    machine.has("web@.service", "first second third").await;
    machine.has("web@1.service", "first second third").await;
    let published = machine.log();
    assert_eq!(published.len(), 3, "{published:?}");
    let target = |unit| machine.registry.inner().units[unit].target;
    assert_eq!(target("web@.service"), Some(TargetState::Loaded));
    assert_eq!(target("web@1.service"), Some(TargetState::Launched));
}

#[tokio::test]
async fn a_file_rewritten_all_the_time_is_only_ever_published_whole() {
    const PARTS: usize = 64;
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("first.service", "1").await;
    let path = machine.path("web.service");
    let writer = tokio::task::spawn_blocking(move || {
        for round in 0..200 {
            let part = [b'a' + round % 26; 4096];
            let mut file = fs::File::create(&path).expect("created");
            for _ in 0..PARTS {
                file.write_all(&part).expect("written");
            }
            drop(file);
            std::thread::sleep(Duration::from_micros(u64::from(round) * 100));
        }
    });
    writer.await.expect("written");
    sleep(QUIET).await;
    let inner = machine.registry.inner();
    let contents = &inner.units["web.service"].contents;
    for content in contents {
        let bytes = content.as_bytes();
        assert!(bytes.len() == PARTS * 4096 && bytes.iter().all(|byte| *byte == bytes[0]));
    }
    assert!(contents.len() > 1, "some were published in between");
}

#[tokio::test]
async fn a_file_being_written_when_fleetd_starts_is_not_read_half() {
    let machine = Machine::new("a", &FakeRegistry::default());
    let (name, registry, folder) = machine.stop().await;
    let path = folder.path().join("units/web.service");
    fs::write(&path, "half").expect("written");
    let machine = Machine::start(name, registry, folder);
    sleep(RECENT / 2).await;
    machine.write("web.service", "whole");
    machine.has("web.service", "whole").await;
    assert_eq!(machine.log(), ["a publish web.service whole"]);
}

#[tokio::test]
async fn a_file_replaced_as_editors_do_is_one_update() {
    let machine = Machine::new("a", &FakeRegistry::default());
    machine.publish("web.service", "1").await;
    // Written beside and moved over it.
    machine.write(".web.service.swp", "2");
    fs::rename(
        machine.path(".web.service.swp"),
        machine.path("web.service"),
    )
    .expect("moved");
    machine.has("web.service", "2").await;
    // Moved away, and written again after a gap.
    fs::rename(machine.path("web.service"), machine.path("web.service~")).expect("moved");
    sleep(GONE / 2).await;
    machine.write("web.service", "3");
    machine.has("web.service", "3").await;
    machine.remove("web.service~");
    machine.stays_quiet().await;
    assert_eq!(
        machine.log(),
        [
            "a publish web.service 1",
            "a publish web.service 2",
            "a publish web.service 3"
        ]
    );
    machine.no_problem().await;
}

#[tokio::test]
async fn a_file_that_is_linked_into_place_is_published() {
    let machine = Machine::new("a", &FakeRegistry::default());
    let elsewhere = machine.folder.path().join("elsewhere");
    fs::write(&elsewhere, "1").expect("written");
    fs::hard_link(&elsewhere, machine.path("hard.service")).expect("linked");
    machine.has("hard.service", "1").await;
    symlink(&elsewhere, machine.path("soft.service")).expect("linked");
    machine.has("soft.service", "1").await;
}

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
async fn another_directory_in_its_place_is_held_until_somebody_marks_it() {
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
async fn an_emptied_directory_is_no_longer_held_when_its_units_were_destroyed() {
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
async fn a_directory_is_marked_when_something_was_published_and_not_before() {
    let machine = Machine::new("a", &FakeRegistry::default());
    sleep(QUIET).await;
    assert!(!machine.path(MARKER).exists());
    machine.publish("web.service", "1").await;
    assert!(machine.path(MARKER).exists());
}

#[tokio::test]
async fn a_directory_made_anew_after_its_last_unit_went_is_marked_anew() {
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
async fn a_restart_publishes_nothing_again_and_sees_what_happened_meanwhile() {
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
async fn two_machines_with_the_same_files_agree_and_the_last_one_out_destroys() {
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
