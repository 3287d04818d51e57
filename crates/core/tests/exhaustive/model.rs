//! What may happen next in a world, and what must never be true of one.

use stateright::{Model, Property};

use super::leader::Decided;
use super::world::{MACHINES, World, Wrong};
use super::{FIVE, FOUR, TEN};

/// What the update does to a machine that takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// It works.
    Good,
    /// It fails.
    Fails,
    /// It works, and the machine cannot reach the registry any more.
    CutsOff,
}

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The leader allows one machine more than the budget.
    Budget,
    /// The leader forgets machines that went offline after their grant.
    LostMachines,
    /// Commits are not guarded by the claim.
    ClaimGuard,
    /// Commits are not guarded by the unit's record.
    UnitGuard,
    /// The leader takes a report that the unit is in place for one that it is available.
    Proof,
}

/// The model: a fleet of three machines with one update on its way.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) nature: Nature,
    /// How many events happen in one history: faults, orders, and passing deadlines.
    pub(crate) events: u8,
    /// Agents hear of a new record at once. Of grants they always hear some time later.
    pub(crate) is_prompt: bool,
    pub(crate) broken: Option<Broken>,
    pub(crate) decided: Decided,
}

impl Fleet {
    pub(crate) fn of(nature: Nature, events: u8) -> Self {
        Self {
            nature,
            events,
            is_prompt: events > 1,
            broken: None,
            decided: Decided::default(),
        }
    }
}

/// One thing that happens. Numbers name machines of the state that it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The agent hears the newest record of the unit, or the newest grant, and acts.
    HearUnit(usize),
    HearGrant(usize),
    /// The unit that was started comes up, or fails.
    Comes(usize),
    /// The agent's report reaches the registry.
    Report(usize),
    /// The leader decides about the machines in this order, and commits it.
    Lead([usize; MACHINES]),
    /// The same, but the answer is lost, and the commit is late.
    LeadUnanswered([usize; MACHINES]),
    /// That commit reaches the registry.
    Lands,
    /// Another engine leads from now on.
    LeaderChange,
    /// The progress deadline passes.
    Tick,
    /// The unit ends by itself.
    Crash(usize),
    /// The machine cannot reach the registry any more.
    CutOff(usize),
    /// The machine shuts down. Its presence stays until it expires.
    Reboot(usize),
    /// The presence of a machine expires that does not renew it.
    Expire(usize),
    /// A machine reaches the registry again.
    Return(usize),
    Update,
    Undo,
    Pause,
    Resume,
    Cordon(usize),
}

impl Action {
    /// Whether it is no doing of the fleet itself.
    pub(crate) fn is_event(self) -> bool {
        match self {
            Self::HearUnit(_)
            | Self::HearGrant(_)
            | Self::Comes(_)
            | Self::Report(_)
            | Self::Lead(_)
            | Self::Lands
            | Self::Expire(_)
            | Self::Return(_)
            | Self::Resume => false,
            Self::LeadUnanswered(_)
            | Self::LeaderChange
            | Self::Tick
            | Self::Crash(_)
            | Self::CutOff(_)
            | Self::Reboot(_)
            | Self::Update
            | Self::Undo
            | Self::Pause
            | Self::Cordon(_) => true,
        }
    }
}

/// Every order of the machines: the leader may see them in any.
const ORDERS: [[usize; MACHINES]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

impl Model for Fleet {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.events)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend(ORDERS.map(Action::Lead));
        // A rollout that stays paused shows nothing more.
        actions.extend([Action::Lands, Action::Resume]);
        for at in world.different() {
            actions.extend([
                Action::HearUnit(at),
                Action::HearGrant(at),
                Action::Comes(at),
                Action::Report(at),
                Action::Expire(at),
                Action::Return(at),
            ]);
        }
        if world.left == 0 {
            return;
        }
        for at in world.different() {
            actions.extend([
                Action::Crash(at),
                Action::CutOff(at),
                Action::Reboot(at),
                Action::Cordon(at),
            ]);
        }
        actions.extend(ORDERS.map(Action::LeadUnanswered));
        actions.extend([
            Action::LeaderChange,
            Action::Tick,
            Action::Update,
            Action::Undo,
            Action::Pause,
        ]);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.happens(self, action)?;
        if self.is_prompt {
            for at in 0..MACHINES {
                next.hears_unit(at);
            }
        }
        next.sort();
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FOUR, |_, world: &World| world.unavailable() <= 1),
            Property::always(FIVE, |_, world: &World| world.wrong != Some(Wrong::Stale)),
            Property::always(TEN, |_, world: &World| world.wrong != Some(Wrong::Unproved)),
        ]
    }
}
