//! Each rule of the units directory as a statement, and the laws that hold for all of them.

use super::*;
use crate::record::{Past, Revision, SEEN_MAX, SeenRecord, UnitRecord};

mod order;

fn name(text: &str) -> UnitName {
    UnitName::parse(text).expect("valid name")
}

fn fingerprint(text: &str) -> Fingerprint {
    Fingerprint::of(&Content::from(text))
}

fn file(text: &str) -> File {
    File::Content(Content::from(text))
}

/// The only content that is refused, so that tests can write short ones.
fn check(_: &UnitName, content: &Content) -> Result<(), String> {
    match content.as_bytes() {
        b"local" => Err("not global".to_owned()),
        _ => Ok(()),
    }
}

/// A directory in order, what it published before, and what the registry has: newest first.
#[derive(Debug, Default)]
struct World {
    published: Published,
    files: BTreeMap<String, File>,
    marked: bool,
    known: BTreeMap<UnitName, Known>,
}

impl World {
    fn new() -> Self {
        let mut new = Self {
            marked: true,
            ..Self::default()
        };
        new.published.seen = true;
        new
    }

    /// A machine that was installed from a disk image: nothing was published from its directory.
    fn image() -> Self {
        let mut image = Self::new();
        image.published.seen = false;
        image
    }

    /// The unit is gone; it had these contents.
    fn destroyed(mut self, unit: &str, contents: &[&str]) -> Self {
        let seen = SeenRecord::default().with(contents.iter().map(|text| fingerprint(text)));
        self.known.insert(name(unit), Known::destroyed(&seen));
        self
    }

    /// The target states of what is published, in order.
    fn targets(&self) -> String {
        let Decision::Act { actions, .. } = self.decide() else {
            panic!("held")
        };
        let targets = actions.iter().map(|action| match action {
            Action::Publish { name, target, .. } => format!("{name} {target}"),
            other => other.to_string(),
        });
        targets.collect::<Vec<_>>().join(", ")
    }

    fn published(mut self, unit: &str, content: &str) -> Self {
        let last = Last {
            content: fingerprint(content),
            stale: false,
            why: None,
        };
        self.published.marked = true;
        self.published.units.insert(name(unit), last);
        self
    }

    fn file(mut self, entry: &str, file: File) -> Self {
        self.files.insert(entry.to_owned(), file);
        self
    }

    fn registry(mut self, unit: &str, newest: &str, older: &[&str]) -> Self {
        let known = Known {
            newest: Some(fingerprint(newest)),
            older: older.iter().map(|text| fingerprint(text)).collect(),
            rolled_back: BTreeSet::new(),
        };
        self.known.insert(name(unit), known);
        self
    }

    /// The registry went back from this content.
    fn rolled_back(mut self, unit: &str, content: &str) -> Self {
        let known = self.known.get_mut(&name(unit)).expect("known");
        known.older.insert(fingerprint(content));
        known.rolled_back.insert(fingerprint(content));
        self
    }

    fn unmarked(mut self) -> Self {
        self.marked = false;
        self
    }

    fn directory(&self) -> Directory {
        Directory::Present {
            marked: self.marked,
            files: self.files.clone(),
        }
    }

    fn decide(&self) -> Decision {
        let directory = self.directory();
        let asked = questions(&self.published, &directory);
        let known = self.known.iter().filter(|(name, _)| asked.contains(name));
        let known = known
            .map(|(name, known)| (name.clone(), known.clone()))
            .collect();
        decide(&self.published, &directory, &known, check)
    }

    /// Returns the actions, one line each, and then the notes for each file.
    fn says(&self) -> String {
        match self.decide() {
            Decision::Held(held) => format!("held: {held}"),
            Decision::Act {
                actions,
                problems,
                notes,
            } => {
                let actions = actions.iter().map(ToString::to_string);
                let problems = problems
                    .iter()
                    .map(|(file, text)| format!("problem {file}: {text}"));
                let notes = notes
                    .iter()
                    .map(|(file, text)| format!("note {file}: {text}"));
                actions
                    .chain(problems)
                    .chain(notes)
                    .collect::<Vec<_>>()
                    .join("\n")
            }
        }
    }
}

#[test]
fn a_new_file_is_published() {
    assert_eq!(
        World::new().file("a.service", file("1")).says(),
        "publish a.service: its file appeared"
    );
}

#[test]
fn new_unit_is_launched_and_new_template_loaded() {
    let world = World::new()
        .file("a@1.service", file("1"))
        .file("a@.service", file("1"));
    let Decision::Act { actions, .. } = world.decide() else {
        panic!("held")
    };
    let targets: Vec<_> = actions
        .iter()
        .map(|action| match action {
            Action::Publish { name, target, .. } => (name.as_str(), *target),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(
        targets,
        [
            ("a@.service", TargetState::Loaded),
            ("a@1.service", TargetState::Launched)
        ]
    );
}

#[test]
fn a_changed_file_is_published_over_what_the_registry_has() {
    let world = World::new()
        .published("a.service", "1")
        .file("a.service", file("2"));
    assert_eq!(
        world.registry("a.service", "1", &[]).says(),
        "publish a.service: its file changed"
    );
}

#[test]
fn a_file_that_goes_is_disowned_before_others_come() {
    let world = World::new()
        .published("z.service", "1")
        .file("a.service", file("1"));
    assert_eq!(
        world.says(),
        "disown z.service: its file is gone\npublish a.service: its file appeared"
    );
}

#[test]
fn the_same_file_on_a_second_machine_is_adopted() {
    let world = World::new()
        .file("a.service", file("1"))
        .registry("a.service", "1", &[]);
    assert_eq!(
        world.says(),
        "adopt a.service: the registry has this content"
    );
}

#[test]
fn an_unchanged_file_does_nothing_whatever_the_registry_has() {
    let world = || {
        World::new()
            .published("a.service", "1")
            .file("a.service", file("1"))
    };
    assert_eq!(world().says(), "", "destroyed by somebody");
    assert_eq!(
        world().registry("a.service", "2", &["1"]).says(),
        "",
        "newer elsewhere"
    );
    assert_eq!(questions(&world().published, &world().directory()), []);
}

#[test]
fn a_destroyed_unit_comes_back_when_its_file_changes() {
    let world = World::new()
        .published("a.service", "1")
        .file("a.service", file("2"));
    assert_eq!(world.says(), "publish a.service: its file changed");
}

#[test]
fn a_stale_copy_is_passed_over_and_stays_so() {
    let mut world = World::new()
        .file("a.service", file("1"))
        .registry("a.service", "2", &["1"]);
    assert_eq!(
        world.says(),
        "pass over a.service: the registry has a newer revision; change the file to publish it"
    );
    let over = Action::PassOver(name("a.service"), fingerprint("1"), PassedOver::Older);
    world.published.apply(&over);
    world.known.clear();
    assert_eq!(
        world.says(),
        "problem a.service: the registry has a newer revision; change the file to publish it",
        "even when the unit is destroyed"
    );
}

#[test]
fn a_new_directory_only_adopts_and_creates() {
    let image = World::image()
        .file("new.service", file("1"))
        .file("same.service", file("1"))
        .registry("same.service", "1", &[])
        .file("old.service", file("1"))
        .registry("old.service", "12", &["1"])
        .file("other.service", file("never seen"))
        .registry("other.service", "1", &[])
        .file("gone.service", file("1"))
        .destroyed("gone.service", &["1", "2"])
        .file("edited.service", file("never seen"))
        .destroyed("edited.service", &["1"]);
    insta::assert_snapshot!(image.says(), @r"
    pass over edited.service: the unit was destroyed, and this directory is seen for the first time; change the file to bring it back
    pass over gone.service: the unit was destroyed, and this directory is seen for the first time; change the file to bring it back
    pass over old.service: the registry has a newer revision; change the file to publish it
    pass over other.service: the registry has another content, and this directory is seen for the first time; change the file to publish it
    adopt same.service: the registry has this content
    publish new.service: its file appeared
    ");
    // A person puts a file into a directory that is at work.
    let at_work = World::new()
        .file("other.service", file("never seen"))
        .registry("other.service", "1", &[])
        .file("gone.service", file("1"))
        .destroyed("gone.service", &["1"]);
    assert_eq!(
        at_work.says(),
        "publish gone.service: its file appeared\npublish other.service: its file appeared"
    );
}

#[test]
fn a_file_whose_content_does_not_run_is_named() {
    let mut last = Last {
        content: fingerprint("1"),
        stale: false,
        why: None,
    };
    assert_eq!(lost(&last, Some(&fingerprint("1"))), None);
    let another = lost(&last, Some(&fingerprint("2"))).expect("named");
    assert!(another.starts_with("the registry has another content"));
    let gone = lost(&last, None).expect("named");
    assert!(gone.starts_with("the unit was destroyed"));
    last.stale = true;
    assert_eq!(lost(&last, None), None);
}

#[test]
fn contents_are_remembered_when_their_revisions_are_gone() {
    let mut seen = SeenRecord::default();
    for content in 0..=SEEN_MAX {
        seen = seen.with([fingerprint(&content.to_string()), fingerprint("newest")]);
    }
    assert_eq!(seen.contents.len(), SEEN_MAX);
    assert!(seen.contents.contains(&fingerprint(&SEEN_MAX.to_string())));
    assert!(!seen.contents.contains(&fingerprint("0")));
}

#[test]
fn a_unit_that_another_of_the_directory_starts_is_loaded() {
    let timer = |text: &str| file(&format!("[Timer]\nOnCalendar=daily\n{text}"));
    for (files, targets) in [
        (
            vec![("b.timer", timer("")), ("b.service", file("1"))],
            "b.service loaded, b.timer launched",
        ),
        (
            vec![
                ("b.timer", timer("Unit=n.service")),
                ("n.service", file("1")),
                ("b.service", file("1")),
            ],
            "n.service loaded, b.service launched, b.timer launched",
        ),
        (
            vec![
                ("s.socket", file("[Socket]\nService=%p-main.service")),
                ("s-main.service", file("1")),
            ],
            "s-main.service loaded, s.socket launched",
        ),
        (
            vec![
                ("p.path", file("[Path]\nPathExists=/x")),
                ("p.service", file("1")),
            ],
            "p.service loaded, p.path launched",
        ),
        (
            vec![("srv.automount", file("1")), ("srv.mount", file("1"))],
            "srv.mount loaded, srv.automount launched",
        ),
        (
            vec![
                ("b.timer", File::Skipped("being written")),
                ("b.service", file("1")),
            ],
            "b.service loaded",
        ),
        (
            vec![
                ("b.timer", timer("")),
                ("b.service", file("[X-Fleet]\nTarget=launched")),
            ],
            "b.service launched, b.timer launched",
        ),
        (
            vec![
                ("alone.service", file("[X-Fleet]\nTarget=loaded")),
                ("z.timer", timer("")),
                ("x@.service", file("1")),
            ],
            "alone.service loaded, x@.service loaded, z.timer launched",
        ),
    ] {
        let mut world = World::new();
        for (name, file) in files {
            world = world.file(name, file);
        }
        assert_eq!(world.targets(), targets);
    }
}

#[test]
fn rolled_back_content_is_not_published_again() {
    const LATE: &str = "pass over a.service: the fleet went back from this revision; change the file, or try it \
         again with fleetctl start --replace";
    // Revision 2 was rolled back to 1. The directory that published it has nothing to do,
    let bad = |world: World| {
        world
            .registry("a.service", "1", &[])
            .rolled_back("a.service", "2")
    };
    let publisher = World::new()
        .published("a.service", "2")
        .file("a.service", file("2"));
    assert_eq!(bad(publisher).says(), "");
    // one that gets the file late does not try it again, nor does one that is new,
    let late = World::new()
        .published("a.service", "1")
        .file("a.service", file("2"));
    assert_eq!(bad(late).says(), LATE);
    let new = World::new().file("a.service", file("2"));
    assert_eq!(bad(new).says(), LATE);
    // and a mended file is published.
    let mended = World::new()
        .published("a.service", "2")
        .file("a.service", file("3"));
    assert_eq!(bad(mended).says(), "publish a.service: its file changed");
}

#[test]
fn last_trial_of_a_content_decides_whether_it_is_bad() {
    let revision = |number, content: &str| Revision {
        number,
        at: 0,
        content: Content::from(content),
        restarts: 0,
    };
    let past = |number, content, dropped: Option<&str>| {
        let dropped = dropped.map(str::to_owned);
        (
            number,
            Past {
                revision: revision(number, content),
                dropped,
            },
        )
    };
    let record = UnitRecord {
        target: TargetState::Launched,
        stable: revision(9, "stable"),
        candidate: None,
        last: None,
        owners: BTreeSet::new(),
    };
    let history = BTreeMap::from([
        past(1, "once bad", Some("failed on 190c6f8f")),
        past(2, "once bad", None),
        past(3, "bad now", None),
        past(4, "bad now", Some("failed on 190c6f8f")),
        (5, Past::replaced(revision(5, "never judged"), 6)),
        past(6, "stable", Some("failed on 190c6f8f")),
    ]);
    let known = Known::of(&record, &history, &SeenRecord::default());
    assert_eq!(known.newest, Some(fingerprint("stable")));
    let older = ["once bad", "bad now", "never judged"].map(fingerprint);
    assert_eq!(known.older, BTreeSet::from(older));
    assert_eq!(known.rolled_back, BTreeSet::from([fingerprint("bad now")]));
}

#[test]
fn a_late_copy_is_stale_but_going_back_on_purpose_is_not() {
    let back = |published| {
        World::new()
            .published("a.service", published)
            .file("a.service", file("1"))
    };
    assert!(
        back("0")
            .registry("a.service", "2", &["1", "0"])
            .says()
            .starts_with("pass over")
    );
    assert_eq!(
        back("2").registry("a.service", "2", &["1"]).says(),
        "publish a.service: its file changed"
    );
}
