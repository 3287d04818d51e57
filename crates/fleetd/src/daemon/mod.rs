//! The daemon: reads its configuration, and puts store, agent, engine, units directory and API together.

mod address;
mod authorize;
mod connections;
mod lock;
mod logging;
mod notify;
mod peers;
mod sockets;
mod stdout;
mod tls;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use fleet_core::machine::MachineId;
use fleet_core::record::{MachineRecord, Owner};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::agent::{self, Agent};
use crate::api;
use crate::config::{Args, EX_CONFIG, Settings, check};
use crate::engine::Engine;
use crate::health::Heart;
use crate::registry::{Registry, random_id};
use crate::store::{Embedded, EtcdStore, Store};
use crate::systemd::dbus::Dbus;
use crate::units_dir::UnitsDir;

/// Runs fleetd as the command line says. Exit codes: 0 stopped on request, 1 could not go on, 2 usage, 78 a
/// configuration that cannot be used.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if args.check_config {
        let check = check::check(&args, std::env::vars_os());
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
    logging::start(settings.verbosity);
    for note in notes {
        tracing::warn!("{note}");
    }
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One thread does everything: the work is waiting, and a thread more is memory on every host.
#[tokio::main(flavor = "current_thread")]
async fn run(settings: Settings) -> Result<()> {
    std::fs::create_dir_all(&settings.state_directory).with_context(|| {
        format!(
            "cannot make the state directory {}",
            settings.state_directory.display()
        )
    })?;
    let _lock = lock::take(&settings.state_directory)?;
    let me = machine_id(Path::new("/etc/machine-id"))?;
    let stores = open_stores(&settings)?;
    let hearts = [Heart::default(), Heart::default()];

    let systemd = Arc::new(Dbus::new(settings.units_directory.clone()));
    let agent = Agent::new(
        agent_config(&settings, &me)?,
        stores.agent,
        systemd,
        hearts[0].clone(),
    );
    let registry = Registry::new(stores.api).trusting(agent.trust());
    let engine = Engine::new(stores.engine, me.clone(), hearts[1].clone(), random_id);
    let engine = engine.trusting(agent.trust());
    let (problems, directory_problems) = watch::channel(Default::default());
    let publisher = crate::registry::AsOwner {
        registry: registry.clone(),
        owner: Owner::Directory(me.clone()),
    };
    let units_dir = UnitsDir::new(
        &settings.source_directory,
        &settings.state_directory,
        Arc::new(publisher),
        crate::registry::check,
        problems,
    );
    let listeners = sockets::listen(&settings)?;
    let router = api::router(registry.clone(), settings.token_limit);
    let (stop, stopping) = watch::channel(false);

    tracing::info!(version = env!("CARGO_PKG_VERSION"), machine = %me, "fleetd is up");
    notify::ready();
    let status = notify::keep_telling(agent.standing(), engine.claims(), hearts.to_vec());
    let engine = async {
        if settings.disable_engine {
            let mut stopping = stopping.clone();
            let _ = stopping.wait_for(|stop| *stop).await;
        } else {
            engine.run(stopping.clone()).await;
        }
    };
    let units_dir = async {
        if settings.disable_engine {
            std::future::pending().await
        } else {
            units_dir.run().await
        }
    };
    let groups = peers::Groups::of(&settings);
    groups.tell();
    let serving = sockets::serve(listeners, router, groups);
    // Whatever ends without being asked to is a fault: the service manager starts a whole daemon again, and no unit
    // notices.
    tokio::pin!(engine);
    tokio::select! {
        () = agent.run(directory_problems) => bail!("the agent ended"),
        () = &mut engine => bail!("the engine ended"),
        never = units_dir => match never {},
        result = serving => result.context("the API ended"),
        () = status => bail!("the watchdog ended"),
        result = asked_to_stop() => {
            result?;
            notify::stopping();
            tracing::info!("stopping; units run on");
            stop.send_replace(true);
            // Only the claim is given back, so that another engine leads at once.
            let _ = tokio::time::timeout(settings.etcd.request_timeout, engine).await;
            Ok(())
        }
    }
}

/// The registry's store, for those who use it.
struct Stores {
    /// Somebody sits there and waits for the answer.
    api: Arc<dyn Store>,
    /// One of thousands, with all the time of its lease.
    agent: Arc<dyn Store>,
    /// One, and to be relieved soon where it does not get through.
    engine: Arc<dyn Store>,
}

fn open_stores(settings: &Settings) -> Result<Stores> {
    if settings.standalone {
        let file = settings.state_directory.join("registry.json");
        let store = Arc::new(Embedded::open(&file)?);
        return Ok(Stores {
            api: store.clone(),
            agent: store.clone(),
            engine: store,
        });
    }
    let store = EtcdStore::new(settings.etcd.clone())?;
    Ok(Stores {
        agent: Arc::new(store.for_agent()),
        engine: Arc::new(store.for_engine()),
        api: Arc::new(store),
    })
}

fn agent_config(settings: &Settings, me: &MachineId) -> Result<agent::Config> {
    let runtime = settings.units_directory.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(runtime)
        .with_context(|| format!("cannot make the runtime directory {}", runtime.display()))?;
    Ok(agent::Config {
        me: me.clone(),
        presence: MachineRecord {
            session: 0,
            primary_ip: address::primary(settings),
            metadata: settings.metadata.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        ttl: settings.agent_ttl,
        desired_file: settings.state_directory.join("desired.json"),
        marks_file: Some(runtime.join("marks.json")),
    })
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

async fn asked_to_stop() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
