//! Laws that hold for every plan.

use proptest::prelude::*;

use super::*;

/// Carries a plan out on paper, as a systemd without failures would.
fn carry_out(
    plan: &Plan,
    desired: &BTreeMap<UnitName, Desired>,
    observed: &mut BTreeMap<UnitName, Observed>,
) {
    for task in &plan.tasks {
        let Some(unit) = &task.unit else {
            for (_, seen) in observed.iter_mut().filter(|(_, seen)| seen.file.is_none()) {
                seen.state.load = "not-found".to_owned();
                if let Some(mark) = &mut seen.mark {
                    mark.unread = false;
                }
            }
            continue;
        };
        let seen = observed.entry(unit.clone()).or_insert_with(unseen);
        match &task.action {
            Action::Remove => {
                (seen.file, seen.linked) = (None, false);
                seen.state = State::not_found();
            }
            Action::Forget => {
                observed.remove(unit);
            }
            Action::Note => {
                if let Some(mark) = &mut seen.mark {
                    let want = &desired[unit];
                    mark.revision = want.revision;
                    if mark.launched.is_some() {
                        mark.launched = Some(want.process.clone());
                    }
                }
            }
            Action::Write(content) => seen.file = Some(content.clone()),
            Action::Link(_) => {
                seen.state.load = "loaded".to_owned();
                seen.linked = true;
                let launched = seen.mark.take().and_then(|mark| mark.launched);
                seen.mark = Some(Mark {
                    revision: desired[unit].revision,
                    launched,
                    installed: desired[unit].install,
                    unread: false,
                    ..Mark::default()
                });
            }
            Action::Reload => {}
            Action::Stop => {
                seen.state = state("inactive", None);
                if let Some(mark) = &mut seen.mark {
                    mark.launched = None;
                }
            }
            Action::Restart | Action::Listen | Action::Start => {
                seen.state = state("active", None);
                if let Some(mark) = &mut seen.mark {
                    mark.launched = Some(desired[unit].process.clone());
                }
            }
        }
    }
}

fn units() -> impl Strategy<Value = UnitName> {
    prop::sample::select(vec!["a.service", "b.timer", "c@1.service", "d.socket"]).prop_map(name)
}

fn contents() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["x", "y", "x#", "z [Install]"]).prop_map(str::to_owned)
}

fn desireds() -> impl Strategy<Value = Desired> {
    (
        1..4u64,
        contents(),
        any::<bool>(),
        prop::collection::btree_set(units(), 0..2),
    )
        .prop_map(|(revision, content, launch, excludes)| Desired {
            excludes,
            ..want(revision, &content, launch)
        })
}

fn observeds() -> impl Strategy<Value = Observed> {
    let actives = prop::sample::select(vec!["active", "inactive", "failed", "activating"]);
    let marks = prop::option::of((1..4u64, prop::option::of(contents()), any::<bool>()));
    let seen = (prop::option::of(contents()), any::<bool>(), marks, actives);
    seen.prop_map(|(file, linked, mark, active)| Observed {
        file: file.map(|text| super::file(&text)),
        linked,
        mark: mark.map(|(revision, launched, unread)| Mark {
            revision,
            launched,
            installed: true,
            unread,
            ..Mark::default()
        }),
        state: state(active, None),
        foreign: None,
        run: String::new(),
        members: BTreeSet::new(),
    })
}

proptest! {
    #[test]
    fn carrying_plans_out_comes_to_rest_with_what_was_wanted(
        desired in prop::collection::btree_map(units(), desireds(), 0..4),
        mut observed in prop::collection::btree_map(units(), observeds(), 0..4),
    ) {
        // Stop, remove, forget, start after a conflict: four plans at the most.
        for _ in 0..4 {
            let plan = plan_all(&desired, &observed);
            carry_out(&plan, &desired, &mut observed);
        }
        prop_assert_eq!(plan_all(&desired, &observed), Plan::default());
        for (name, want) in &desired {
            let file = observed[name].file.as_ref();
            prop_assert!(file.is_some_and(|file| reads_same(file, &want.content)));
        }
    }

    #[test]
    fn a_plan_is_in_order_with_one_reload_at_most(
        desired in prop::collection::btree_map(units(), desireds(), 0..4),
        observed in prop::collection::btree_map(units(), observeds(), 0..4),
    ) {
        let plan = plan_all(&desired, &observed);
        prop_assert!(plan.tasks.is_sorted_by(|a, b| (&a.action, &a.unit) <= (&b.action, &b.unit)));
        prop_assert!(plan.tasks.iter().filter(|task| task.action == Action::Reload).count() <= 1);
    }

    #[test]
    fn a_plan_for_one_unit_is_its_part_of_the_plan_for_all(
        desired in prop::collection::btree_map(units(), desireds(), 0..4),
        observed in prop::collection::btree_map(units(), observeds(), 0..4),
        unit in units(),
    ) {
        let all = plan_all(&desired, &observed);
        let own = plan([&unit], &desired, &observed);
        let of = |plan: &Plan| {
            let tasks = plan.tasks.iter().filter(|task| task.unit.as_ref() == Some(&unit));
            let tasks: Vec<Task> = tasks.cloned().collect();
            (tasks, plan.waits.get(&unit).cloned(), plan.refused.get(&unit).cloned())
        };
        prop_assert_eq!(of(&own), of(&all));
        prop_assert!(own.tasks.iter().all(|task| task.unit.as_ref().is_none_or(|it| *it == unit)));
    }
}
