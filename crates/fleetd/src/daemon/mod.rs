//! The daemon: reads its configuration, and connects store, agent, engine, units directory and API.

mod address;
mod authorize;
mod connections;
mod files;
mod lock;
mod logging;
mod notify;
mod peers;
mod problems;
mod reload;
mod shares;
mod sockets;
mod stalled;
mod stdout;
mod tls;

use std::convert::Infallible;
use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fleet_core::machine::MachineId;
use fleet_core::record::MachineRecord;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};

use self::lock::LockError;
use self::peers::Groups;
use self::problems::Problems;
use self::reload::{Asked, Signals};
use self::sockets::{Listener, Opener};
use crate::agent::{self, Agent};
use crate::api;
use crate::config::{Args, EX_CONFIG, Note, Problem, Settings, check};
use crate::engine::Engine;
use crate::health::Heart;
use crate::registry::{Registry, random_id};
use crate::store::{Embedded, EtcdStore, Store};
use crate::systemd::Systemd as _;
use crate::systemd::dbus::Dbus;
use crate::units_dir::UnitsDir;

/// The time that fleetd waits at its end for other threads, such as one that waits for a name
/// server.
const END: Duration = Duration::from_millis(100);

/// The time between attempts at a state directory that cannot be written.
const DISK_AGAIN: Duration = Duration::from_secs(5);

/// Runs fleetd as the command line says. Exit codes: 0 stopped on request, 1 failure, 2 wrong
/// usage, 78 unusable configuration.
pub fn main() -> ExitCode {
    let args = Args::of(std::env::args_os());
    if args.check_config {
        let check = check::check(&args, std::env::vars_os(), look);
        return match stdout::print(&check.text) {
            Ok(()) => ExitCode::from(check.exit_code),
            Err(_) => ExitCode::FAILURE,
        };
    }
    let (settings, notes) = match Settings::load(&args, std::env::vars_os()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("fleetd: {error}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    let verbosity = logging::start(settings.verbosity);
    for note in notes.into_iter().chain(look(&settings).1) {
        tracing::warn!("{note}");
    }
    let source = reload::Source { args, verbosity };
    match on_a_thread(run(settings, source)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the problems with settings that do not stop fleetd, and notes for the operator.
fn look(settings: &Settings) -> (Vec<Problem>, Vec<Note>) {
    let problems = files::problems(settings).into_iter();
    let problems = problems.map(|(thing, why)| Problem(format!("{thing}: {why}")));
    let notes = files::exposed(settings).into_iter().map(Note);
    (problems.collect(), notes.collect())
}

/// Runs to the end on this thread alone. The work is mostly waiting, and each further thread is
/// memory on every host. Threads that still wait for a name server are left behind.
fn on_a_thread<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(END);
    result
}

async fn run(settings: Settings, source: reload::Source) -> Result<()> {
    let mut signals = Signals::take()?;
    let me = machine_id(Path::new("/etc/machine-id"))?;
    let problems = Problems::default();
    let runtime_directory = settings.units_directory.parent();
    let _lock = only_one(runtime_directory.unwrap_or(Path::new("/")), &problems)?;
    let state = match lock_state(&settings) {
        Err(error @ LockError::Held { .. }) => return Err(error.into()),
        state => state,
    };
    let stores = open_stores(&settings)?;
    let hearts = [Heart::default(), Heart::default()];

    let systemd = Arc::new(Dbus::new(settings.units_directory.clone()));
    let (record, presence) = watch::channel(machine_record(&settings));
    let agent = Agent::new(
        agent_config(&settings, &me, presence),
        stores.agent,
        systemd.clone(),
        hearts[0].clone(),
    );
    let registry = Registry::new(stores.directory).trusting(agent.trust());
    let api = Registry::new(stores.api).trusting(agent.trust());
    let engine = Engine::new(stores.engine, me.clone(), hearts[1].clone(), random_id);
    let engine = engine.trusting(agent.trust());
    let (of_directory, directory_problems) = watch::channel(Default::default());
    let publisher = crate::registry::AsOwner {
        registry,
        machine: me.clone(),
    };
    let units_dir = UnitsDir::new(
        &settings.source_directory,
        &settings.state_directory,
        &me,
        Arc::new(publisher),
        crate::registry::check,
        of_directory,
    )
    .comparing(agent.newest());
    let (opener, listeners) = Opener::new(&settings, &problems);
    let router = api::router(api, settings.token_limit);
    let (stop, stopping) = watch::channel(false);

    tracing::info!(version = env!("CARGO_PKG_VERSION"), machine = %me, "fleetd is up");
    notify::ready();
    let status = notify::keep_telling(
        agent.standing(),
        engine.claims(),
        problems.subscribe(),
        hearts.to_vec(),
    );
    let engine = async {
        if settings.disable_engine {
            let mut stopping = stopping.clone();
            let _ = stopping.wait_for(|stop| *stop).await;
        } else {
            engine.run(stopping.clone()).await;
        }
    };
    let units_dir = match settings.disable_engine {
        true => units_dir.idle(),
        false => units_dir,
    };
    let units_dir = units_dir.run();
    let (all, all_problems) = watch::channel(Default::default());
    let (groups, rules) = watch::channel(Groups::of(&settings));
    rules.borrow().tell();
    let serving = serve_apart(listeners, router, rules)?;
    let followed = async {
        tokio::join!(
            problems::join(problems.subscribe(), directory_problems, all),
            keep_state(&settings, state, &problems),
            files::watch(&settings, &problems),
            opener.run(&systemd),
            keep_address(&settings, record.clone()),
        )
        .0
    };
    let standing = agent.standing();
    let goodbye = agent.goodbye();
    let agent = agent.run(all_problems);
    let mut configuration = source.follow(record.clone(), groups);
    let asked = async {
        loop {
            match signals.next().await {
                Asked::Stop => break,
                Asked::Reload => configuration.reload(),
                Asked::Log => reload::log(&standing.borrow().clone()),
            }
        }
    };
    // A part that ends on its own is a fault. The service manager then starts a whole daemon again,
    // which no unit notices.
    tokio::pin!(engine, agent);
    tokio::select! {
        () = &mut agent => bail!("the agent ended"),
        () = &mut engine => bail!("the engine ended"),
        never = units_dir => match never {},
        _ = serving => bail!("the API ended"),
        never = followed => match never {},
        () = status => bail!("the watchdog ended"),
        () = asked => {
            notify::stopping();
            let time = settings.etcd.request_timeout;
            if systemd.is_shutting_down().await {
                tracing::info!("stopping: the host is shutting down");
                let said = async { tokio::select! { () = goodbye.say() => {}, () = &mut agent => {} } };
                if tokio::time::timeout(time, said).await.is_err() {
                    tracing::warn!("the registry did not take that the host is shutting down");
                }
            } else {
                tracing::info!("stopping; units run on");
            }
            stop.send_replace(true);
            // Only the claim is released, so that another engine leads at once.
            let _ = tokio::time::timeout(time, engine).await;
            Ok(())
        }
    }
}

/// Serves the API on a thread of its own, so that clients delay neither the agent nor the leader.
/// The receiver ends with it.
fn serve_apart(
    listeners: mpsc::UnboundedReceiver<Listener>,
    router: axum::Router,
    groups: watch::Receiver<Groups>,
) -> Result<oneshot::Receiver<Infallible>> {
    let (ended, serving) = oneshot::channel();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("fleetd-api".to_owned())
        .spawn(move || {
            // It is dropped when the thread ends, which is a fault.
            let _ended = ended;
            runtime.block_on(sockets::serve(listeners, router, groups))
        })?;
    Ok(serving)
}

/// Makes sure that no other fleetd runs these units. A lock that cannot be used for another reason
/// stops no unit.
fn only_one(runtime_directory: &Path, problems: &Problems) -> Result<Option<File>> {
    let made = fs::create_dir_all(runtime_directory);
    match lock::take(runtime_directory, "fleetd.lock") {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ LockError::Held { .. }) => Err(error.into()),
        Err(error) => {
            let why = made.err().map(|error| format!(" ({error})"));
            let why = format!("{error}{}", why.unwrap_or_default());
            problems.set("runtime directory", Some(why));
            Ok(None)
        }
    }
}

fn lock_state(settings: &Settings) -> Result<File, LockError> {
    // The lock reports what is wrong with it.
    let _ = fs::create_dir_all(&settings.state_directory);
    lock::take(&settings.state_directory, "lock")
}

/// Keeps the lock of the state directory, and takes it as soon as the directory can be written.
async fn keep_state(settings: &Settings, mut state: Result<File, LockError>, problems: &Problems) {
    while let Err(error) = &state {
        let text = format!(
            "{error}: units run on and follow the registry; after a reboot without it, this machine starts what it knew before"
        );
        problems.set("state_directory", Some(text));
        tokio::time::sleep(DISK_AGAIN).await;
        state = lock_state(settings);
    }
    problems.set("state_directory", None);
    std::future::pending().await
}

async fn keep_address(settings: &Settings, record: watch::Sender<MachineRecord>) {
    if settings.public_ip.is_some() {
        return;
    }
    let endpoints = match settings.standalone {
        true => &[],
        false => &settings.etcd.endpoints[..],
    };
    address::follow(endpoints, &record).await;
}

/// The registry's store, in one variant for each user.
struct Stores {
    /// The API's store, over a connection of its own. A person waits for each answer.
    api: Arc<dyn Store>,
    /// The units directory's store.
    directory: Arc<dyn Store>,
    /// The agent's store. The agent is one of thousands, and may wait as long as its lease lasts.
    agent: Arc<dyn Store>,
    /// The engine's store. Another engine should soon replace one that cannot reach etcd.
    engine: Arc<dyn Store>,
}

fn open_stores(settings: &Settings) -> Result<Stores> {
    if settings.standalone {
        let file = settings.state_directory.join("registry.json");
        let store = Arc::new(Embedded::open(&file)?);
        return Ok(Stores {
            api: store.clone(),
            directory: store.clone(),
            agent: store.clone(),
            engine: store,
        });
    }
    let store = EtcdStore::new(settings.etcd.clone())?;
    Ok(Stores {
        agent: Arc::new(store.for_agent()),
        engine: Arc::new(store.for_engine()),
        api: Arc::new(EtcdStore::new(settings.etcd.clone())?),
        directory: Arc::new(store),
    })
}

/// Returns what is known of the machine before any request.
fn machine_record(settings: &Settings) -> MachineRecord {
    let configured = settings.public_ip.map(|address| address.to_string());
    MachineRecord {
        session: 0,
        primary_ip: configured.unwrap_or_default(),
        metadata: settings.metadata.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn agent_config(
    settings: &Settings,
    me: &MachineId,
    presence: watch::Receiver<MachineRecord>,
) -> agent::Config {
    let runtime = settings.units_directory.parent().unwrap_or(Path::new("/"));
    agent::Config {
        me: me.clone(),
        presence,
        ttl: settings.agent_ttl,
        desired_file: settings.state_directory.join("desired.json"),
        marks_file: Some(runtime.join("marks.json")),
    }
}

fn machine_id(path: &Path) -> Result<MachineId> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "{} is needed: systemd-machine-id-setup makes it",
            path.display()
        )
    })?;
    MachineId::parse(&text).with_context(|| format!("{} cannot be used", path.display()))
}
