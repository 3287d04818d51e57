//! Watches every change of a unit on any machine, at the moment when it happens, and every commit;
//! `judge.rs` says what it thinks of them.
//!
//! A machine counts as *taken down* by an update from the moment when its agent restarts a unit
//! there, which it reported as available, until it reports that it has followed the same or a later
//! grant and is available again; or, in another session, to which that grant says nothing, that it
//! is available. It counts only while it is here (its presence is in the registry) and the unit
//! belongs there without interruption: what was cut off, or was told to stop meanwhile, is not of
//! the update any more. One that was down when it was granted that costs nothing, though it may
//! come up for a moment before it is restarted: what crashes again and again does. Of one unit no
//! more machines may count than the largest budget there was since the oldest of them was granted
//! what it goes to, and for some seconds before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::UnitReport;
use fleet_core::unit::UnitName;
use fleetd::store::{Batch, Change, Embedded, Store as _, Watch, Write};
use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::files::Files;
use super::ledger::{Granted, HEARD, Ledger, Seat};
use crate::fleet::Fleet;
use crate::weather::{Landed, Weather};

/// Within that time after a boot everything that belongs there is started.
const BOOT: Duration = Duration::from_secs(20);

/// What becomes of a unit on a machine.
#[derive(Default)]
pub(super) struct Place {
    pub(super) is_active: bool,
    pub(super) started: Option<Started>,
    /// Whether fleet started it, and neither stopped it nor saw the machine end since.
    pub(super) is_launched: bool,
    /// By that grant.
    pub(super) taken_down: Option<Granted>,
}

/// What was started last.
#[derive(Clone, Copy)]
pub(super) struct Started {
    pub(super) version: u32,
    /// The registry that its agent followed, the store revision that it knew of it, and when that
    /// was.
    pub(super) of: usize,
    pub(super) known: u64,
    pub(super) at: Instant,
}

/// A registry, followed.
pub(super) struct Book {
    pub(super) watch: Box<dyn Watch>,
    pub(super) ledger: Ledger,
}

pub(super) struct Court {
    pub(super) books: Vec<Book>,
    /// The fleet's registry, in which budgets are counted.
    pub(super) home: usize,
    pub(super) ways: BTreeMap<MachineId, Weather>,
    pub(super) places: BTreeMap<Seat, Place>,
    pub(super) files: BTreeMap<MachineId, Files>,
    /// The newest revision that a machine has acted on for sure.
    pub(super) knows: BTreeMap<MachineId, u64>,
    /// Machines that have seen a registry for sure when it was older than what they had acted on.
    pub(super) must_hold: BTreeSet<(MachineId, usize)>,
    /// Since when a machine has been shown one that is.
    older: BTreeMap<(MachineId, usize), Instant>,
    /// Machines that somebody made forget which registry is theirs.
    pub(super) forgot: BTreeSet<MachineId>,
    /// Machines that lost what says which units fleet started there.
    markless: BTreeSet<MachineId>,
    pub(super) foreign: BTreeMap<Seat, Instant>,
    /// Where the name was another's for a time: what fleet had started before it has given up.
    lent: BTreeSet<Seat>,
    /// Until when all of fleetd stands still on a machine, or stood.
    pub(super) frozen: BTreeMap<MachineId, Instant>,
    /// When somebody last changed a unit's file by hand.
    pub(super) edited: BTreeMap<Seat, Instant>,
    /// What is to be started after a boot.
    pub(super) booted: BTreeMap<MachineId, (Instant, BTreeSet<UnitName>)>,
    pub(super) by_hand: bool,
    pub(super) broken: Vec<String>,
    pub(super) most_down: usize,
    pub(super) judged: usize,
    pub(super) begin: Instant,
    pub(super) log: Option<Vec<String>>,
}

/// The referee. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Referee(Arc<Mutex<Court>>);

impl Referee {
    /// Follows that fleet from now on. `log`: whether all that happens is kept.
    pub(crate) async fn of(fleet: &Fleet, log: bool) -> Self {
        let machines = &fleet.machines;
        let files = machines.iter().map(|it| (it.id.clone(), Files::of(it)));
        let ways = machines
            .iter()
            .map(|it| (it.id.clone(), it.weather.clone()));
        let court = Court {
            books: Vec::new(),
            home: 0,
            ways: ways.collect(),
            places: BTreeMap::new(),
            files: files.collect(),
            knows: BTreeMap::new(),
            must_hold: BTreeSet::new(),
            older: BTreeMap::new(),
            forgot: BTreeSet::new(),
            markless: BTreeSet::new(),
            foreign: BTreeMap::new(),
            lent: BTreeSet::new(),
            frozen: BTreeMap::new(),
            edited: BTreeMap::new(),
            booted: BTreeMap::new(),
            by_hand: false,
            broken: Vec::new(),
            most_down: 0,
            judged: 0,
            begin: Instant::now(),
            log: log.then(Vec::new),
        };
        let referee = Self(Arc::new(Mutex::new(court)));
        for machine in machines {
            let (court, id) = (referee.clone(), machine.id.clone());
            machine.systemd.observe(move |name, happened| {
                court.court().judge((id.clone(), name.clone()), happened);
            });
            let (court, id) = (referee.clone(), machine.id.clone());
            let witness = move |name: &UnitName, method: &str| {
                court.court().touched(&(id.clone(), name.clone()), method);
            };
            let mut place = machine
                .hands
                .witness
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *place = Some(Box::new(witness));
        }
        referee
    }

    /// Follows another store from now on; answers its number. `like`: the number of the registry
    /// that it is a copy of; none for one that is no copy. The first is the fleet's own.
    pub(crate) async fn open(&self, store: &Embedded, like: Option<usize>) -> usize {
        let all = store.list(&[""]).await.expect("lists");
        let watch = store.watch(&[""], all.revision).await;
        let watch = watch.unwrap_or_else(|error| panic!("{error}"));
        let mut court = self.court();
        let number = court.books.len();
        let ledger = match like {
            Some(like) => Ledger::of(&all, court.books[like].ledger.rightful.clone()),
            None if number == 0 => Ledger::home(&all),
            None => Ledger::of(&all, None),
        };
        court.books.push(Book { watch, ledger });
        number
    }

    /// Follows every commit of a store in its moment, and not only when a unit changes.
    pub(crate) async fn follow(self, store: Embedded) {
        let after = store.list(&[keys::CLUSTER]).await.expect("lists").revision;
        let mut watch = store.watch(&[""], after).await.expect("watches");
        while watch.next().await.is_ok() {
            self.court().catch_up();
        }
    }

    /// From now on that is the fleet's registry.
    pub(crate) fn move_home(&self, number: usize) {
        let mut court = self.court();
        court.home = number;
        court.forget_counts();
    }

    /// Nobody can say any more what was taken down by what.
    pub(crate) fn forget_counts(&self) {
        self.court().forget_counts();
    }

    /// What is done in there is done by a person.
    pub(crate) fn by_hand<T>(&self, act: impl FnOnce() -> T) -> T {
        self.court().by_hand = true;
        let done = act();
        self.court().by_hand = false;
        done
    }

    /// Looks at all that lasts; answers what was broken so far.
    pub(crate) fn broken(&self) -> Vec<String> {
        let mut court = self.court();
        court.catch_up();
        court.look_at_files();
        court.look_at_boots();
        court.broken.clone()
    }

    /// How many changes were judged, and the most machines that were down by updates of one unit at
    /// once.
    pub(crate) fn seen(&self) -> (usize, usize) {
        let court = self.court();
        (court.judged, court.most_down)
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.court().log.clone().unwrap_or_default()
    }

    /// Reads what the fleet's registry says.
    pub(crate) fn ask<T>(&self, read: impl FnOnce(&Ledger) -> T) -> T {
        let mut court = self.court();
        court.catch_up();
        read(&court.books[court.home].ledger)
    }

    /// The version that was started last on a machine, if it is active.
    pub(crate) fn runs(&self, seat: &Seat) -> Option<u32> {
        let court = self.court();
        let place = court.places.get(seat).filter(|place| place.is_active);
        Some(place?.started?.version)
    }

    /// Whether somebody else's unit has that name there.
    pub(crate) fn is_foreign(&self, seat: &Seat) -> bool {
        self.court().foreign.contains_key(seat)
    }

    pub(crate) fn set_foreign(&self, seat: Seat, there: bool) {
        let mut court = self.court();
        if there {
            // No update of fleet's goes on there.
            if let Some(place) = court.places.get_mut(&seat) {
                place.taken_down = None;
            }
            court.lent.insert(seat.clone());
            court.foreign.entry(seat).or_insert_with(Instant::now);
        } else {
            court.foreign.remove(&seat);
        }
    }

    /// All of fleetd stands still there for so long.
    pub(crate) fn freezes(&self, id: &MachineId, time: Duration) {
        self.court()
            .frozen
            .insert(id.clone(), Instant::now() + time);
    }

    pub(crate) fn edits(&self, seat: Seat) {
        self.court().edited.insert(seat, Instant::now());
    }

    /// A machine was told by its owner to take whatever registry it sees.
    pub(crate) fn forgets(&self, id: &MachineId) {
        let mut court = self.court();
        court.forgot.insert(id.clone());
        court.knows.remove(id);
    }

    /// Whether nobody can know on the machine who started what runs there under that name.
    pub(crate) fn is_anybodys(&self, seat: &Seat) -> bool {
        let court = self.court();
        court.markless.contains(&seat.0) || court.lent.contains(seat)
    }

    /// A machine no longer knows what it started.
    pub(crate) fn loses_marks(&self, id: &MachineId) {
        let mut court = self.court();
        court.markless.insert(id.clone());
        let places = court.places.iter_mut().filter(|((at, _), _)| at == id);
        places.for_each(|(_, place)| place.is_launched = false);
    }

    /// A machine boots, and should start these.
    pub(crate) fn boots(&self, id: &MachineId, due: BTreeSet<UnitName>) {
        self.loses_marks(id);
        let mut court = self.court();
        court.markless.remove(id);
        court.booted.insert(id.clone(), (Instant::now(), due));
    }

    /// Something else happens to a machine that has just booted.
    pub(crate) fn excuses(&self, id: &MachineId) {
        self.court().booted.remove(id);
    }

    /// Somebody was told that a version is submitted.
    pub(crate) fn acknowledged(&self, version: u32) {
        let mut court = self.court();
        court.catch_up();
        let there = |book: &Book| book.ledger.versions.contains_key(&version);
        if !court.books.iter().any(there) {
            let text = format!("version {version} is acknowledged, and in no registry");
            court.broken.push(text);
        }
    }

    /// An engine has written something.
    pub(crate) fn engine_wrote(&self, me: &MachineId, (number, revision, writes): Landed<'_>) {
        let claims = |write: &Write| matches!(write, Write::Put { key, .. } if key == keys::LEADER);
        if writes.iter().any(claims) {
            return;
        }
        let mut court = self.court();
        court.catch_up();
        let ledger = &court.books[number].ledger;
        let leads = |at| ledger.leader_at(at) == Some(me);
        if !leads(revision) && !leads(revision - 1) {
            let short = short(me);
            let keys: Vec<&str> = writes
                .iter()
                .map(|it| match it {
                    Write::Put { key, .. } | Write::Delete(key) | Write::DeletePrefix(key) => {
                        key.as_str()
                    }
                })
                .collect();
            let who = ledger.leader_at(revision - 1).map(short_of);
            let text = format!(
                "a stale leader's write lands: {short} writes {keys:?} at {revision}, while {who:?} leads"
            );
            court.broken.push(text);
        }
    }

    pub(super) fn court(&self) -> MutexGuard<'_, Court> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn short(id: &MachineId) -> &str {
    id.as_str().trim_start_matches('0')
}

fn short_of(id: &MachineId) -> String {
    short(id).to_owned()
}

/// A commit as a line of the log. Folders have other names every time.
fn told(number: usize, batch: &Batch) -> String {
    let mut text = format!("{number} at {}:", batch.revision);
    for change in &batch.changes {
        text += &match change {
            Change::Put(key, entry) => {
                let value = String::from_utf8_lossy(&entry.value);
                let mut parts = value.split("/.tmp");
                let first = parts.next().unwrap_or_default().to_owned();
                let rest = parts.map(|part| part.get(6..).unwrap_or_default());
                format!(" {key}={}", rest.fold(first, |text, part| text + part))
            }
            Change::Delete(key) => format!(" -{key}"),
        };
    }
    text
}

impl Court {
    fn forget_counts(&mut self) {
        self.places
            .values_mut()
            .for_each(|place| place.taken_down = None);
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let at = self.begin.elapsed().as_micros();
            log.push(format!("{at} {}", what()));
        }
    }

    pub(super) fn catch_up(&mut self) {
        for number in 0..self.books.len() {
            while let Some(batch) = self.books[number].watch.next().now_or_never() {
                let batch = match batch {
                    Ok(batch) => batch,
                    Err(error) => {
                        return self.broken.push(format!("the referee is lost: {error}"));
                    }
                };
                self.note(|| told(number, &batch));
                let ledger = &mut self.books[number].ledger;
                let gone = ledger.take(&batch);
                self.broken.append(&mut ledger.wrong);
                if number == self.home {
                    for seat in gone {
                        if let Some(place) = self.places.get_mut(&seat) {
                            place.taken_down = None;
                        }
                    }
                }
            }
        }
        let ledger = &self.books[self.home].ledger;
        for (seat, place) in &mut self.places {
            let Some(by) = &place.taken_down else {
                continue;
            };
            let session = ledger.session(&seat.0);
            let report = ledger.report(seat).filter(|it| it.available);
            // To another session the grant says nothing, and is not confirmed; nor is one that
            // nobody can read any more.
            let confirms = |it: &UnitReport| it.grant >= by.revision;
            let is_void = session != Some(by.grant.session) || ledger.says_grant_is_lost(seat);
            if report.is_some_and(|it| confirms(it) || is_void) {
                place.taken_down = None;
            }
        }
    }

    fn look_at_files(&mut self) {
        for (id, files) in &mut self.files {
            let wrong = files.look();
            let texts = wrong
                .into_iter()
                .map(|it| format!("on {}: {it}", short(id)));
            self.broken.extend(texts);
            let known = files.known().unwrap_or_default();
            let knows = self.knows.entry(id.clone()).or_default();
            *knows = known.max(*knows);
            let shows = self.ways[id].shows();
            // One that grows past that at once is as new as what the machine has acted on when it
            // first looks.
            let seen = (id.clone(), shows);
            if self.books[shows].ledger.revision >= *knows {
                self.older.remove(&seen);
            } else if self
                .older
                .entry(seen.clone())
                .or_insert_with(Instant::now)
                .elapsed()
                >= HEARD
            {
                self.must_hold.insert(seen);
            }
        }
    }

    fn look_at_boots(&mut self) {
        let over = self.booted.iter();
        let over = over.filter(|(_, (at, _))| at.elapsed() > BOOT);
        let over: Vec<MachineId> = over.map(|(id, _)| id.clone()).collect();
        for id in over {
            let Some((_, due)) = self.booted.remove(&id) else {
                continue;
            };
            for name in due {
                let seat = (id.clone(), name);
                if !self.was_unwanted(&seat) && !self.foreign.contains_key(&seat) {
                    self.breaks(&seat, "it is lost by a reboot".to_owned());
                }
            }
        }
    }
}
