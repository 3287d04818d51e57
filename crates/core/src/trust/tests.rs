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

fn identity(cluster: Option<(&str, u64)>, revision: u64) -> Identity {
    Identity {
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

fn accepts(identity: Identity, from: &str, cluster: &str, at: u64, written: u64) -> Identity {
    let record = AcceptanceRecord {
        from: from.to_owned(),
        cluster: cluster.to_owned(),
        at,
        by: "somebody".to_owned(),
    };
    Identity {
        acceptance: Some((record, written)),
        ..identity
    }
}

/// `obey`, `new`, or the beginning of the reason why not.
fn verdict(memory: &Memory, identity: &Identity) -> String {
    match judge(memory, identity) {
        Judgement::Obey(_) => "obey".to_owned(),
        Judgement::New { .. } => "new".to_owned(),
        Judgement::Hold { reason, .. } => reason,
    }
}

/// By what machines say of themselves, say: all of them do so when they reach it.
#[test]
fn backup_grown_past_what_was_seen_is_still_a_backup() {
    let ours = Memory::Of(seen());
    let lacks = |instructed| Identity {
        instructed: Some(instructed),
        ..identity(Some(("c1", 5)), 200)
    };
    let held = verdict(&ours, &lacks(89));
    assert!(held.contains("older than revision 90"), "{held}");
    for instructed in [90, 150] {
        assert_eq!(verdict(&ours, &lacks(instructed)), "obey");
    }
    let Judgement::Obey(seen) = judge(&ours, &lacks(150)) else {
        panic!("held")
    };
    assert_eq!(seen.instructed, 150);
}

#[test]
fn known_registry_that_moves_forward_is_obeyed() {
    let ours = || Memory::Of(seen());
    let upgraded = Memory::Of(Seen { made: 0, ..seen() });
    for (memory, identity, expected) in [
        (Memory::Never, identity(None, 3), "new"),
        (Memory::Never, identity(Some(("c1", 5)), 7), "obey"),
        (
            Memory::Lost(LOST.to_owned()),
            identity(Some(("c1", 5)), 700),
            "desired.json and seen.json",
        ),
        (
            Memory::Lost(LOST.to_owned()),
            identity(None, 700),
            "desired.json and seen.json",
        ),
        (ours(), identity(Some(("c1", 5)), 100), "obey"),
        (ours(), identity(Some(("c1", 5)), 120), "obey"),
        (upgraded, identity(Some(("c1", 5)), 120), "obey"),
        (ours(), identity(None, 200), "the registry is empty"),
        (ours(), identity(None, 2), "the registry is empty"),
        (
            ours(),
            identity(Some(("c2", 5)), 200),
            "the registry is of cluster c2",
        ),
        (
            ours(),
            identity(Some(("c1", 5)), 99),
            "the registry was restored",
        ),
        (
            ours(),
            identity(Some(("c1", 150)), 200),
            "the registry was wiped and filled again",
        ),
    ] {
        let told = verdict(&memory, &identity);
        assert!(
            told.starts_with(expected),
            "{memory:?} {identity:?}: {told}"
        );
    }
}

#[test]
fn an_id_that_cannot_be_read_is_no_empty_registry() {
    let damaged = Identity {
        cluster: ClusterKey::Unreadable("newer".to_owned()),
        ..identity(None, 200)
    };
    for memory in [Memory::Never, Memory::Of(seen())] {
        let told = verdict(&memory, &damaged);
        assert!(told.contains("cannot be read: newer"), "{told}");
    }
}

#[test]
fn restored_registry_stays_held_however_far_it_grows() {
    let Judgement::Hold { seen, .. } = judge(&Memory::Of(seen()), &identity(Some(("c1", 5)), 99))
    else {
        panic!("obeyed")
    };
    let memory = Memory::Of(seen.expect("it was seen"));
    assert!(verdict(&memory, &identity(Some(("c1", 5)), 5_000)).contains("restored"));
}

#[test]
fn another_registry_that_is_older_says_nothing_of_its_own() {
    let Judgement::Hold { seen, .. } = judge(&Memory::Of(seen()), &identity(Some(("c2", 5)), 9))
    else {
        panic!("obeyed")
    };
    let memory = Memory::Of(seen.expect("it was seen"));
    assert_eq!(verdict(&memory, &identity(Some(("c1", 5)), 120)), "obey");
}

#[test]
fn acceptance_counts_once_for_its_machines_where_written() {
    let restored = Memory::Of(Seen {
        restored: true,
        ..seen()
    });
    let ours = Memory::Of(seen());
    let c2 = || identity(Some(("c2", 1)), 50);
    for (memory, identity, counts) in [
        (&ours, accepts(c2(), "c1", "c2", 11, 50), true),
        (&ours, accepts(c2(), "c9", "c2", 11, 50), false),
        (&ours, accepts(c2(), "c1", "c3", 11, 50), false),
        (&ours, accepts(c2(), "c1", "c2", 10, 50), false),
        (&ours, accepts(c2(), "c1", "c2", 11, 51), false),
        (
            &ours,
            accepts(identity(None, 50), "c1", "c2", 11, 50),
            false,
        ),
        (
            &restored,
            accepts(identity(Some(("c1", 5)), 90), "c1", "c1", 11, 90),
            true,
        ),
        (
            &restored,
            accepts(identity(Some(("c1", 5)), 90), "c1", "c1", 10, 40),
            false,
        ),
    ] {
        let told = verdict(memory, &identity);
        assert_eq!(told == "obey", counts, "{identity:?}: {told}");
    }
    let Judgement::Obey(now) = judge(&ours, &accepts(c2(), "c1", "c2", 11, 50)) else {
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
    let with = accepts(identity(Some(("c1", 5)), 120), "c0", "c1", 44, 110);
    for memory in [Memory::Never, Memory::Of(seen())] {
        let Judgement::Obey(now) = judge(&memory, &with) else {
            panic!("held")
        };
        assert_eq!(now.accepted, 44);
    }
}

#[test]
fn no_acceptance_keeps_later_ones_from_counting() {
    let c2 = || identity(Some(("c2", 1)), 50);
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
        // Some have seen it in a registry that they follow, and some belong to the one that it
        // accepts.
        let seen_in = |id: &str, memory: Memory| {
            let identity = accepts(identity(Some((id, 5)), 120), "c0", id, at, 110);
            match judge(&memory, &identity) {
                Judgement::Obey(seen) => seen,
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
                let accepted = Identity {
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
    let old = accepts(identity(Some(("c2", 1)), 50), "c9", "c2", 30, 40);
    let record = accept(&ours, &old, "c2", "me", 20, "new").expect("accepted");
    assert_eq!(
        (record.from.as_str(), record.cluster.as_str()),
        ("c1", "c2")
    );
    assert_eq!(record.at, 31);
    let empty = accept(&ours, &identity(None, 2), "", "me", 20, "new").expect("accepted");
    assert_eq!((empty.cluster.as_str(), empty.at), ("new", 20));
    let followed = Trust {
        footing: Footing::Followed,
        ..ours.clone()
    };
    let refused = |trust: &Trust, identity: &Identity, shown| {
        accept(trust, identity, shown, "me", 20, "new").expect_err("refused")
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
    let mut newer = Identity { ..old.clone() };
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
