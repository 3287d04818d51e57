//! A units directory with real files and real inotify, against a registry in memory.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;

use fleet_core::unit::TargetState;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::fake::FakeRegistry;
use super::*;

mod held;

/// Longer than any pause of the loop except the minute between looks: what did not happen by then
/// does not.
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
async fn file_is_published_updated_and_disowned_as_it_changes() {
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
