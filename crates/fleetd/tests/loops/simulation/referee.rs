//! Judges every change of a unit on any machine, at the moment when it happens.
//!
//! A machine counts as *taken down* by an update from the moment when its agent restarts a unit there, which it reported
//! as available, until it reports that it has followed the same or a later grant and is available again; or,
//! in another session, to which that grant says nothing, that it is available. It counts only
//! while it is here (its presence is in the registry) and the unit belongs there without interruption: what was cut off,
//! or was told to stop meanwhile, is not of the update any more. One that was down when it was granted that
//! costs nothing, though it may come up for a moment before it is restarted: what crashes again and again does. Of one unit no more machines may count than the largest
//! budget there was since the oldest of them was granted what it goes to, and for [`LAG`] before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet_core::machine::MachineId;
use fleet_core::record::UnitReport;
use fleet_core::unit::UnitName;
use fleetd::store::{Embedded, Store as _, Watch};
use fleetd::systemd::fake::Happened;
use futures_util::FutureExt as _;

use super::ledger::{Granted, Ledger, Seat, version};
use crate::fleet::Fleet;

/// What a leader decides may rest on what was so that long ago: its commits may be that late.
const LAG: Duration = Duration::from_secs(15);

/// An instruction to stop is still on its way to an agent that long after it was taken back.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// The revision of a store that nothing was written to.
const EMPTY: u64 = 1;

/// What becomes of a unit on a machine.
#[derive(Default)]
struct Place {
    is_active: bool,
    /// What was started last, and the store revision that its agent knew then.
    started: Option<(u32, u64)>,
    /// By that grant.
    taken_down: Option<Granted>,
}

struct Court {
    watch: Box<dyn Watch>,
    ledger: Ledger,
    places: BTreeMap<Seat, Place>,
    desired: BTreeMap<MachineId, PathBuf>,
    by_hand: bool,
    broken: Vec<String>,
    most_down: usize,
    judged: usize,
}

/// The referee. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Referee(Arc<Mutex<Court>>);

impl Referee {
    /// Follows that fleet from now on.
    pub(crate) async fn of(fleet: &Fleet) -> Self {
        let watch = fleet.store.watch(&[""], EMPTY).await;
        let watch = match watch {
            Ok(watch) => watch,
            Err(error) => panic!("{error}"),
        };
        let files = fleet.machines.iter();
        let court = Court {
            watch,
            ledger: Ledger::default(),
            places: BTreeMap::new(),
            desired: files.map(|it| (it.id.clone(), it.desired_file())).collect(),
            by_hand: false,
            broken: Vec::new(),
            most_down: 0,
            judged: 0,
        };
        let referee = Self(Arc::new(Mutex::new(court)));
        for machine in &fleet.machines {
            let (referee, id) = (referee.clone(), machine.id.clone());
            machine.systemd.observe(move |name, happened| {
                referee.court().judge((id.clone(), name.clone()), happened);
            });
        }
        referee
    }

    /// Follows every commit in its moment, and not only when a unit changes.
    pub(crate) async fn follow(self, store: Embedded) {
        let mut watch = store.watch(&[""], EMPTY).await.expect("watches");
        while watch.next().await.is_ok() {
            self.court().catch_up();
        }
    }

    /// What is done in there is done by a person.
    pub(crate) fn by_hand<T>(&self, act: impl FnOnce() -> T) -> T {
        self.court().by_hand = true;
        let done = act();
        self.court().by_hand = false;
        done
    }

    /// What was broken so far.
    pub(crate) fn broken(&self) -> Vec<String> {
        let mut court = self.court();
        court.catch_up();
        court.broken.clone()
    }

    /// How many changes were judged, and the most machines that were down by updates of one unit at once.
    pub(crate) fn seen(&self) -> (usize, usize) {
        let court = self.court();
        (court.judged, court.most_down)
    }

    /// Reads what the registry says.
    pub(crate) fn ask<T>(&self, read: impl FnOnce(&Ledger) -> T) -> T {
        let mut court = self.court();
        court.catch_up();
        read(&court.ledger)
    }

    /// The version that was started last on a machine, if it is active.
    pub(crate) fn runs(&self, seat: &Seat) -> Option<u32> {
        let court = self.court();
        let place = court.places.get(seat).filter(|place| place.is_active);
        Some(place?.started?.0)
    }

    fn court(&self) -> MutexGuard<'_, Court> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Court {
    fn catch_up(&mut self) {
        while let Some(batch) = self.watch.next().now_or_never() {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return self.broken.push(format!("the referee is lost: {error}")),
            };
            for seat in self.ledger.take(&batch) {
                if let Some(place) = self.places.get_mut(&seat) {
                    place.taken_down = None;
                }
            }
            self.broken.append(&mut self.ledger.untold);
        }
        for (seat, place) in &mut self.places {
            let session = self.ledger.session(&seat.0);
            let report = self.ledger.report(seat).filter(|it| it.available);
            // To another session the grant says nothing, and is not confirmed.
            place.taken_down.take_if(|by| {
                let confirms = |it: &UnitReport| it.grant >= by.revision;
                report.is_some_and(|it| confirms(it) || session != Some(by.grant.session))
            });
        }
    }

    fn judge(&mut self, seat: Seat, happened: Happened<'_>) {
        self.catch_up();
        self.judged += 1;
        let Some(version) = version(happened.file) else {
            return;
        };
        let known = self.known(&seat.0);
        if let Some(asked) = happened.asked.filter(|_| !self.by_hand) {
            match asked {
                "stop" | "remove" => self.is_instructed(&seat, asked, happened),
                "restart" => self.is_granted(&seat, version, happened),
                _ => self.is_due(&seat, version),
            }
        }
        let place = self.places.entry(seat.clone()).or_default();
        place.is_active = happened.is_active;
        if matches!(happened.asked, Some("start" | "restart")) {
            place.started = Some((version, known));
        }
        self.count(&seat.1);
    }

    /// The store revision that a machine's agent has acted on. One that was not kept knows nothing.
    fn known(&self, id: &MachineId) -> u64 {
        let bytes = std::fs::read(&self.desired[id]).unwrap_or_default();
        let saved: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        saved["seen"]["revision"].as_u64().unwrap_or_default()
    }

    /// Whether the unit had no business there at some time since it was started.
    fn was_unwanted(&self, seat: &Seat) -> bool {
        let known = self.places.get(seat).and_then(|it| it.started);
        let known = known.map_or(0, |(_, known)| known);
        let unwanted = self.ledger.unwanted(seat);
        unwanted.is_some_and(|it| it.revision > known || it.at.elapsed() < ON_ITS_WAY)
            || !self.ledger.units.contains_key(&seat.1)
    }

    fn is_instructed(&mut self, seat: &Seat, asked: &str, happened: Happened<'_>) {
        if happened.was_active && !self.was_unwanted(seat) {
            self.breaks(seat, format!("{asked}: nobody said so"));
        }
    }

    /// A start: of what was stable, or what the machine was granted.
    fn is_due(&mut self, seat: &Seat, version: u32) {
        let stable = self.ledger.stable_ever.contains(&version);
        if !stable && self.ledger.granted(seat, version).is_none() {
            self.breaks(
                seat,
                format!("start of {version}, which was never stable, nor granted here"),
            );
        }
    }

    fn is_granted(&mut self, seat: &Seat, version: u32, happened: Happened<'_>) {
        let created = |version| self.ledger.versions.get(&version).map(|it| it.0);
        let place = self.places.get(seat);
        let started = place.and_then(|it| it.started);
        let another = started.is_some_and(|(before, _)| created(before) != created(version));
        if another || self.was_unwanted(seat) {
            return;
        }
        let Some(granted) = self.ledger.granted(seat, version).cloned() else {
            return self.breaks(seat, format!("restart as {version}: never granted"));
        };
        let session = self.ledger.session(&seat.0);
        let said_available = self.ledger.report(seat).is_some_and(|it| it.available);
        if !happened.was_active || !said_available || session.is_none() {
            return;
        }
        if session != Some(granted.grant.session) {
            let text = format!(
                "restart as {version}: granted to session {}, and this is {session:?}",
                granted.grant.session
            );
            return self.breaks(seat, text);
        }
        if self.ledger.belongs(seat) && granted.was_up {
            let place = self.places.entry(seat.clone()).or_default();
            place.taken_down = Some(granted);
        }
    }

    fn count(&mut self, unit: &UnitName) {
        let down = self.places.iter().filter(|((_, name), _)| name == unit);
        let down: Vec<_> = down
            .filter_map(|(seat, place)| Some((&seat.0, place.taken_down.as_ref()?.at)))
            .collect();
        self.most_down = self.most_down.max(down.len());
        let Some(first) = down.iter().map(|(_, at)| *at).min() else {
            return;
        };
        let then = first.checked_sub(LAG).unwrap_or(first);
        let budget = self.ledger.budget_since(unit, then);
        if down.len() > budget {
            let who: Vec<&str> = down
                .iter()
                .map(|(id, _)| id.as_str().trim_start_matches('0'))
                .collect();
            let text = format!(
                "{unit}: {} machines are down by an update, {budget} may be: {who:?}",
                down.len()
            );
            self.broken.push(text);
        }
    }

    fn breaks(&mut self, (id, unit): &Seat, what: String) {
        let at = self.ledger.revision;
        self.broken.push(format!(
            "{unit} on {} at store revision {at}: {what}",
            id.as_str().trim_start_matches('0')
        ));
    }
}
