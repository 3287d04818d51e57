//! What the referee says of one change of a unit.

use std::time::Duration;

use fleet_core::machine::MachineId;
use fleet_core::unit::UnitName;
use fleetd::systemd::fake::Happened;
use tokio::time::Instant;

use super::ledger::{Granted, Last, Seat, version};
use super::referee::{Book, Court, Started, short};

/// What a leader decides may rest on what was so that long ago: its commits may be that late.
const LAG: Duration = Duration::from_secs(15);

/// An instruction to stop is still on its way to an agent that long after it was taken back.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// What an agent had planned when somebody else's unit turned up may still be done.
const PLANNED: Duration = Duration::from_secs(2);

impl Court {
    pub(super) fn judge(&mut self, seat: Seat, happened: Happened<'_>) {
        self.catch_up();
        self.note(|| format!("{} {} {happened:?}", short(&seat.0), seat.1));
        self.judged += 1;
        let Some(version) = version(happened.file) else {
            return;
        };
        let asked = happened.asked.filter(|_| !self.by_hand);
        match asked {
            Some("stop" | "remove") => self.is_instructed(&seat, asked.unwrap_or(""), happened),
            Some("restart") => self.is_granted(&seat, version, happened),
            Some(_) => self.is_due(&seat, version, happened),
            None => {}
        }
        let starts = matches!(happened.asked, Some("start" | "restart"));
        let started = starts.then(|| Started {
            version,
            of: self.shows(&seat.0),
            known: self.files[&seat.0].known().unwrap_or_default(),
            at: Instant::now(),
        });
        if let Some((_, due)) = self.booted.get_mut(&seat.0).filter(|_| starts) {
            due.remove(&seat.1);
        }
        let place = self.places.entry(seat.clone()).or_default();
        place.is_active = happened.is_active;
        place.started = started.or(place.started);
        // A file that systemd reads between the two halves of a restart is the one that runs.
        if happened.is_active
            && !happened.was_active
            && let Some(started) = &mut place.started
        {
            started.version = version;
        }
        // fleet has not started what an operator starts by hand: it may be asked to, and systemd
        // has nothing to do then.
        if asked.is_some() {
            place.is_launched = starts;
        }
        self.count(&seat.1);
    }

    /// The number of the registry that a machine sees.
    fn shows(&self, id: &MachineId) -> usize {
        self.ways[id].shows()
    }

    /// Whether the unit had no business there at some time since it was started, by a registry that
    /// the machine may obey.
    pub(super) fn was_unwanted(&self, seat: &Seat) -> bool {
        let started = self.places.get(seat).and_then(|it| it.started);
        let knows = self.knows.get(&seat.0).copied().unwrap_or_default();
        let mut books = self.books.iter().enumerate();
        books.any(|(number, Book { ledger, .. })| {
            let holds =
                knows > ledger.revision || self.must_hold.contains(&(seat.0.clone(), number));
            if holds && ledger.accepted.is_none() {
                return false;
            }
            let is_new = |it: Last| match started {
                Some(started) if started.of == number => it.revision > started.known,
                Some(started) => it.at + ON_ITS_WAY > started.at,
                None => true,
            };
            let unwanted = ledger.unwanted(seat);
            unwanted.is_some_and(|it| is_new(it) || it.at.elapsed() < ON_ITS_WAY)
                || ledger.is_open() && !ledger.units.contains_key(&seat.1)
        }) || self.forgot.contains(&seat.0)
    }

    /// Invariants 1 and 2: of what is stopped.
    fn is_instructed(&mut self, seat: &Seat, asked: &str, happened: Happened<'_>) {
        if happened.was_active && !self.was_unwanted(seat) {
            self.breaks(seat, format!("{asked}: nobody said so"));
        }
    }

    /// Invariant 7.
    pub(super) fn touched(&mut self, seat: &Seat, method: &str) {
        // Its own file and links it may take away.
        let foreign = self.foreign.get(seat).filter(|_| method != "remove");
        // Who was stopped meanwhile goes on with what it had planned.
        let since =
            foreign.map(|since| self.frozen.get(&seat.0).map_or(*since, |it| *it.max(since)));
        if since.is_some_and(|since| since.elapsed() > PLANNED) {
            self.breaks(seat, format!("{method}: the unit is somebody else's"));
        }
    }

    /// A start: of what was stable, or what the machine was granted, and once.
    fn is_due(&mut self, seat: &Seat, version: u32, happened: Happened<'_>) {
        let mut books = self.books.iter().map(|book| &book.ledger);
        let due = books.any(|ledger| {
            ledger.stable_ever.contains(&version)
                || ledger.granted(seat, version).is_some()
                || ledger.granted_before.contains_key(&(seat.clone(), version))
        });
        if !due {
            self.breaks(
                seat,
                format!("start of {version}, which was never stable, nor granted here"),
            );
        }
        let place = self.places.get(seat);
        if place.is_some_and(|it| it.is_launched)
            && !happened.was_active
            && !self.was_unwanted(seat)
        {
            self.breaks(seat, format!("start of {version}: it was started before"));
        }
    }

    fn is_granted(&mut self, seat: &Seat, version: u32, happened: Happened<'_>) {
        let shows = self.shows(&seat.0);
        let started = self.places.get(seat).and_then(|it| it.started);
        let created = |version| {
            let mut books = self.books.iter().map(|book| &book.ledger);
            books.find_map(|it| it.versions.get(&version).map(|it| it.0))
        };
        let another = started.is_some_and(|it| created(it.version) != created(version));
        if another || self.was_unwanted(seat) {
            return;
        }
        let grants = |number: usize| self.books[number].ledger.granted(seat, version).cloned();
        let others = (0..self.books.len()).filter(|it| *it != shows);
        let found = std::iter::once(shows)
            .chain(others)
            .find_map(|number| Some((number, grants(number)?)));
        if found.is_none() {
            let before = (seat.clone(), version);
            let mut books = self.books.iter_mut();
            let gone = books.find_map(|it| it.ledger.granted_before.get_mut(&before));
            if let Some(gone) = gone.filter(|gone| !**gone) {
                *gone = true;
                return;
            }
        }
        let Some((number, granted)) = found else {
            // Of a file that somebody takes away between its change and the restart, systemd has
            // the one before.
            let edited = self.edited.get(seat);
            if edited.is_some_and(|at| at.elapsed() < PLANNED) {
                return;
            }
            return self.breaks(seat, format!("restart as {version}: never granted"));
        };
        let ledger = &self.books[number].ledger;
        let session = ledger.session(&seat.0);
        let said_available = ledger.report(seat).is_some_and(|it| it.available);
        if !happened.was_active || !said_available || session.is_none() {
            return;
        }
        let sessions = |it: &Granted| Some(it.grant.session) == session;
        if !sessions(&granted) {
            let text = format!(
                "restart as {version}: granted to session {}, and this is {session:?}",
                granted.grant.session
            );
            return self.breaks(seat, text);
        }
        // Where the name is another's by now, the rollout goes on without it.
        let counts = granted.was_up && !self.foreign.contains_key(seat);
        if number == self.home && ledger.belongs(seat) && counts {
            let place = self.places.entry(seat.clone()).or_default();
            place.taken_down = Some(granted);
        }
    }

    /// Invariant 4.
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
        let budget = self.books[self.home].ledger.budget_since(unit, then);
        if down.len() > budget {
            let who: Vec<&str> = down.iter().map(|(id, _)| short(id)).collect();
            let text = format!(
                "{unit}: {} machines are down by an update, {budget} may be: {who:?}",
                down.len()
            );
            self.broken.push(text);
        }
    }

    pub(super) fn breaks(&mut self, (id, unit): &Seat, what: String) {
        let at = self.books[self.home].ledger.revision;
        self.broken.push(format!(
            "{unit} on {} at store revision {at}: {what}",
            short(id)
        ));
    }
}
