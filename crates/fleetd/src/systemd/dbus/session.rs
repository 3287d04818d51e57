//! The connection to the system bus: made when first needed, made again whenever the bus or PID 1
//! went.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet_core::unit::{UnitKind, UnitName};
use futures_util::StreamExt as _;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use zbus::{Array, Connection, Message, MessageStream, OwnedVariant, fdo};

use super::jobs::Jobs;
use super::proxy::{MANAGER_PATH, ManagerProxy, SYSTEMD, unit_object, unit_of_object};
use crate::systemd::changes::Changes;
use crate::systemd::{JobResult, Result, SystemdError};

/// How long a call may take, as sd-bus has it. zbus has no bound of its own.
pub(super) const CALL: Duration = Duration::from_secs(25);
/// How long a daemon-reload may take: it runs all generators, and systemd gives these 90 s.
pub(super) const RELOAD: Duration = Duration::from_secs(100);

/// The first and the longest pause between attempts to connect. `systemctl daemon-reexec` is over
/// within the first few; a bus that is away for minutes costs one failed connect in five seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

const BUS: &str = "org.freedesktop.DBus";

/// All that fleet listens to. One rule covers every unit; [`Changes`] drops those that are not
/// fleet's. The bus checks the rules: it would be for nothing to match each message here again.
const MATCHES: [&str; 4] = [
    "type='signal',sender='org.freedesktop.systemd1',\
     interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',\
     path_namespace='/org/freedesktop/systemd1/unit',arg0='org.freedesktop.systemd1.Unit'",
    "type='signal',sender='org.freedesktop.systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='JobRemoved'",
    "type='signal',sender='org.freedesktop.systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='Reloading'",
    "type='signal',sender='org.freedesktop.DBus',\
     interface='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.freedesktop.systemd1'",
];

/// One connection to one run of PID 1. It serves until either goes.
pub(super) struct Session {
    connection: Connection,
    /// The calls of the manager; always within [`Session::ask`].
    pub(super) manager: ManagerProxy<'static>,
    /// The directories that systemd reads unit files from, the strongest first.
    pub(super) unit_path: Vec<PathBuf>,
    /// How often this run of PID 1 has rebooted without the kernel; 0 before systemd 254, which
    /// cannot.
    pub(super) soft_reboots: u32,
    /// PID 1's own name at the bus: a signal that anybody else sends us is not believed.
    owner: String,
    /// Units that systemd keeps for us while this connection lasts.
    kept: Mutex<BTreeSet<UnitName>>,
    stuck: Notify,
}

impl Session {
    /// Connects, and reads what comes meanwhile: on a busy host more than the stream holds may come
    /// before the last answer. No unit was read through this session yet, so nothing is missed.
    async fn open() -> Result<(Self, MessageStream)> {
        let connection = Connection::system().await.map_err(meaning)?;
        let mut signals = MessageStream::from(&connection);
        let greeting = Self::greet(connection);
        tokio::pin!(greeting);
        loop {
            tokio::select! {
                session = &mut greeting => return Ok((session?, signals)),
                message = signals.next() => match message {
                    Some(Ok(message)) if !is(&message, "NameOwnerChanged") => {}
                    _ => return Err(SystemdError::Unavailable("systemd left the bus".to_owned())),
                },
            }
        }
    }

    async fn greet(connection: Connection) -> Result<Self> {
        for rule in MATCHES {
            ask_bus(&connection, "AddMatch", rule).await?;
        }
        let owner = ask_bus(&connection, "GetNameOwner", SYSTEMD).await?;
        let owner = owner.body().deserialize().map_err(meaning)?;
        let manager = ManagerProxy::new(&connection).await.map_err(meaning)?;
        manager.subscribe().await.map_err(meaning)?;
        let mut session = Self {
            connection,
            manager,
            unit_path: Vec::new(),
            soft_reboots: 0,
            owner,
            kept: Mutex::default(),
            stuck: Notify::new(),
        };
        let manager = "org.freedesktop.systemd1.Manager";
        let soft_reboots = session.property(MANAGER_PATH, manager, "SoftRebootsCount");
        session.soft_reboots = soft_reboots.await?.unwrap_or_default();
        let directories: Option<Vec<String>> =
            session.property(MANAGER_PATH, manager, "UnitPath").await?;
        // Without them every name would seem to be free.
        let directories = directories.ok_or_else(|| {
            SystemdError::Unavailable("it does not say where its unit files are".to_owned())
        })?;
        session.unit_path = directories.into_iter().map(PathBuf::from).collect();
        Ok(session)
    }

    /// Waits for a call's answer, within a bound. Without an answer the session ends: PID 1 hangs,
    /// or the message went out in part and nothing behind it would be understood.
    pub(super) async fn ask<T>(
        &self,
        bound: Duration,
        call: impl Future<Output = zbus::Result<T>>,
    ) -> Result<T> {
        match timeout(bound, call).await {
            Ok(answer) => answer.map_err(meaning),
            Err(_) => {
                self.stuck.notify_one();
                Err(SystemdError::Unavailable(format!(
                    "no answer within {} s",
                    bound.as_secs()
                )))
            }
        }
    }

    /// One property; none if the object has no such interface or property, or is gone.
    pub(super) async fn property<T>(
        &self,
        object: &str,
        interface: &str,
        name: &str,
    ) -> Result<Option<T>>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        let get = async {
            let reply = self
                .connection
                .call_method(
                    Some(SYSTEMD),
                    object,
                    Some("org.freedesktop.DBus.Properties"),
                    "Get",
                    &(interface, name),
                )
                .await;
            match reply {
                Ok(reply) => {
                    let value: OwnedVariant = reply.body().deserialize()?;
                    T::try_from(value).map(Some).map_err(Into::into)
                }
                Err(zbus::Error::FDO(error))
                    if matches!(
                        *error,
                        fdo::Error::UnknownInterface(_)
                            | fdo::Error::UnknownProperty(_)
                            | fdo::Error::UnknownObject(_)
                    ) =>
                {
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        self.ask(CALL, get).await
    }

    /// Has systemd keep a unit that has conditions: it would forget at once that it skipped its
    /// start.
    pub(super) async fn keep(&self, name: &UnitName) -> Result<()> {
        if self.kept().contains(name) {
            return Ok(());
        }
        let object = unit_object(name.as_str());
        let unit = "org.freedesktop.systemd1.Unit";
        let service = "org.freedesktop.systemd1.Service";
        let conditions: Option<Array<'static>> = self.property(&object, unit, "Conditions").await?;
        let commands: Option<Array<'static>> = match name.kind() {
            UnitKind::Service => self.property(&object, service, "ExecCondition").await?,
            _ => None,
        };
        let has_some = |list: Option<Array<'static>>| list.is_some_and(|list| !list.is_empty());
        if has_some(conditions) || has_some(commands) {
            self.ask(CALL, self.manager.ref_unit(name.as_str())).await?;
            self.kept().insert(name.clone());
        }
        Ok(())
    }

    /// Lets systemd forget it.
    pub(super) async fn release(&self, name: &UnitName) -> Result<()> {
        if self.kept().remove(name) {
            let unref = self.manager.unref_unit(name.as_str());
            self.ask(CALL, unref).await?;
        }
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, BTreeSet<UnitName>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads signals until the session is over, and says why it is. It only marks: no signal's
    /// content becomes a state. It never waits for anything else, since an unread stream holds up
    /// every answer too.
    async fn drain(&self, mut signals: MessageStream, changes: &Changes, jobs: &Jobs) -> String {
        loop {
            let message = tokio::select! {
                message = signals.next() => message,
                () = self.stuck.notified() => return "systemd does not answer".to_owned(),
            };
            let message = match message {
                Some(Ok(message)) => message,
                Some(Err(error)) => return error.to_string(),
                None => return "the bus closed the connection".to_owned(),
            };
            let header = message.header();
            let sender = header.sender().map_or("", |name| name.as_str());
            if sender != self.owner && sender != BUS {
                continue;
            }
            match header.member().map_or("", |member| member.as_str()) {
                "PropertiesChanged" => {
                    if let Some(unit) = header.path().and_then(|path| unit_of_object(path)) {
                        changes.mark(&unit);
                    }
                }
                "JobRemoved" => {
                    let body = message.body();
                    if let Ok((_, job, unit, result)) =
                        body.deserialize::<(u32, zbus::ObjectPath<'_>, &str, &str)>()
                    {
                        jobs.done(unit, job.as_str(), JobResult::from(result.to_owned()));
                        changes.mark(unit);
                    }
                }
                // Told before (true) and after (false); before it there is nothing new to see.
                "Reloading" => {
                    if let Ok(false) = message.body().deserialize::<bool>() {
                        changes.mark_reloaded();
                    }
                }
                "NameOwnerChanged" if sender == BUS => {
                    return "systemd left the bus".to_owned();
                }
                _ => {}
            }
        }
    }
}

async fn ask_bus(connection: &Connection, method: &str, argument: &str) -> Result<Message> {
    let path = "/org/freedesktop/DBus";
    let call = connection.call_method(Some(BUS), path, Some(BUS), method, &argument);
    call.await.map_err(meaning)
}

fn is(message: &Message, member: &str) -> bool {
    message
        .header()
        .member()
        .is_some_and(|name| name.as_str() == member)
}

#[derive(Clone)]
enum Link {
    Connecting,
    Up(Arc<Session>),
    Down(String),
}

/// Keeps a session, in a task of its own that ends with this value.
pub(super) struct Bus {
    link: watch::Receiver<Link>,
    task: JoinHandle<()>,
}

impl Bus {
    /// Starts connecting.
    pub(super) fn connect(changes: Arc<Changes>, jobs: Arc<Jobs>) -> Self {
        let (sender, link) = watch::channel(Link::Connecting);
        Self {
            link,
            task: tokio::spawn(keep_connected(sender, changes, jobs)),
        }
    }

    /// The session. Waits for the first attempt to connect, later answers at once.
    pub(super) async fn session(&self) -> Result<Arc<Session>> {
        let mut link = self.link.clone();
        match link
            .wait_for(|link| !matches!(link, Link::Connecting))
            .await
            .as_deref()
        {
            Ok(Link::Up(session)) => Ok(session.clone()),
            Ok(Link::Down(why)) => Err(SystemdError::Unavailable(why.clone())),
            Ok(Link::Connecting) | Err(_) => {
                Err(SystemdError::Unavailable("fleetd is stopping".to_owned()))
            }
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_connected(link: watch::Sender<Link>, changes: Arc<Changes>, jobs: Arc<Jobs>) {
    let mut pause = FIRST_PAUSE;
    let mut first = true;
    loop {
        let opened = timeout(CALL, Session::open()).await.unwrap_or_else(|_| {
            Err(SystemdError::Unavailable(format!(
                "no connection within {} s",
                CALL.as_secs()
            )))
        });
        let why = match opened {
            Ok((session, signals)) => {
                pause = FIRST_PAUSE;
                let session = Arc::new(session);
                link.send_replace(Link::Up(session.clone()));
                // Changes during the interruption are unknown. Before the first session no unit was
                // read.
                if !first {
                    changes.mark_all();
                }
                let why = session.drain(signals, &changes, &jobs).await;
                tracing::warn!("lost systemd: {why}; its units run on, connecting again");
                why
            }
            Err(SystemdError::Unavailable(why)) => why,
            Err(error) => error.to_string(),
        };
        first = false;
        link.send_replace(Link::Down(why));
        jobs.clear();
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What an error means for the caller: look again later, or systemd said no.
fn meaning(error: zbus::Error) -> SystemdError {
    use fdo::Error as Fdo;
    use zbus::DBusError as _;
    match error {
        zbus::Error::MethodError(name, text, _) => {
            let text = text.unwrap_or_else(|| name.to_string());
            match name.as_str() {
                "org.freedesktop.systemd1.ShuttingDown" => SystemdError::Unavailable(text),
                _ => SystemdError::Refused(text),
            }
        }
        zbus::Error::FDO(error) => {
            let text = error
                .description()
                .map_or_else(|| error.to_string(), str::to_owned);
            match *error {
                Fdo::ZBus(error) => meaning(error),
                Fdo::ServiceUnknown(_)
                | Fdo::NameHasNoOwner(_)
                | Fdo::NoReply(_)
                | Fdo::Disconnected(_)
                | Fdo::Timeout(_)
                | Fdo::TimedOut(_)
                | Fdo::LimitsExceeded(_) => SystemdError::Unavailable(text),
                _ => SystemdError::Refused(text),
            }
        }
        error => SystemdError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_that_is_away_means_later_and_a_no_of_systemd_means_no() {
        let gone = fdo::Error::NoReply("Remote peer disconnected".to_owned());
        assert!(matches!(
            meaning(zbus::Error::FDO(Box::new(gone))),
            SystemdError::Unavailable(_)
        ));
        let no = fdo::Error::FileExists("File /run/x exists".to_owned());
        assert_eq!(
            meaning(zbus::Error::FDO(Box::new(no))).to_string(),
            "systemd refused: File /run/x exists"
        );
    }
}
