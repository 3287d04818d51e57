//! What a submitted unit file changes in the registry.

use std::collections::BTreeSet;

use crate::record::{Owner, Revision, TargetState, UnitRecord};
use crate::unit::{Content, UnitName};

/// What becomes of a unit when a file is submitted for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submission {
    /// It did not exist.
    Created(UnitRecord),
    /// It has a new revision; the one before goes into the history.
    Updated {
        /// The unit as it is to be written.
        record: UnitRecord,
        /// The revision it replaces.
        retired: Revision,
    },
    /// Its content stays; its owners or its target state change.
    Adopted(UnitRecord),
    /// There is nothing to write.
    Unchanged,
}

/// A unit file on its way into the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The file.
    pub content: Content,
    /// Who submits it.
    pub owner: Owner,
    /// The target state to set; none keeps the one it has (`inactive` for a new unit).
    pub target: Option<TargetState>,
    /// The time, in milliseconds since 1970.
    pub now: u64,
}

/// Decides what a submission changes.
///
/// An update takes effect everywhere at once: the new revision becomes the stable one.
pub fn submit(existing: Option<&UnitRecord>, submitted: Submitted) -> Submission {
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
            owners: BTreeSet::from([owner]),
        });
    };
    let mut record = existing.clone();
    record.owners.insert(owner);
    record.target = target.unwrap_or(existing.target);
    if content == existing.newest().content {
        return if record == *existing {
            Submission::Unchanged
        } else {
            Submission::Adopted(record)
        };
    }
    let retired = existing.stable.clone();
    record.stable = revision(existing.next_number(), content);
    record.candidate = None;
    Submission::Updated { record, retired }
}

/// A unit that cannot have the target state that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLaunchable {
    /// It is there for its instances to take its content from.
    #[error("cannot activate template \"{0}\"")]
    Template(UnitName),
    /// There is nobody who would choose a machine for it.
    #[error(
        "unit {0} is not global, and this version does not schedule such units to a machine: it can be submitted, shown and destroyed; \
         with Global=true in its [X-Fleet] section it runs on every matching machine"
    )]
    NotGlobal(UnitName),
}

/// Whether a unit may have that target state.
pub fn may_become(name: &UnitName, global: bool, target: TargetState) -> Result<(), NotLaunchable> {
    if target == TargetState::Inactive {
        Ok(())
    } else if name.is_template() {
        Err(NotLaunchable::Template(name.clone()))
    } else if global {
        Ok(())
    } else {
        Err(NotLaunchable::NotGlobal(name.clone()))
    }
}

/// What is left of a unit that an owner no longer wants; none if nobody does.
pub fn disown(existing: &UnitRecord, owner: &Owner) -> Option<UnitRecord> {
    let mut record = existing.clone();
    record.owners.remove(owner);
    (!record.owners.is_empty()).then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::MachineId;

    fn directory() -> Owner {
        Owner::Directory(MachineId::parse(&"a".repeat(32)).expect("valid"))
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
        match submit(None, by(Owner::Api, content, Some(TargetState::Launched))) {
            Submission::Created(record) => record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_unit_starts_at_revision_one() {
        let record = created("x");
        assert_eq!(record.stable.number, 1);
        assert_eq!(record.target, TargetState::Launched);
    }

    #[test]
    fn the_same_content_from_the_same_owner_changes_nothing() {
        let record = created("x");
        assert_eq!(
            submit(Some(&record), by(Owner::Api, "x", None)),
            Submission::Unchanged
        );
    }

    #[test]
    fn the_same_content_from_another_owner_makes_it_an_owner_too() {
        let record = created("x");
        let Submission::Adopted(adopted) = submit(Some(&record), by(directory(), "x", None)) else {
            panic!("not adopted")
        };
        assert_eq!(adopted.stable, record.stable);
        assert_eq!(adopted.owners, BTreeSet::from([Owner::Api, directory()]));
    }

    #[test]
    fn an_update_keeps_the_target_state_and_retires_what_was_stable() {
        let record = created("x");
        let Submission::Updated {
            record: updated,
            retired,
        } = submit(Some(&record), by(Owner::Api, "y", None))
        else {
            panic!("not updated")
        };
        assert_eq!(updated.target, TargetState::Launched);
        assert_eq!((updated.stable.number, retired.number), (2, 1));
        // Content that stood before is a revision of its own: numbers never go back.
        let Submission::Updated { record: again, .. } =
            submit(Some(&updated), by(Owner::Api, "x", None))
        else {
            panic!("not updated")
        };
        assert_eq!(again.stable.number, 3);
    }

    #[test]
    fn a_unit_goes_with_its_last_owner() {
        let record = created("x");
        let Submission::Adopted(both) = submit(Some(&record), by(directory(), "x", None)) else {
            panic!("not adopted")
        };
        let left = disown(&both, &directory()).expect("the other owner keeps it");
        assert_eq!(left, record);
        assert_eq!(disown(&left, &Owner::Api), None);
    }

    #[test]
    fn templates_and_units_that_are_not_global_are_stored_only() {
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
            let error = may_become(&template, true, target).expect_err("a template");
            assert_eq!(error.to_string(), "cannot activate template \"a@.service\"");
        }
        assert_eq!(may_become(&template, false, TargetState::Inactive), Ok(()));
    }
}
