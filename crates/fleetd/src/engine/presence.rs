//! Machines that come and go, and those that stay away.
//!
//! A machine writes its own `known/` key whenever it comes; the leader notes there since when it is
//! offline. Every such note is guarded by the key as it was, so that none lands on a machine that
//! has just come back.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{Event, EventKind, Known};

use tokio::time::Instant;

use super::commit::{BATCH, Decision};
use super::index::Index;
use crate::store::{Guard, Write};

/// Before this no fleet was: a clock that shows an earlier time has not been set. 2020-01-01.
const FLOOR: u64 = 1_577_836_800_000;

/// Of the known machines so many at most are forgotten at once: a wall clock that is wrong must not
/// forget them all.
const SHARE: usize = 10;

/// A machine that stays away for so long is not coming back. One that does all the same is a new
/// one.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// What to write down about presence.
pub(super) struct Presence {
    pub(super) decisions: Vec<Decision>,
    /// The machines that these forget.
    pub(super) forgotten: BTreeSet<MachineId>,
    /// When the next machine is to be forgotten, in milliseconds since 1970.
    pub(super) next: Option<u64>,
    /// Whether some are to be forgotten that this leaves, for now.
    pub(super) overdue: bool,
}

/// For how long the wall clock must have run as time does before machines are forgotten by it; and
/// again after some were, so that a clock that is wrong for long is noticed before it has cost
/// many.
const STEADY: Duration = Duration::from_secs(3600);

/// By how many milliseconds a wall clock may differ from what it would say if nobody had set it.
const JUMP: u64 = 60_000;

/// Whether the wall clock is to be believed.
pub(super) struct Steady {
    /// When it began to run as steadily as it does, and what it said then.
    since: (Instant, u64),
    /// No machine is forgotten before.
    after: Instant,
}

impl Steady {
    pub(super) fn new(now: u64) -> Self {
        Self {
            since: (Instant::now(), now),
            after: Instant::now() + STEADY,
        }
    }

    /// Whether machines may be forgotten by what it says now.
    pub(super) fn may_forget(&mut self, now: u64) -> bool {
        let (since, at) = self.since;
        let passed = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now.abs_diff(at.saturating_add(passed)) > JUMP {
            // Somebody set it.
            *self = Self::new(now);
        }
        self.after <= Instant::now()
    }

    /// Some were.
    pub(super) fn forgot(&mut self) {
        self.after = Instant::now() + STEADY;
    }

    /// When to look again.
    pub(super) fn next(&self) -> Instant {
        self.after.max(Instant::now())
    }
}

/// A known machine, and the store revision that wrote so.
struct Note<'a> {
    id: &'a MachineId,
    known: &'a Known,
    at: u64,
}

/// Compares who is here with what is noted. `may_forget`: whether the wall clock, which says `now`,
/// is to be believed.
pub(super) fn decide(index: &Index, now: u64, may_forget: bool) -> Presence {
    let forgotten_after = u64::try_from(FORGOTTEN_AFTER.as_millis()).unwrap_or(u64::MAX);
    let (mut gone, mut forgotten, mut back) = (Vec::new(), Vec::new(), Vec::new());
    let known = index.machines.values().filter(|it| it.known.is_some());
    let mut overdue = false;
    let mut room = (known.count() / SHARE).max(1);
    let mut next: Option<u64> = None;
    for (id, machine) in &index.machines {
        let Some(written) = &machine.known else {
            continue;
        };
        let Some(known) = &written.value else {
            continue;
        };
        let at = written.at;
        let note = Note { id, known, at };
        match (machine.presence.is_some(), known.offline_since) {
            (true, Some(_)) => back.push(note),
            // It may be on its way back: this leader has only just begun.
            (false, None) if !machine.was_here && index.awaited_until.is_some() => {}
            (false, None) => gone.push(note),
            // Noted by a clock that was wrong: the time is counted from now on.
            (false, Some(since)) if since < FLOOR && now >= FLOOR => gone.push(note),
            (false, Some(since)) if since.saturating_add(forgotten_after) <= now => {
                if may_forget && room > 0 {
                    room -= 1;
                    forgotten.push(note);
                } else {
                    overdue = true;
                }
            }
            (false, Some(since)) => {
                let until = since.saturating_add(forgotten_after);
                next = Some(next.map_or(until, |next| next.min(until)));
            }
            (true, None) => {}
        }
    }
    let ids = forgotten.iter().map(|note| note.id.clone()).collect();
    let mut decisions = Vec::new();
    for (notes, kind, reason) in [
        (gone, EventKind::MachineOffline, "its lease ended"),
        (back, EventKind::MachineOnline, "it is back"),
        (
            forgotten,
            EventKind::MachineForgotten,
            "it was offline for 7 days",
        ),
    ] {
        for batch in notes.chunks(BATCH / 2) {
            decisions.push(decision(batch, kind, reason, now));
        }
    }
    if !index.news.returned.is_empty() {
        // They have said so themselves in the registry; only people are not told yet.
        let returned: Vec<&MachineId> = index.news.returned.iter().collect();
        decisions.push(Decision {
            events: vec![event(
                &returned,
                EventKind::MachineOnline,
                "it is back",
                now,
            )],
            ..Decision::default()
        });
    }
    Presence {
        decisions,
        forgotten: ids,
        next,
        overdue,
    }
}

fn decision(batch: &[Note<'_>], kind: EventKind, reason: &str, now: u64) -> Decision {
    let mut decision = Decision::default();
    for note in batch {
        let key = keys::known(note.id);
        if kind == EventKind::MachineForgotten {
            let absent = Guard::Absent(keys::machine(note.id));
            decision.guards.push(absent);
            decision.delete(key, note.at);
            let grants = Write::DeletePrefix(keys::grants_of(note.id));
            decision.writes.push(grants);
        } else {
            decision.unless_modified(key.clone(), note.at);
            let known = Known {
                offline_since: (kind == EventKind::MachineOffline).then_some(now),
                ..note.known.clone()
            };
            decision.put(key, &known);
        }
    }
    let machines: Vec<&MachineId> = batch.iter().map(|note| note.id).collect();
    decision.events = vec![event(&machines, kind, reason, now)];
    decision
}

fn event(machines: &[&MachineId], kind: EventKind, reason: &str, at: u64) -> Event {
    Event {
        at,
        kind,
        unit: None,
        revision: 0,
        machines: machines.iter().map(|id| (*id).clone()).collect(),
        reason: reason.to_owned(),
    }
}
