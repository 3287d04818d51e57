//! Decides how a submitted unit file changes the registry.

use std::collections::BTreeSet;

use crate::machine::MachineId;
use crate::record::{Owner, Past, Revision, UnitRecord};
use crate::rollout::{Succession, succeed};
use crate::unit::{Content, FleetOptions, TargetState, UnitFile, UnitName, UpdateStrategy};

/// The effect of a submitted file on its unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submission {
    /// The unit did not exist.
    Created(UnitRecord),
    /// The unit has a new revision: a candidate, or stable at once if it restarts nothing.
    Updated {
        /// The record to write.
        record: UnitRecord,
        /// The revisions that it replaces.
        retired: Vec<Past>,
    },
    /// The content stays; the owners or the target state change.
    Adopted(UnitRecord),
    /// Nothing needs to be written.
    Unchanged,
}

/// A unit file on its way into the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The file.
    pub content: Content,
    /// The owner that submits it.
    pub owner: Owner,
    /// The target state to set. `None` keeps the current one (`inactive` for a new unit).
    pub target: Option<TargetState>,
    /// The time, in milliseconds since 1970.
    pub now: u64,
}

/// The error for an update that replaces a revision that is no longer the newest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Outdated {
    /// Another revision followed.
    #[error(
        "unit {name}: the update replaces revision {replaces}, but revision {newest} is the newest; \
         `fleetctl diff` shows the difference, and --force replaces it anyway"
    )]
    Followed {
        /// The unit.
        name: UnitName,
        /// The revision that the update replaces.
        replaces: u64,
        /// The newest revision.
        newest: u64,
    },
    /// The unit was destroyed.
    #[error("unit {name}: the update replaces revision {replaces}, but the unit was destroyed")]
    Destroyed {
        /// The unit.
        name: UnitName,
        /// The revision that the update replaces.
        replaces: u64,
    },
}

/// Checks that an update replaces the newest revision.
pub fn replaces_newest(
    name: &UnitName,
    existing: Option<&UnitRecord>,
    replaces: u64,
) -> Result<(), Outdated> {
    let name = || name.clone();
    match existing.map(|record| record.newest().number) {
        Some(newest) if newest == replaces => Ok(()),
        Some(newest) => Err(Outdated::Followed {
            name: name(),
            replaces,
            newest,
        }),
        None => Err(Outdated::Destroyed {
            name: name(),
            replaces,
        }),
    }
}

/// Decides what a submission changes. An update that restarts a launched unit is rolled out
/// ([`succeed`]). Every other change takes effect everywhere at once.
pub fn submit(name: &UnitName, existing: Option<&UnitRecord>, submitted: Submitted) -> Submission {
    let Submitted {
        content,
        owner,
        target,
        now,
    } = submitted;
    let revision = |number, content| Revision {
        number,
        at: now,
        content,
        restarts: existing.map_or(0, |existing| existing.newest().restarts),
    };
    let Some(existing) = existing else {
        return Submission::Created(UnitRecord {
            target: target.unwrap_or(TargetState::Inactive),
            stable: revision(1, content),
            candidate: None,
            last: None,
            owners: recorded(&owner).cloned().into_iter().collect(),
        });
    };
    let mut record = retarget(existing, target.unwrap_or(existing.target), now);
    record.owners.extend(recorded(&owner).cloned());
    if content == existing.newest().content {
        return if record == *existing {
            Submission::Unchanged
        } else {
            Submission::Adopted(record)
        };
    }
    let held = held(name, &content);
    let next = revision(existing.next_number(), content);
    let Succession { record, retired } = succeed(record, existing.target, next, held, now);
    Submission::Updated { record, retired }
}

/// Returns why an update waits for an operator before it begins. `None` if it does not wait.
fn held(name: &UnitName, content: &Content) -> Option<String> {
    let options = FleetOptions::read(name, &UnitFile::parse(content.as_bytes()));
    (options.policy.strategy == UpdateStrategy::Manual)
        .then(|| format!("UpdateStrategy=manual: it begins with fleetctl rollout resume {name}"))
}

/// Returns the unit with that target state. A rollout interrupted by a stop gets its whole time
/// again.
pub fn retarget(existing: &UnitRecord, target: TargetState, now: u64) -> UnitRecord {
    let mut record = existing.clone();
    if let Some(candidate) = &mut record.candidate
        && target != existing.target
    {
        candidate.since = now;
    }
    record.target = target;
    record
}

/// The error for a target state that the unit cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLaunchable {
    /// A template only provides the content of its instances.
    #[error("cannot activate template \"{0}\"")]
    Template(UnitName),
    /// The unit is not global: no scheduler would choose a machine for it.
    #[error(
        "unit {0} is not global, and this version does not schedule such units to a machine: it can be submitted, shown and destroyed; \
         with Global=true in its [X-Fleet] section it runs on every matching machine"
    )]
    NotGlobal(UnitName),
}

/// Checks that a unit may have that target state.
pub fn may_become(name: &UnitName, global: bool, target: TargetState) -> Result<(), NotLaunchable> {
    if target == TargetState::Inactive {
        Ok(())
    } else if name.is_template() && target == TargetState::Launched {
        Err(NotLaunchable::Template(name.clone()))
    } else if global {
        Ok(())
    } else {
        Err(NotLaunchable::NotGlobal(name.clone()))
    }
}

/// Returns the owner as the unit's record names it. `None` for a directory, which has a key of its
/// own.
fn recorded(owner: &Owner) -> Option<&Owner> {
    matches!(owner, Owner::Api).then_some(owner)
}

/// The effect on a unit when a directory no longer wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disowned {
    /// The directory did not own it.
    NotOwned,
    /// Other owners want it.
    Left {
        /// The unit's record, if it named the directory.
        record: Option<Box<UnitRecord>>,
        /// A directory that owns the unit by a key. `None` if the record names an owner.
        by: Option<MachineId>,
    },
    /// The directory was the last owner.
    Destroyed,
}

/// Decides what happens to a unit whose file is gone from a machine's directory. `owners` are the
/// machines that own it by a key.
pub fn disown(
    existing: &UnitRecord,
    owners: &BTreeSet<MachineId>,
    machine: &MachineId,
) -> Disowned {
    let owner = Owner::Directory(machine.clone());
    let is_recorded = existing.owners.contains(&owner);
    if !is_recorded && !owners.contains(machine) {
        return Disowned::NotOwned;
    }
    let by = owners.iter().find(|other| *other != machine);
    let is_left = existing.owners.iter().any(|other| *other != owner);
    if by.is_none() && !is_left {
        return Disowned::Destroyed;
    }
    let record = is_recorded.then(|| {
        let mut record = existing.clone();
        record.owners.remove(&owner);
        Box::new(record)
    });
    Disowned::Left {
        record,
        by: by.filter(|_| !is_left).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::Phase;

    fn name() -> UnitName {
        UnitName::parse("a.service").expect("valid")
    }

    fn machine(digit: &str) -> MachineId {
        MachineId::parse(&digit.repeat(32)).expect("valid")
    }

    fn directory() -> Owner {
        Owner::Directory(machine("a"))
    }

    fn by(owner: Owner, content: &str, target: Option<TargetState>) -> Submitted {
        Submitted {
            content: Content::from(content),
            owner,
            target,
            now: 7,
        }
    }

    fn created(content: &str) -> UnitRecord {
        match submit(
            &name(),
            None,
            by(Owner::Api, content, Some(TargetState::Launched)),
        ) {
            Submission::Created(record) => record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn new_unit_starts_at_revision_one() {
        let record = created("x");
        assert_eq!(record.stable.number, 1);
        assert_eq!(record.target, TargetState::Launched);
    }

    #[test]
    fn same_content_from_the_same_owner_changes_nothing() {
        let record = created("x");
        assert_eq!(
            submit(&name(), Some(&record), by(Owner::Api, "x", None)),
            Submission::Unchanged
        );
    }

    #[test]
    fn submitting_directory_is_not_in_the_record() {
        let submitted = submit(&name(), None, by(directory(), "x", None));
        let Submission::Created(record) = submitted else {
            panic!("not created")
        };
        assert_eq!(record.owners, BTreeSet::new());
        let again = submit(&name(), Some(&record), by(directory(), "x", None));
        assert_eq!(again, Submission::Unchanged);
        let Submission::Adopted(both) = submit(&name(), Some(&record), by(Owner::Api, "x", None))
        else {
            panic!("not adopted")
        };
        assert_eq!(both.owners, BTreeSet::from([Owner::Api]));
    }

    /// Returns an update by the API as `target stable[number] candidate[number phase reason],
    /// retired numbers and reasons`.
    fn update(
        record: &UnitRecord,
        content: &str,
        target: Option<TargetState>,
    ) -> (UnitRecord, String) {
        match submit(&name(), Some(record), by(Owner::Api, content, target)) {
            Submission::Updated { record, retired } => {
                let retired = retired.iter().map(|past| {
                    let number = past.revision.number;
                    let dropped = past.dropped.as_ref();
                    dropped.map_or(format!("{number}"), |why| format!("{number} ({why})"))
                });
                let retired = retired.collect::<Vec<_>>().join(", ");
                let candidate = record.candidate.as_ref().map_or("none".to_owned(), |it| {
                    format!(
                        "{} {} {:?}",
                        it.revision.number,
                        it.phase.as_str(),
                        it.reason
                    )
                });
                let said = format!(
                    "{}: stable {}, candidate {candidate}, retired {retired}",
                    record.target, record.stable.number
                );
                (record, said)
            }
            other => panic!("{other:?}"),
        }
    }

    const X: &str = "[Service]\nExecStart=/x\n";
    const Y: &str = "[Service]\nExecStart=/y\n";
    const Z: &str = "[Service]\nExecStart=/z\n";

    #[test]
    fn update_that_restarts_a_launched_unit_is_rolled_out() {
        let (rolling, said) = update(&created(X), Y, None);
        insta::assert_snapshot!(said, @r#"launched: stable 1, candidate 2 rolling "", retired "#);
        // Another update replaces it, even one that changes nothing that runs.
        let (next, said) = update(&rolling, Z, None);
        insta::assert_snapshot!(said, @r#"launched: stable 1, candidate 3 rolling "", retired 2 (replaced by revision 3 before it was stable)"#);
        let (_, said) = update(&next, &format!("{X}# as before"), None);
        insta::assert_snapshot!(said, @r#"launched: stable 1, candidate 4 rolling "", retired 3 (replaced by revision 4 before it was stable)"#);
        assert_eq!(
            submit(&name(), Some(&rolling), by(Owner::Api, Y, None)),
            Submission::Unchanged
        );
    }

    #[test]
    fn update_that_restarts_nothing_is_stable_at_once() {
        let record = created(X);
        let (_, said) = update(&record, &format!("{X}# a comment"), None);
        insta::assert_snapshot!(said, @"launched: stable 2, candidate none, retired 1");
        let (_, said) = update(&record, Y, Some(TargetState::Inactive));
        insta::assert_snapshot!(said, @"inactive: stable 2, candidate none, retired 1");
        let (rolling, _) = update(&record, Y, None);
        let (inactive, said) = update(&rolling, Z, Some(TargetState::Inactive));
        insta::assert_snapshot!(said, @"inactive: stable 3, candidate none, retired 2 (replaced by revision 3 before it was stable), 1");
        // The unit does not run, so no machine has to take turns.
        let (_, said) = update(&inactive, X, Some(TargetState::Launched));
        insta::assert_snapshot!(said, @"launched: stable 4, candidate none, retired 3");
    }

    #[test]
    fn manual_update_waits_for_an_operator() {
        let manual = format!("{Y}[X-Fleet]\nUpdateStrategy=manual\n");
        let (_, said) = update(&created(X), &manual, None);
        insta::assert_snapshot!(said, @r#"launched: stable 1, candidate 2 paused "UpdateStrategy=manual: it begins with fleetctl rollout resume a.service", retired "#);
    }

    #[test]
    fn target_state_change_keeps_the_rollout() {
        let (rolling, _) = update(&created(X), Y, None);
        let loaded = by(Owner::Api, Y, Some(TargetState::Loaded));
        let Submission::Adopted(loaded) = submit(&name(), Some(&rolling), loaded) else {
            panic!("not adopted")
        };
        assert_eq!(loaded.candidate, rolling.candidate);
    }

    #[test]
    fn update_during_a_rollback_keeps_its_reason() {
        let (mut rolling, _) = update(&created(X), Y, None);
        let candidate = rolling.candidate.as_mut().expect("a candidate");
        candidate.phase = Phase::RollingBack;
        candidate.reason = "failed on 190c6f8f".to_owned();
        let (_, said) = update(&rolling, Z, None);
        insta::assert_snapshot!(said, @r#"launched: stable 1, candidate 3 rolling "", retired 2 (failed on 190c6f8f)"#);
    }

    #[test]
    fn unit_is_destroyed_with_its_last_owner() {
        let (one, other) = (machine("a"), machine("b"));
        let mut record = created("x");
        record.owners.clear();
        let both = BTreeSet::from([one.clone(), other.clone()]);
        let left = Disowned::Left {
            record: None,
            by: Some(other.clone()),
        };
        assert_eq!(disown(&record, &both, &one), left);
        let last = BTreeSet::from([one.clone()]);
        assert_eq!(disown(&record, &last, &one), Disowned::Destroyed);
        assert_eq!(disown(&record, &last, &other), Disowned::NotOwned);
        let by_api = disown(&created("x"), &last, &one);
        let left = Disowned::Left {
            record: None,
            by: None,
        };
        assert_eq!(by_api, left);
    }

    #[test]
    fn directory_recorded_by_an_older_version_is_an_owner() {
        let (one, other) = (machine("a"), machine("b"));
        let mut record = created("x");
        record.owners = BTreeSet::from([Owner::Directory(one.clone())]);
        let by_key = BTreeSet::from([other.clone()]);
        let Disowned::Left {
            record: Some(left),
            by: Some(by),
        } = disown(&record, &by_key, &one)
        else {
            panic!("the other one owns it")
        };
        assert_eq!((left.owners.len(), by), (0, other.clone()));
        let kept = disown(&record, &by_key, &other);
        let left = Disowned::Left {
            record: None,
            by: None,
        };
        assert_eq!(kept, left);
        let owners = BTreeSet::new();
        assert_eq!(disown(&record, &owners, &one), Disowned::Destroyed);
    }

    #[test]
    fn rollout_interrupted_by_a_stop_gets_its_whole_time_again() {
        let record = created("[Service]\nExecStart=/a\n");
        let update = by(Owner::Api, "[Service]\nExecStart=/b\n", None);
        let Submission::Updated { record, .. } = submit(&name(), Some(&record), update) else {
            panic!("not updated")
        };
        let since = |record: &UnitRecord| record.candidate.as_ref().map(|it| it.since);
        assert_eq!(
            since(&retarget(&record, TargetState::Launched, 90)),
            Some(7)
        );
        let stopped = retarget(&record, TargetState::Inactive, 80);
        let again = retarget(&stopped, TargetState::Launched, 90);
        assert_eq!(since(&again), Some(90));
    }

    #[test]
    fn template_may_be_loaded_and_never_launched() {
        let unit = UnitName::parse("a.service").expect("valid");
        let template = UnitName::parse("a@.service").expect("valid");
        for target in [TargetState::Loaded, TargetState::Launched] {
            assert_eq!(may_become(&unit, true, target), Ok(()));
            let error = may_become(&unit, false, target).expect_err("not global");
            assert!(
                error
                    .to_string()
                    .starts_with("unit a.service is not global")
            );
            let of_template = may_become(&template, false, target);
            assert!(of_template.is_err(), "{target}");
        }
        let error = may_become(&template, true, TargetState::Launched).expect_err("a template");
        assert_eq!(error.to_string(), "cannot activate template \"a@.service\"");
        assert_eq!(may_become(&template, true, TargetState::Loaded), Ok(()));
        assert_eq!(may_become(&template, false, TargetState::Inactive), Ok(()));
    }
}
