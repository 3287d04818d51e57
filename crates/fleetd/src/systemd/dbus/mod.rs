//! The real systemd: unit files in a directory of fleet's, the manager over the system bus.

mod files;
mod jobs;
mod link_batch;
mod links;
mod proxy;
mod session;
mod shutdown;
mod tamper_watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::systemd::State;
use fleet_core::unit::{Content, UnitKind, UnitName};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;
use zbus::OwnedObjectPath;

use super::changes::Changes;
use super::{Details, Dirty, Ended, Links, OnDisk, Result, Systemd, SystemdError};
use files::Directory;
use jobs::Jobs;
use link_batch::Linking;
use proxy::{UnitRow, can_exist, unit_object};
use session::{Bus, CALL, RELOAD, Session};
use tamper_watch::Guard;

/// A new job takes the place of one that waits, as `systemctl start` does it.
const MODE: &str = "replace";
/// Links of fleet live in /run and go with a reboot, as its files do.
const RUNTIME: bool = true;
/// Never replace a link that leads elsewhere: it is somebody else's unit.
const FORCE: bool = false;

/// This machine's systemd.
pub struct Dbus {
    directory: Directory,
    changes: Arc<Changes>,
    jobs: Arc<Jobs>,
    linking: Linking,
    bus: OnceLock<Bus>,
    guard: OnceLock<Guard>,
}

impl Dbus {
    /// Keeps unit files in this directory, an absolute path. The system bus is connected to on
    /// first use.
    pub fn new(units_directory: PathBuf) -> Self {
        Self {
            directory: Directory::new(units_directory),
            changes: Arc::new(Changes::new()),
            jobs: Arc::new(Jobs::new()),
            linking: Linking::default(),
            bus: OnceLock::new(),
            guard: OnceLock::new(),
        }
    }

    fn bus(&self) -> &Bus {
        self.bus
            .get_or_init(|| Bus::connect(self.changes.clone(), self.jobs.clone()))
    }

    fn guard(&self) -> &Guard {
        self.guard
            .get_or_init(|| Guard::post(self.changes.clone(), self.directory.path()))
    }

    async fn session(&self) -> Result<Arc<Session>> {
        self.bus().session().await
    }

    /// Returns where a socket unit listens, as pairs such as `Stream` and `/run/fleet.sock`;
    /// nothing if there is none.
    pub async fn listens(&self, socket: &str) -> Result<Vec<(String, String)>> {
        let session = self.session().await?;
        let interface = "org.freedesktop.systemd1.Socket";
        let object = unit_object(socket);
        let listens = session.property(&object, interface, "Listen").await?;
        Ok(listens.unwrap_or_default())
    }

    async fn job(&self, method: &str, name: &UnitName) -> Result<()> {
        let slot = self.jobs.take(name.as_str(), method == "StopUnit").await?;
        // Only now: the wait may outlive a session.
        let session = self.session().await?;
        if method != "StopUnit" {
            forget_failures(&session, name).await?;
            if self.may_have_conditions(&session, name)? {
                session.keep(name).await?;
            }
        }
        let arguments = (name.as_str(), MODE);
        let job = session.manager.inner().call(method, &arguments);
        let object: OwnedObjectPath = session.ask(CALL, job).await?;
        slot.keep(object.as_str());
        Ok(())
    }

    /// Whether systemd may find a condition of this unit: in its file, or in a drop-in. To
    /// have systemd tell costs it as much as a start: it reads the file, and forgets it again.
    fn may_have_conditions(&self, session: &Session, name: &UnitName) -> Result<bool> {
        let content = self.directory.read_one(name)?;
        // A unit that is installed may have other names, with drop-ins of theirs.
        let is_plain = |text: &str| !text.contains("Condition") && !text.contains("[Install]");
        let is_plain = content.is_some_and(|it| str::from_utf8(it.as_bytes()).is_ok_and(is_plain));
        Ok(!is_plain || links::has_drop_ins(&session.unit_path, name))
    }

    /// The units that are up in a slice.
    async fn members(&self, session: &Session, name: &UnitName) -> Result<BTreeSet<String>> {
        if name.kind() != UnitKind::Slice {
            return Ok(BTreeSet::new());
        }
        let object = unit_object(name.as_str());
        let unit = "org.freedesktop.systemd1.Unit";
        let members: Option<Vec<String>> = session.property(&object, unit, "RequiredBy").await?;
        let members = members.unwrap_or_default();
        if members.is_empty() {
            return Ok(BTreeSet::new());
        }
        let names: Vec<&str> = members.iter().map(String::as_str).collect();
        let rows = session
            .ask(CALL, session.manager.list_units_by_names(&names))
            .await?;
        let rows = members.into_iter().zip(rows);
        let up = rows.filter(|(_, row)| state(row.clone()).is_up());
        Ok(up.map(|(member, _)| member).collect())
    }

    /// The path systemd is told. A directory whose path is not UTF-8 cannot be told.
    fn path(&self, name: &UnitName) -> Result<String> {
        let path = self.directory.file(name);
        path.to_str().map(str::to_owned).ok_or_else(|| {
            SystemdError::File(format!("{}: the path must be UTF-8", path.display()))
        })
    }
}

#[async_trait]
impl Systemd for Dbus {
    async fn changed(&self) -> Dirty {
        self.bus();
        self.guard();
        self.changes.next().await
    }

    fn looking(&self, names: &BTreeSet<UnitName>) -> BTreeSet<UnitName> {
        self.changes.looking(names)
    }

    fn ended(&self, name: &UnitName) -> Option<Ended> {
        self.jobs.take_end(name.as_str())
    }

    fn forget(&self, name: &UnitName) {
        self.changes.forget(name);
        self.jobs.take_end(name.as_str());
    }

    async fn soft_reboots(&self) -> Result<u32> {
        Ok(self.session().await?.soft_reboots)
    }

    async fn files(&self) -> Result<BTreeMap<UnitName, Content>> {
        // A directory that was re-created is watched from here on.
        self.guard().watch();
        self.directory.read()
    }

    async fn on_disk(&self, name: &UnitName) -> Result<OnDisk> {
        Ok(OnDisk {
            file: self.directory.read_one(name)?,
            linked: links::is_linked(Path::new(links::RUNTIME), &self.directory, name),
        })
    }

    async fn states(&self, names: &BTreeSet<UnitName>) -> Result<BTreeMap<UnitName, State>> {
        // Followed before they are read: a change in between is then told, and read again.
        for name in names {
            self.changes.follow(name);
        }
        let mut states: BTreeMap<_, _> = names
            .iter()
            .map(|name| (name.clone(), State::not_found()))
            .collect();
        // systemd has no unit of a template: it reads the file when it makes an instance.
        for (name, state) in states.iter_mut().filter(|(name, _)| name.is_template()) {
            if links::is_linked(Path::new(links::RUNTIME), &self.directory, name) {
                state.load = "loaded".to_owned();
            }
        }
        let asked: Vec<_> = names.iter().filter(|name| can_exist(name)).collect();
        if !asked.is_empty() {
            let texts: Vec<_> = asked.iter().map(|name| name.as_str()).collect();
            let session = self.session().await?;
            let rows = session
                .ask(CALL, session.manager.list_units_by_names(&texts))
                .await?;
            for (name, row) in asked.iter().zip(&rows) {
                let (.., job, kind, object) = row;
                if *job != 0 {
                    self.jobs
                        .seen(name.as_str(), object.as_str(), kind == "stop");
                }
            }
            // In the order asked for. A row's own name may be another one: the unit that this is an
            // alias of.
            states.extend(asked.into_iter().cloned().zip(rows.into_iter().map(state)));
        }
        Ok(states)
    }

    async fn details(&self, name: &UnitName, state: &State) -> Result<Details> {
        if !can_exist(name) {
            return Ok(Details::default());
        }
        let session = self.session().await?;
        let object = unit_object(name.as_str());
        let unit = "org.freedesktop.systemd1.Unit";
        let own = format!("org.freedesktop.systemd1.{}", interface(name.kind()));
        let since = || session.property::<u64>(&object, unit, "StateChangeTimestamp");
        let checked = || session.property::<u64>(&object, unit, "ConditionTimestampMonotonic");
        // systemd reads the file of a unit that is not in memory again for each answer, and then
        // reports only success.
        if state.active == "inactive"
            && since().await?.unwrap_or_default() == 0
            && (!self.may_have_conditions(&session, name)?
                || checked().await?.unwrap_or_default() == 0)
        {
            return Ok(Details {
                result: first_result(name.kind()).to_owned(),
                ..Details::default()
            });
        }
        // Sent together: they cost one round trip.
        let (since, checked, active_since, invocation, met, restarts, result) = tokio::try_join!(
            since(),
            checked(),
            session.property::<u64>(&object, unit, "ActiveEnterTimestampMonotonic"),
            session.property::<Vec<u8>>(&object, unit, "InvocationID"),
            session.property::<bool>(&object, unit, "ConditionResult"),
            async {
                match name.kind() {
                    UnitKind::Service => session.property::<u32>(&object, &own, "NRestarts").await,
                    _ => Ok(None),
                }
            },
            session.property::<String>(&object, &own, "Result"),
        )?;
        Ok(Details {
            since: since.unwrap_or_default() / 1000,
            active_since: active_since.and_then(moment),
            restarts: restarts.unwrap_or_default(),
            run: invocation.map(run).unwrap_or_default(),
            // "Not met" is also what systemd says of conditions that it never looked at.
            skipped: checked > Some(0) && met == Some(false)
                || state.active == "inactive" && result.as_deref() == Some("exec-condition"),
            result: result.unwrap_or_default(),
            members: self.members(&session, name).await?,
        })
    }

    async fn foreign(&self, name: &UnitName, state: &State) -> Result<Option<String>> {
        let session = self.session().await?;
        if let Some(path) = links::clash(&session.unit_path, &self.directory, name) {
            return Ok(Some(path));
        }
        if !can_exist(name) || self.directory.has(name) {
            return Ok(None);
        }
        // A slice without a file is nobody's: systemd makes it for any unit that names it.
        if name.kind() == UnitKind::Slice && !matches!(name.stem(), "-" | "system") {
            return Ok(None);
        }
        // It is `loaded` as soon as it is asked for, so inactive does not count.
        if state.load != "loaded" || state.active == "inactive" {
            return Ok(None);
        }
        // One that fleet removed and that still stops has a path, though nothing is there any more.
        let fragment: Option<String> = session
            .property(
                &unit_object(name.as_str()),
                "org.freedesktop.systemd1.Unit",
                "FragmentPath",
            )
            .await?;
        Ok(fragment
            .is_none_or(|path| path.is_empty())
            .then(|| "systemd has it without a unit file".to_owned()))
    }

    async fn write(&self, name: &UnitName, content: &Content) -> Result<()> {
        self.changes.follow(name);
        self.directory.create()?;
        // Somebody may have removed it, or it was not there yet.
        self.guard().watch();
        self.directory.write(name, content)
    }

    async fn link(&self, name: &UnitName, links: Links) -> Result<()> {
        let path = self.path(name)?;
        let session = self.session().await?;
        // systemd itself would overwrite nothing, but it would enable another's unit that shadows
        // this one.
        if let Some(other) = links::clash(&session.unit_path, &self.directory, name) {
            return Err(SystemdError::Refused(format!(
                "unit {name} is there already: {other}; remove it, or give fleet's unit another name"
            )));
        }
        let runtime = Path::new(links::RUNTIME);
        if links.anew {
            // Only a unit that was linked before can have left links of an older [Install] section.
            if runtime.join(name.as_str()).is_symlink() {
                links::uninstall(runtime, &self.directory, name)?;
            }
        } else if !links.install && links::is_linked(runtime, &self.directory, name) {
            return Ok(());
        }
        if links.install {
            let files = [&*path];
            let enable = session.manager.enable_unit_files(&files, RUNTIME, FORCE);
            session.ask(CALL, enable).await.map(drop)
        } else {
            self.linking.link(&session, path).await
        }
    }

    async fn remove(&self, name: &UnitName) -> Result<()> {
        let session = self.session().await?;
        links::remove(Path::new(links::RUNTIME), &self.directory, name)?;
        if can_exist(name) {
            forget_failures(&session, name).await?;
        }
        session.release(name).await?;
        // Last: as long as the file is there, a removal that stopped half way is seen and done
        // again.
        self.directory.remove(name)
    }

    async fn reload(&self) -> Result<()> {
        let session = self.session().await?;
        session.ask(RELOAD, session.manager.reload()).await
    }

    async fn is_shutting_down(&self) -> bool {
        shutdown::is_under_way(self.session()).await
    }

    async fn start(&self, name: &UnitName) -> Result<()> {
        self.job("StartUnit", name).await
    }

    async fn restart(&self, name: &UnitName) -> Result<()> {
        self.job("RestartUnit", name).await
    }

    async fn stop(&self, name: &UnitName) -> Result<()> {
        self.job("StopUnit", name).await
    }
}

/// Sets its counts of failures, of restarts, and of starts that are limited to 0. systemd does not
/// do so for a restart of a unit that crashes in a loop, and would refuse what follows the crashes
/// for all that they used up.
///
/// It waits for no answer: a unit that is not loaded has no failure to forget, and systemd handles
/// the next request after this one.
async fn forget_failures(session: &Session, name: &UnitName) -> Result<()> {
    let (manager, arguments) = (session.manager.inner(), (name.as_str(),));
    let reset = manager.call_noreply("ResetFailedUnit", &arguments);
    session.ask(CALL, reset).await
}

/// An invocation's id as people write it; empty if there was none.
fn run(id: Vec<u8>) -> String {
    if id.iter().all(|byte| *byte == 0) {
        return String::new();
    }
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The moment at which the monotonic clock showed that many microseconds.
fn moment(micros: u64) -> Option<Instant> {
    let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).ok()?;
    let passed = now.saturating_sub(Duration::from_micros(micros));
    Instant::now().checked_sub(passed)
}

fn state(row: UnitRow) -> State {
    let (_, _, load, active, sub, _, _, job, kind, _) = row;
    State {
        load,
        active,
        sub,
        job: (job != 0).then_some(kind),
    }
}

/// What systemd says of the last run of a unit that had none; some kinds have no such property.
fn first_result(kind: UnitKind) -> &'static str {
    match kind {
        UnitKind::Device | UnitKind::Slice | UnitKind::Target => "",
        _ => "success",
    }
}

/// The interface of a kind of unit, below systemd's own name: `Service` of `service`.
fn interface(kind: UnitKind) -> String {
    let mut name = kind.as_str().to_owned();
    name[..1].make_ascii_uppercase();
    name
}
