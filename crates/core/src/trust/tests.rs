//! Which registries are obeyed.

use super::*;

fn seen() -> Seen {
    Seen {
        cluster: "c1".to_owned(),
        made: 5,
        revision: 100,
        instructed: 90,
        restored: false,
        accepted: 10,
    }
}

fn sight(cluster: Option<(&str, u64)>, revision: u64) -> Sight {
    Sight {
        cluster: cluster.map_or(ClusterKey::Absent, |(id, made)| ClusterKey::Is {
            id: id.to_owned(),
            made,
        }),
        acceptance: None,
        newer_acceptance: None,
        revision,
        instructed: None,
    }
}

fn accepts(sight: Sight, from: &str, cluster: &str, at: u64, written: u64) -> Sight {
    let record = AcceptanceRecord {
        from: from.to_owned(),
        cluster: cluster.to_owned(),
        at,
        by: "somebody".to_owned(),
    };
    Sight {
        acceptance: Some((record, written)),
        ..sight
    }
}

/// `obey`, `new`, or the beginning of the reason why not.
fn verdict(memory: &Memory, sight: &Sight) -> String {
    match judge(memory, sight) {
        Verdict::Obey(_) => "obey".to_owned(),
        Verdict::New { .. } => "new".to_owned(),
        Verdict::Hold { reason, .. } => reason,
    }
}

/// By what machines say of themselves, say: all of them do so when they reach it.
#[test]
fn a_backup_that_has_grown_past_what_was_seen_is_a_backup_all_the_same() {
    let ours = Memory::Of(seen());
    let lacks = |instructed| Sight {
        instructed: Some(instructed),
        ..sight(Some(("c1", 5)), 200)
    };
    let held = verdict(&ours, &lacks(89));
    assert!(held.contains("older than revision 90"), "{held}");
    for instructed in [90, 150] {
        assert_eq!(verdict(&ours, &lacks(instructed)), "obey");
    }
    let Verdict::Obey(seen) = judge(&ours, &lacks(150)) else {
        panic!("held")
    };
    assert_eq!(seen.instructed, 150);
}

#[test]
fn a_registry_is_obeyed_where_it_is_the_one_that_was_seen_and_moves_forward() {
    let ours = || Memory::Of(seen());
    let upgraded = Memory::Of(Seen { made: 0, ..seen() });
    for (memory, sight, expected) in [
        (Memory::Never, sight(None, 3), "new"),
        (Memory::Never, sight(Some(("c1", 5)), 7), "obey"),
        (
            Memory::Lost(LOST.to_owned()),
            sight(Some(("c1", 5)), 700),
            "desired.json and seen.json",
        ),
        (
            Memory::Lost(LOST.to_owned()),
            sight(None, 700),
            "desired.json and seen.json",
        ),
        (ours(), sight(Some(("c1", 5)), 100), "obey"),
        (ours(), sight(Some(("c1", 5)), 120), "obey"),
        (upgraded, sight(Some(("c1", 5)), 120), "obey"),
        (ours(), sight(None, 200), "the registry is empty"),
        (ours(), sight(None, 2), "the registry is empty"),
        (
            ours(),
            sight(Some(("c2", 5)), 200),
            "the registry is of cluster c2",
        ),
        (
            ours(),
            sight(Some(("c1", 5)), 99),
            "the registry was restored",
        ),
        (
            ours(),
            sight(Some(("c1", 150)), 200),
            "the registry was wiped and filled again",
        ),
    ] {
        let told = verdict(&memory, &sight);
        assert!(told.starts_with(expected), "{memory:?} {sight:?}: {told}");
    }
}

#[test]
fn an_id_that_cannot_be_read_is_no_empty_registry() {
    let damaged = Sight {
        cluster: ClusterKey::Unreadable("newer".to_owned()),
        ..sight(None, 200)
    };
    for memory in [Memory::Never, Memory::Of(seen())] {
        let told = verdict(&memory, &damaged);
        assert!(told.contains("cannot be read: newer"), "{told}");
    }
}

#[test]
fn a_restored_registry_stays_held_when_it_has_grown_past_what_was_seen() {
    let Verdict::Hold { seen, .. } = judge(&Memory::Of(seen()), &sight(Some(("c1", 5)), 99)) else {
        panic!("obeyed")
    };
    let memory = Memory::Of(seen.expect("it was seen"));
    assert!(verdict(&memory, &sight(Some(("c1", 5)), 5_000)).contains("restored"));
}

#[test]
fn another_registry_that_is_older_says_nothing_of_its_own() {
    let Verdict::Hold { seen, .. } = judge(&Memory::Of(seen()), &sight(Some(("c2", 5)), 9)) else {
        panic!("obeyed")
    };
    let memory = Memory::Of(seen.expect("it was seen"));
    assert_eq!(verdict(&memory, &sight(Some(("c1", 5)), 120)), "obey");
}

#[test]
fn an_acceptance_counts_for_its_machines_once_and_only_where_it_was_written() {
    let restored = Memory::Of(Seen {
        restored: true,
        ..seen()
    });
    let ours = Memory::Of(seen());
    let c2 = || sight(Some(("c2", 1)), 50);
    for (memory, sight, counts) in [
        (&ours, accepts(c2(), "c1", "c2", 11, 50), true),
        (&ours, accepts(c2(), "c9", "c2", 11, 50), false),
        (&ours, accepts(c2(), "c1", "c3", 11, 50), false),
        (&ours, accepts(c2(), "c1", "c2", 10, 50), false),
        (&ours, accepts(c2(), "c1", "c2", 11, 51), false),
        (&ours, accepts(sight(None, 50), "c1", "c2", 11, 50), false),
        (
            &restored,
            accepts(sight(Some(("c1", 5)), 90), "c1", "c1", 11, 90),
            true,
        ),
        (
            &restored,
            accepts(sight(Some(("c1", 5)), 90), "c1", "c1", 10, 40),
            false,
        ),
    ] {
        let told = verdict(memory, &sight);
        assert_eq!(told == "obey", counts, "{sight:?}: {told}");
    }
    let Verdict::Obey(now) = judge(&ours, &accepts(c2(), "c1", "c2", 11, 50)) else {
        panic!("held")
    };
    assert_eq!(
        (now.cluster.as_str(), now.made, now.revision),
        ("c2", 1, 50)
    );
    assert_eq!((now.accepted, now.restored), (11, false));
}

#[test]
fn every_acceptance_that_was_seen_is_remembered() {
    let with = accepts(sight(Some(("c1", 5)), 120), "c0", "c1", 44, 110);
    for memory in [Memory::Never, Memory::Of(seen())] {
        let Verdict::Obey(now) = judge(&memory, &with) else {
            panic!("held")
        };
        assert_eq!(now.accepted, 44);
    }
}

#[test]
fn no_acceptance_keeps_later_ones_from_counting() {
    let c2 = || sight(Some(("c2", 1)), 50);
    let now = 1_800_000_000_000;
    for (at, counts) in [
        (0, false),
        (11, true),
        (u64::MAX / 2, true),
        (u64::MAX / 2 + 10, true),
        (u64::MAX / 2 + 11, false),
        (u64::MAX, false),
    ] {
        let odd = accepts(c2(), "c1", "c2", at, 50);
        let told = verdict(&Memory::Of(seen()), &odd);
        assert_eq!(told == "obey", counts, "{at}: {told}");
        // Some have seen it in a registry that they follow, and some belong to the one that it accepts.
        let seen_in = |id: &str, memory: Memory| {
            let sight = accepts(sight(Some((id, 5)), 120), "c0", id, at, 110);
            match judge(&memory, &sight) {
                Verdict::Obey(seen) => seen,
                other => panic!("{other:?}"),
            }
        };
        for memory in [
            seen(),
            seen_in("c1", Memory::Never),
            seen_in("c1", Memory::Of(seen())),
        ] {
            let trust = Trust {
                footing: Footing::Held(Held::default()),
                ..Trust::of(Memory::Of(memory.clone()))
            };
            for there in [c2(), accepts(c2(), "c9", "c2", at, 50)] {
                let record = accept(&trust, &there, "c2", "me", now, "new").expect("accepted");
                let accepted = Sight {
                    acceptance: Some((record, 50)),
                    ..there
                };
                let told = verdict(&Memory::Of(memory.clone()), &accepted);
                assert_eq!(told, "obey", "{at} {memory:?}");
            }
        }
    }
}

#[test]
fn what_is_accepted_is_what_was_shown_and_newer_than_all_before() {
    let held = |memory| Trust {
        footing: Footing::Held(Held::default()),
        ..Trust::of(memory)
    };
    let ours = held(Memory::Of(seen()));
    let old = accepts(sight(Some(("c2", 1)), 50), "c9", "c2", 30, 40);
    let record = accept(&ours, &old, "c2", "me", 20, "new").expect("accepted");
    assert_eq!(
        (record.from.as_str(), record.cluster.as_str()),
        ("c1", "c2")
    );
    assert_eq!(record.at, 31);
    let empty = accept(&ours, &sight(None, 2), "", "me", 20, "new").expect("accepted");
    assert_eq!((empty.cluster.as_str(), empty.at), ("new", 20));
    let followed = Trust {
        footing: Footing::Followed,
        ..ours.clone()
    };
    let refused = |trust: &Trust, sight: &Sight, shown| {
        accept(trust, sight, shown, "me", 20, "new").expect_err("refused")
    };
    assert_eq!(refused(&followed, &old, "c2"), NotAcceptable::Followed);
    assert!(matches!(
        refused(&ours, &old, ""),
        NotAcceptable::Changed { .. }
    ));
    let lost = held(Memory::Lost(LOST.to_owned()));
    assert!(matches!(
        refused(&lost, &old, "c2"),
        NotAcceptable::Unknown(_)
    ));
    let mut newer = Sight { ..old.clone() };
    let bytes: &[u8] = br#"{"format":2,"from":"c1"}"#;
    let taken = newer.take(crate::keys::ACCEPTANCE, Some((bytes, 1, 40)));
    assert!(matches!(taken, Some(Err(_))));
    let told = refused(&ours, &newer, "c2").to_string();
    assert!(told.contains("its format is 2"), "{told}");
    // A damaged one is nobody's.
    let taken = newer.take(crate::keys::ACCEPTANCE, Some((b"{", 1, 41)));
    assert!(matches!(taken, Some(Err(_))));
    assert!(accept(&ours, &newer, "c2", "me", 20, "new").is_ok());
    let unheard = Trust::of(Memory::Of(seen()));
    assert_eq!(refused(&unheard, &old, "c2"), NotAcceptable::Unheard);
}
