//! Directories and files that are not in order, and laws about all of them.

use proptest::prelude::*;

use super::*;

#[test]
fn a_file_that_cannot_be_used_leaves_its_unit_alone() {
    for (bad, said) in [
        (file("local"), "problem a.service: not global"),
        (
            File::Content(Content::from(vec![b'#'; CONTENT_MAX + 1])),
            "problem a.service: too large: a unit file has at most 524288 bytes",
        ),
        (
            File::Unreadable("no such file".to_owned()),
            "problem a.service: cannot be read: no such file",
        ),
        (
            File::Skipped("still being written"),
            "note a.service: still being written",
        ),
        (
            File::Directory,
            "note a.service: a directory; only files are published",
        ),
    ] {
        let world = World::new()
            .published("a.service", "1")
            .file("a.service", bad);
        assert_eq!(world.says(), said);
    }
}

#[test]
fn one_bad_file_does_not_stop_the_others() {
    let world = World::new()
        .file("a.service", file("local"))
        .file("b.service", file("1"));
    assert_eq!(
        world.says(),
        "publish b.service: its file appeared\nproblem a.service: not global"
    );
}

#[test]
fn what_editors_leave_is_ignored_and_other_names_are_reported() {
    let mut world = World::new();
    for entry in [
        ".a.service.swp",
        ".#a.service",
        "a.service~",
        "#a.service#",
        "4913",
        ".hidden",
    ] {
        world = world.file(entry, file("1"));
    }
    assert_eq!(world.says(), "");
    let world = World::new()
        .file("README", file(""))
        .file("web.servce", file(""))
        .file("web.service.d", File::Directory);
    assert_eq!(
        world.says(),
        "problem README: not a unit file: unit name \"README\" must be of the form NAME.TYPE; rename or move it\n\
         problem web.servce: not a unit file: invalid unit type: \"servce\"; rename or move it\n\
         note web.service.d: a directory; only files are published"
    );
}

#[test]
fn a_directory_that_is_not_in_order_is_held() {
    let world = || World::new().published("a.service", "1");
    let held = |directory| match decide(&world().published, &directory, &BTreeMap::new(), check) {
        Decision::Held(held) => held.to_string(),
        act => format!("{act:?}"),
    };
    assert_eq!(
        held(Directory::Missing),
        "is missing; put it back. Until then its units are kept as they are"
    );
    assert_eq!(
        held(Directory::Unreadable("permission denied".into())),
        "cannot be listed: permission denied. Until then its units are kept as they are"
    );
    assert_eq!(
        world().file("b.service", file("1")).unmarked().says(),
        "held: has lost its marker; if this is the right directory, make the file .fleet in it. Until then its units are kept as they are"
    );
}

#[test]
fn a_directory_that_never_published_may_be_missing_or_unmarked() {
    let act = decide(
        &Published::default(),
        &Directory::Missing,
        &BTreeMap::new(),
        check,
    );
    assert!(matches!(act, Decision::Act { actions, .. } if actions.is_empty()));
    for was_marked in [false, true] {
        let mut world = World::new().file("a.service", file("1")).unmarked();
        world.published.marked = was_marked;
        assert_eq!(world.says(), "publish a.service: its file appeared");
    }
}

#[test]
fn a_directory_that_could_never_be_marked_is_not_held_for_it() {
    let mut world = World::new()
        .published("a.service", "1")
        .file("a.service", file("1"))
        .unmarked();
    world.published.marked = false;
    assert_eq!(world.says(), "");
}

#[test]
fn all_of_two_units_gone_at_once_is_an_accident() {
    let one = World::new().published("a.service", "1");
    assert_eq!(one.says(), "disown a.service: its file is gone");
    let two = || {
        World::new()
            .published("a.service", "1")
            .published("b.service", "1")
            .registry("b.service", "1", &[])
    };
    assert_eq!(
        two().file("README", file("")).says(),
        "held: had 2 unit files and has none now; put them back, or destroy the units with fleetctl. Until then its units are kept as they are"
    );
    assert_eq!(
        two().file("c.service", file("local")).says(),
        "disown a.service: its file is gone\ndisown b.service: its file is gone\nproblem c.service: not global"
    );
}

#[test]
fn emptied_directory_of_destroyed_units_holds_nothing() {
    let world = World::new()
        .published("a.service", "1")
        .published("b.service", "1");
    assert_eq!(
        world.says(),
        "disown a.service: its file is gone\ndisown b.service: its file is gone"
    );
}

fn any_file() -> impl Strategy<Value = File> {
    prop_oneof![
        5 => "[0-3]".prop_map(|text| file(&text)),
        1 => Just(file("local")),
        1 => Just(File::Skipped("still being written")),
        1 => Just(File::Directory),
        1 => Just(File::Unreadable("gone".to_owned())),
    ]
}

fn any_world() -> impl Strategy<Value = World> {
    let entry = "[a-d]@?\\.service|\\.fleet|README";
    let unit = "[a-d]@?\\.service";
    (
        proptest::collection::btree_map(unit, ("[0-3]", any::<bool>()), 0..5),
        proptest::collection::btree_map(entry, any_file(), 0..5),
        proptest::collection::btree_map(
            unit,
            ("[0-3]", proptest::collection::vec("[0-3]", 0..3)),
            0..5,
        ),
        any::<(bool, bool)>(),
    )
        .prop_map(|(published, files, known, (was_marked, marked))| {
            let mut world = World {
                files,
                marked,
                ..World::default()
            };
            for (unit, (content, stale)) in published {
                world = world.published(&unit, &content);
                let last = world
                    .published
                    .units
                    .get_mut(&name(&unit))
                    .expect("just made");
                last.stale = stale;
            }
            world.published.marked = was_marked;
            for (unit, (newest, older)) in known {
                let older: Vec<_> = older.iter().map(String::as_str).collect();
                world = world.registry(&unit, &newest, &older);
            }
            world
        })
}

/// Applies an action to a registry, with one directory as the only owner.
fn apply(known: &mut BTreeMap<UnitName, Known>, action: &Action) {
    match action {
        Action::Disown(name) => drop(known.remove(name)),
        Action::Adopt(..) | Action::PassOver(..) => {}
        Action::Publish { name, content, .. } => {
            let newest = Fingerprint::of(content);
            let mut older = BTreeSet::new();
            if let Some(before) = known.remove(name) {
                older = before.older;
                older.extend(before.newest);
            }
            let known_now = Known {
                newest: Some(newest),
                older,
                rolled_back: BTreeSet::new(),
            };
            known.insert(name.clone(), known_now);
        }
    }
}

proptest! {
    #[test]
    fn what_was_done_is_not_done_again(mut world in any_world()) {
        if let Decision::Act { actions, .. } = world.decide() {
            for action in &actions {
                world.published.apply(action);
                apply(&mut world.known, action);
            }
            world.marked = true;
            match world.decide() {
                Decision::Act { actions, .. } => prop_assert_eq!(actions, []),
                Decision::Held(held) => prop_assert!(false, "held: {}", held),
            }
        }
    }

    #[test]
    fn only_units_whose_file_is_positively_gone_are_disowned(world in any_world()) {
        if let Decision::Act { actions, .. } = world.decide() {
            prop_assert!(world.marked || !world.published.marked || world.published.units.is_empty());
            for action in actions {
                if let Action::Disown(name) = action {
                    prop_assert!(!world.files.contains_key(name.as_str()));
                    prop_assert!(world.published.units.contains_key(&name));
                }
            }
        }
    }
}
