//! How a machine's trust in the registry goes on from update to update.
//!
//! Updates come in bursts. A registry that is obeyed by one update may be held by the next, so the
//! machine adopts what the end of a burst says ([`Following::adopted`]).

use super::{Footing, Held, Identity, Judgement, Memory, Seen, Trust, judge};

const METADATA_IS_DAMAGED: &str = "the metadata of this machine cannot be read, so it is unknown which units belong here: keeping what runs; \
     set its metadata again";

/// What was heard of the registry.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'a> {
    /// It does not answer, for this reason.
    Away(&'a str),
    /// It says this.
    Says {
        /// What it is by now.
        identity: &'a Identity,
        /// Whether all of it was listed; else it is what was known, and a change of that.
        is_list: bool,
        /// Whether what is set for this machine cannot be read.
        is_damaged: bool,
    },
}

/// What follows from an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What to adopt the registry as, unless another update follows.
    pub obey: Option<Seen>,
    /// Whether it is to be listed: by its changes alone it might be followed again.
    pub relist: bool,
    /// What to write down though the registry is not obeyed.
    pub remember: Option<Seen>,
    /// What people are told.
    pub log: Option<Log>,
}

/// A line for the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    /// The registry of that cluster is followed again.
    Followed(String),
    /// It is not followed, for this reason.
    Held(String),
}

/// The trust of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Following {
    memory: Memory,
    footing: Footing,
    held: Option<String>,
    is_away: bool,
    /// What an update of this burst is to be obeyed as.
    obeyed: Option<Seen>,
}

impl Following {
    /// Returns the trust of a machine that has heard nothing yet.
    pub fn of(memory: Memory) -> Self {
        Self {
            memory,
            footing: Footing::Unheard,
            held: None,
            is_away: false,
            obeyed: None,
        }
    }

    /// The registry that this machine belongs to.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Why the registry is not followed; `None` if it is.
    pub fn held(&self) -> Option<&str> {
        self.held.as_deref()
    }

    /// Returns the trust as others in fleetd see it.
    pub fn trust(&self) -> Trust {
        Trust {
            memory: self.memory.clone(),
            footing: self.footing.clone(),
            away: self.is_away,
        }
    }

    /// Takes an update.
    pub fn take(&mut self, heard: Heard<'_>) -> Outcome {
        let (identity, is_list, is_damaged) = match heard {
            Heard::Away(error) => return self.away(error),
            Heard::Says {
                identity,
                is_list,
                is_damaged,
            } => (identity, is_list, is_damaged),
        };
        self.is_away = false;
        let memory = self.obeyed.take();
        let memory = memory.map_or_else(|| self.memory.clone(), Memory::Of);
        let judgement = judge(&memory, identity);
        let was_held = matches!(self.footing, Footing::Held(_));
        if was_held && !is_list && matches!(judgement, Judgement::Obey(_)) {
            // What is known of it may be part of what it was, and part of what it is now.
            return Outcome {
                relist: true,
                ..Outcome::default()
            };
        }
        self.footing = match &judgement {
            Judgement::Obey(_) => Footing::Followed,
            Judgement::New { .. } => Footing::New,
            Judgement::Hold { reason, .. } => Footing::Held(Held {
                reason: reason.clone(),
                ..Held::default()
            }),
        };
        let (reason, seen) = match judgement {
            Judgement::Obey(seen) if is_damaged => {
                // What is changed here is meant for this registry even so, such as that metadata.
                let is_known =
                    matches!(&self.memory, Memory::Of(known) if !known.differs_from(&seen));
                (METADATA_IS_DAMAGED.to_owned(), (!is_known).then_some(seen))
            }
            Judgement::Obey(seen) => return self.obey(seen),
            Judgement::New { reason } => (reason, None),
            Judgement::Hold { reason, seen } => (reason, seen),
        };
        Outcome {
            remember: seen.filter(|seen| self.remember(seen)),
            log: self.hold(reason),
            ..Outcome::default()
        }
    }

    /// Returns what to adopt the registry as, though nothing new was heard of it; `None` if it is
    /// not followed.
    pub fn again(&self, identity: &Identity) -> Option<Seen> {
        match judge(&self.memory, identity) {
            Judgement::Obey(seen) if self.held.is_none() => Some(seen),
            _ => None,
        }
    }

    /// Notes that the registry was adopted. Returns whether a later start must know of it.
    pub fn adopted(&mut self, seen: Seen) -> bool {
        self.obeyed = None;
        let is_other = match &self.memory {
            Memory::Of(known) => known.differs_from(&seen),
            Memory::Never | Memory::Lost(_) => true,
        };
        self.memory = Memory::Of(seen);
        is_other
    }

    fn away(&mut self, error: &str) -> Outcome {
        let text = format!("the registry is away; units run on as they are: {error}");
        self.is_away = true;
        self.held = Some(text.clone());
        Outcome {
            obey: self.obeyed.clone(),
            log: Some(Log::Held(text)),
            ..Outcome::default()
        }
    }

    fn obey(&mut self, seen: Seen) -> Outcome {
        let was_held = self.held.take().is_some();
        self.obeyed = Some(seen.clone());
        Outcome {
            log: was_held.then(|| Log::Followed(seen.cluster.clone())),
            obey: Some(seen),
            ..Outcome::default()
        }
    }

    /// Returns whether that is news.
    fn remember(&mut self, seen: &Seen) -> bool {
        let now = Memory::Of(seen.clone());
        let is_news = self.memory != now;
        self.memory = now;
        is_news
    }

    fn hold(&mut self, reason: String) -> Option<Log> {
        let is_news = self.held.as_ref() != Some(&reason);
        self.held = Some(reason.clone());
        is_news.then_some(Log::Held(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ClusterKey;
    use super::*;

    fn identity(cluster: &str, revision: u64) -> Identity {
        Identity {
            cluster: match cluster {
                "" => ClusterKey::Absent,
                id => ClusterKey::Is {
                    id: id.to_owned(),
                    made: 5,
                },
            },
            revision,
            ..Identity::default()
        }
    }

    fn says(identity: &Identity, is_list: bool) -> Heard<'_> {
        Heard::Says {
            identity,
            is_list,
            is_damaged: false,
        }
    }

    /// A machine that has adopted `c1` at revision 10.
    fn following() -> Following {
        let mut following = Following::of(Memory::Never);
        let first = identity("c1", 10);
        let seen = following.take(says(&first, true)).obey;
        assert!(following.adopted(seen.expect("obeyed")));
        following
    }

    #[test]
    fn wiped_registry_is_held_and_named_once() {
        let mut following = following();
        let wiped = identity("", 11);
        let outcome = following.take(says(&wiped, false));
        assert_eq!((outcome.obey, outcome.relist), (None, false));
        assert!(matches!(outcome.log, Some(Log::Held(why)) if why.contains("is empty")));
        assert!(following.trust().held().is_some());
        let outcome = following.take(says(&wiped, false));
        assert_eq!(outcome.log, None);
    }

    #[test]
    fn held_registry_is_followed_again_by_a_list_only() {
        let mut following = following();
        following.take(says(&identity("", 11), false));
        let back = identity("c1", 12);
        let outcome = following.take(says(&back, false));
        assert_eq!((outcome.obey, outcome.relist), (None, true));
        assert!(following.held().is_some() && following.again(&back).is_none());
        let outcome = following.take(says(&back, true));
        assert_eq!(outcome.obey.map(|seen| seen.revision), Some(12));
        assert_eq!(outcome.log, Some(Log::Followed("c1".to_owned())));
        assert_eq!(following.held(), None);
    }

    #[test]
    fn end_of_a_burst_decides_what_is_obeyed() {
        let mut following = following();
        assert!(
            following
                .take(says(&identity("c1", 11), false))
                .obey
                .is_some()
        );
        let outcome = following.take(says(&identity("c2", 12), false));
        assert_eq!(outcome.obey, None);
        let mut following = super::tests::following();
        following.take(says(&identity("c1", 11), false));
        let outcome = following.take(Heard::Away("no route"));
        assert_eq!(outcome.obey.map(|seen| seen.revision), Some(11));
        assert!(following.trust().away && following.held().is_some());
        // Within a burst the update before is the memory.
        let mut following = super::tests::following();
        following.take(says(&identity("c1", 20), false));
        assert_eq!(following.take(says(&identity("c1", 15), false)).obey, None);
    }

    #[test]
    fn registry_with_damaged_metadata_is_remembered_and_not_obeyed() {
        let mut following = Following::of(Memory::Never);
        let damaged = identity("c1", 10);
        let heard = || Heard::Says {
            identity: &damaged,
            is_list: true,
            is_damaged: true,
        };
        let outcome = following.take(heard());
        assert_eq!(outcome.obey, None);
        assert_eq!(
            outcome.remember.map(|seen| seen.cluster),
            Some("c1".to_owned())
        );
        assert_eq!(following.take(heard()), Outcome::default());
    }
}
