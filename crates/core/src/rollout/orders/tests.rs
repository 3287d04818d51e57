//! Each order as a statement, and the laws that hold for all of them together with submissions.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::machine::MachineId;
use crate::record::{HISTORY_KEPT, Outcome, Owner};
use crate::rollout::surplus;
use crate::submission::{Submission, Submitted, submit};
use crate::unit::Content;

fn unit() -> UnitName {
    UnitName::parse("web.service").expect("valid")
}

fn revision(number: u64, program: &str) -> Revision {
    Revision {
        number,
        at: 1_700_000_000_000,
        content: Content::from(format!("[Service]\nExecStart=/{program}\n").as_str()),
        restarts: 0,
    }
}

/// A unit with its history, and what becomes of them.
#[derive(Clone, Debug)]
struct World {
    record: UnitRecord,
    history: BTreeMap<u64, Past>,
}

/// Revision 1 with program `a` and 2 with `b` were stable before 4 with `d`; 3 with `c` was rolled
/// back.
fn stable() -> World {
    let past = |revision: Revision, dropped: Option<&str>| {
        let dropped = dropped.map(str::to_owned);
        (revision.number, Past { revision, dropped })
    };
    World {
        record: UnitRecord {
            target: TargetState::Launched,
            stable: revision(4, "d"),
            candidate: None,
            last: None,
            owners: BTreeSet::from([Owner::Api]),
        },
        history: BTreeMap::from([
            past(revision(1, "a"), None),
            past(revision(2, "b"), None),
            past(revision(3, "c"), Some("failed on 190c6f8f")),
        ]),
    }
}

/// The same with candidate 5 with program `e`.
fn rolling(phase: Phase, reason: &str) -> World {
    let mut world = stable();
    world.record.candidate = Some(Candidate {
        revision: revision(5, "e"),
        phase,
        reason: reason.to_owned(),
        since: 0,
        failed_on: BTreeSet::from([MachineId::parse(&"a".repeat(32)).expect("valid")]),
    });
    world
}

impl World {
    fn order(&self, order: Order) -> Result<Succession> {
        follow(order, &unit(), &self.record, &self.history, "the API", 9)
    }

    /// Returns the effect of an order, or why it is refused.
    fn says(&self, order: Order) -> String {
        match self.order(order) {
            Ok(Succession { record, retired }) => {
                let program = |revision: &Revision| {
                    let text = revision.content.to_text().trim().to_owned();
                    let program = text.rsplit('/').next().unwrap_or("").to_owned();
                    format!("{} ({program}+{})", revision.number, revision.restarts)
                };
                let candidate = record.candidate.as_ref().map(|it| {
                    let at = it.phase.as_str();
                    format!(", candidate {} {at} {:?}", program(&it.revision), it.reason)
                });
                let retired = retired.iter().map(|past| past.revision.number);
                format!(
                    "stable {}{}, retired {:?}",
                    program(&record.stable),
                    candidate.unwrap_or_default(),
                    retired.collect::<Vec<_>>()
                )
            }
            Err(error) => format!("refused: {error}"),
        }
    }
}

#[test]
fn pause_and_resume_turn_a_rollout_and_forgive_where_it_failed() {
    let going = rolling(Phase::Rolling, "");
    let paused = rolling(Phase::Paused, "failed on aaaaaaaa");
    insta::assert_snapshot!(going.says(Order::Pause), @r#"stable 4 (d+0), candidate 5 (e+0) paused "paused by the API", retired []"#);
    insta::assert_snapshot!(paused.says(Order::Resume), @r#"stable 4 (d+0), candidate 5 (e+0) rolling "resumed by the API", retired []"#);
    let resumed = paused.order(Order::Resume).expect("resumed").record;
    let failed_on = |record: &UnitRecord| record.candidate.as_ref().map(|it| it.failed_on.clone());
    assert_eq!(failed_on(&resumed), failed_on(&paused.record));
}

#[test]
fn what_cannot_be_paused_or_resumed_says_what_stands() {
    let going = rolling(Phase::Rolling, "");
    let paused = rolling(Phase::Paused, "failed on aaaaaaaa");
    let back = rolling(Phase::RollingBack, "failed on aaaaaaaa");
    insta::assert_snapshot!(stable().says(Order::Pause), @"refused: unit web.service has no rollout in progress; its revision 4 is stable since 2023-11-14 22:13:20 UTC");
    insta::assert_snapshot!(stable().says(Order::Resume), @"refused: unit web.service has no rollout in progress; its revision 4 is stable since 2023-11-14 22:13:20 UTC");
    insta::assert_snapshot!(paused.says(Order::Pause), @"refused: the rollout of unit web.service to revision 5 is paused already (failed on aaaaaaaa); to go on: fleetctl rollout resume web.service");
    insta::assert_snapshot!(going.says(Order::Resume), @"refused: the rollout of unit web.service to revision 5 is not paused: it goes on by itself");
    for order in [
        Order::Pause,
        Order::Resume,
        Order::Undo(None),
        Order::Restart,
    ] {
        assert_eq!(
            back.says(order),
            "refused: the rollout of unit web.service to revision 5 goes back to revision 4 (failed on aaaaaaaa); \
             once it is back, submit the unit again"
        );
    }
}

#[test]
fn a_stable_revision_counts_from_its_promotion() {
    let mut world = stable();
    world.record.last = Some(Outcome {
        revision: 4,
        ended: Ended::Done,
        reason: "done".into(),
        at: u64::MAX,
    });
    insta::assert_snapshot!(world.says(Order::Pause), @"refused: unit web.service has no rollout in progress; its revision 4 is stable since an unknown time");
}

#[test]
fn undo_takes_a_candidate_back() {
    for phase in [Phase::Rolling, Phase::Paused] {
        let going = rolling(phase, "why");
        let back =
            r#"stable 4 (d+0), candidate 5 (e+0) rolling-back "undone by the API", retired []"#;
        assert_eq!(going.says(Order::Undo(None)), back);
        assert_eq!(going.says(Order::Undo(Some(4))), back);
    }
}

#[test]
fn undo_of_a_stable_revision_rolls_out_the_stable_one_before() {
    insta::assert_snapshot!(stable().says(Order::Undo(None)), @r#"stable 4 (d+0), candidate 5 (b+0) rolling "", retired []"#);
    // A restart is no change to take back.
    let mut restarted = stable();
    let before = Past {
        revision: restarted.record.stable.clone(),
        dropped: None,
    };
    restarted.history.insert(4, before);
    restarted.record.stable = Revision {
        number: 5,
        restarts: 1,
        ..restarted.record.stable
    };
    insta::assert_snapshot!(restarted.says(Order::Undo(None)), @r#"stable 5 (d+1), candidate 6 (b+1) rolling "", retired []"#);
}

#[test]
fn undo_to_a_revision_takes_that_one_even_if_it_was_rolled_back() {
    insta::assert_snapshot!(stable().says(Order::Undo(Some(3))), @r#"stable 4 (d+0), candidate 5 (c+0) rolling "", retired []"#);
    insta::assert_snapshot!(rolling(Phase::Rolling, "").says(Order::Undo(Some(1))), @r#"stable 4 (d+0), candidate 6 (a+0) rolling "", retired [5]"#);
    insta::assert_snapshot!(rolling(Phase::RollingBack, "failed").says(Order::Undo(Some(5))), @r#"stable 4 (d+0), candidate 6 (e+0) rolling "", retired [5]"#);
}

#[test]
fn undo_to_what_is_not_there_names_what_is() {
    insta::assert_snapshot!(stable().says(Order::Undo(Some(9))), @"refused: unit web.service has no revision 9 to go back to; its history has 1, 2, 3 (rolled back)");
    let mut world = stable();
    world.history.clear();
    insta::assert_snapshot!(world.says(Order::Undo(None)), @"refused: unit web.service has no revision before 4 to go back to; its history is empty");
}

#[test]
fn undo_to_what_is_wanted_already_is_refused() {
    insta::assert_snapshot!(stable().says(Order::Undo(Some(4))), @"refused: unit web.service: revision 4 is stable already");
    insta::assert_snapshot!(rolling(Phase::Paused, "").says(Order::Undo(Some(5))), @"refused: unit web.service: revision 5 is being rolled out already");
    insta::assert_snapshot!(rolling(Phase::RollingBack, "").says(Order::Undo(Some(4))), @"refused: unit web.service: revision 4 is where its machines are going back to already");
    let mut world = stable();
    let same = Past {
        revision: revision(2, "d"),
        dropped: None,
    };
    world.history.insert(2, same);
    insta::assert_snapshot!(world.says(Order::Undo(Some(2))), @"refused: unit web.service: revision 2 is what revision 4 has, which is stable");
}

#[test]
fn a_restart_is_a_revision_of_the_same_content() {
    insta::assert_snapshot!(stable().says(Order::Restart), @r#"stable 4 (d+0), candidate 5 (d+5) rolling "", retired []"#);
    insta::assert_snapshot!(rolling(Phase::Rolling, "").says(Order::Restart), @r#"stable 4 (d+0), candidate 6 (e+6) rolling "", retired [5]"#);
    insta::assert_snapshot!(rolling(Phase::Paused, "by hand").says(Order::Restart), @"refused: the rollout of unit web.service to revision 5 is paused (by hand); first: fleetctl rollout resume web.service, or fleetctl rollout undo web.service");
}

#[test]
fn undo_of_unlaunched_unit_is_stable_at_once() {
    let mut world = stable();
    world.record.target = TargetState::Loaded;
    insta::assert_snapshot!(world.says(Order::Undo(None)), @"stable 5 (b+0), retired [4]");
    insta::assert_snapshot!(world.says(Order::Restart), @"refused: unit web.service is loaded, so there is nothing to restart; to launch it: fleetctl start web.service");
}

/// One thing that happens to a unit.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Submit(&'static str, Option<TargetState>),
    Order(Order),
    Promoted,
    WentBack,
}

fn happens() -> impl Strategy<Value = Happens> {
    let target = prop::option::of(prop::sample::select(vec![
        TargetState::Inactive,
        TargetState::Loaded,
        TargetState::Launched,
    ]));
    let order = prop_oneof![
        Just(Order::Pause),
        Just(Order::Resume),
        Just(Order::Undo(None)),
        (1..12u64).prop_map(|number| Order::Undo(Some(number))),
        Just(Order::Restart),
    ];
    prop_oneof![
        3 => (prop::sample::select(vec!["a", "b", "c"]), target)
            .prop_map(|(program, target)| Happens::Submit(program, target)),
        4 => order.prop_map(Happens::Order),
        1 => Just(Happens::Promoted),
        1 => Just(Happens::WentBack),
    ]
}

impl World {
    /// What the leader does when a rollout is over.
    fn end(&self, ended: Ended) -> Option<Succession> {
        let mut record = self.record.clone();
        let candidate = record.candidate.take()?;
        let goes = match ended {
            Ended::Done => std::mem::replace(&mut record.stable, candidate.revision.clone()),
            Ended::RolledBack => candidate.revision.clone(),
        };
        record.last = Some(Outcome {
            revision: candidate.revision.number,
            ended,
            reason: String::new(),
            at: 0,
        });
        let dropped = (ended == Ended::RolledBack).then(|| "failed".to_owned());
        let retired = vec![Past {
            revision: goes,
            dropped,
        }];
        Some(Succession { record, retired })
    }

    fn after(&self, happens: Happens) -> Option<Succession> {
        match happens {
            Happens::Submit(program, target) => {
                let submitted = Submitted {
                    content: revision(0, program).content,
                    owner: Owner::Api,
                    target,
                    now: 0,
                };
                match submit(&unit(), Some(&self.record), submitted) {
                    Submission::Updated { record, retired } => Some(Succession { record, retired }),
                    Submission::Adopted(record) => Some(Succession {
                        record,
                        retired: Vec::new(),
                    }),
                    _ => None,
                }
            }
            Happens::Order(order) => self.order(order).ok(),
            Happens::Promoted => self.end(Ended::Done),
            Happens::WentBack => self.end(Ended::RolledBack),
        }
    }

    fn revisions(&self) -> BTreeMap<u64, Revision> {
        let candidate = self.record.candidate.iter().map(|it| &it.revision);
        let past = self.history.values().map(|past| &past.revision);
        let all = candidate.chain([&self.record.stable]).chain(past);
        all.map(|revision| (revision.number, revision.clone()))
            .collect()
    }
}

proptest! {
    #[test]
    fn no_revision_is_lost_and_no_number_comes_twice(all in prop::collection::vec(happens(), 1..40)) {
        let mut world = stable();
        let mut highest = 4;
        let mut gone = BTreeSet::new();
        for happens in all {
            let Some(Succession { record, retired }) = world.after(happens) else { continue };
            let before = world.revisions();
            let kept: BTreeMap<u64, bool> =
                world.history.iter().map(|(number, past)| (*number, past.dropped.is_none())).collect();
            for past in &retired {
                prop_assert!(world.history.insert(past.revision.number, past.clone()).is_none());
            }
            // What is kept is bounded, and what an undo would go back to is never what goes.
            let surplus = surplus(&kept, &retired);
            let last_stable = |history: &BTreeMap<u64, Past>| {
                history.iter().rfind(|(_, past)| past.dropped.is_none()).map(|(number, _)| *number)
            };
            let undo_goes_to = last_stable(&world.history);
            for number in &surplus {
                world.history.remove(number);
                gone.insert(*number);
            }
            prop_assert_eq!(last_stable(&world.history), undo_goes_to);
            prop_assert!(world.history.len() <= HISTORY_KEPT);
            world.record = record;
            let after = world.revisions();
            for (number, revision) in before {
                prop_assert!(gone.contains(&number) || after.get(&number) == Some(&revision), "{} is lost", number);
            }
            for number in after.keys() {
                prop_assert!(!gone.contains(number), "{} came back", number);
            }
            let newest = *after.keys().next_back().expect("a revision");
            prop_assert!(newest >= highest);
            highest = newest.max(highest);
            prop_assert!(world.record.next_number() > highest);
        }
    }
}
