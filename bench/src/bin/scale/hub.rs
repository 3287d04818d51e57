//! The hub does one machine's work for the whole fleet: an engine that leads, and the API. It is a
//! process of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use fleet_core::machine::MachineId;
use fleetd::engine::Engine;
use fleetd::health::Heart;
use fleetd::registry::Registry;
use fleetd::store::{EtcdConfig, EtcdStore};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::process::Usage;
use crate::workers::Workers;

/// The argument that makes this program a hub.
pub(crate) const ARGUMENT: &str = "--hub";

/// The default number of rows in a page, as in fleet.conf.
const PAGE: u16 = 100;

/// A running hub.
pub(crate) enum Hub {
    /// A process. It ends with its standard input, so it never outlives the bench.
    Process(Child),
    Task(JoinHandle<Result<()>>),
}

impl Hub {
    /// Starts a hub, as a process of its own if `apart`.
    pub(crate) fn start(
        apart: bool,
        endpoint: &str,
        socket: &Path,
        workers: &Workers,
    ) -> Result<Self> {
        match apart {
            true => Self::process(endpoint, socket),
            false => Ok(Self::task(endpoint, socket, workers)),
        }
    }

    /// Starts it as a process.
    fn process(endpoint: &str, socket: &Path) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args([ARGUMENT, endpoint])
            .arg(socket)
            .stdin(Stdio::piped())
            .spawn()
            .context("the hub cannot be started")?;
        Ok(Self::Process(child))
    }

    /// Starts it in this process.
    fn task(endpoint: &str, socket: &Path, workers: &Workers) -> Self {
        let (endpoint, socket) = (endpoint.to_owned(), socket.to_owned());
        Self::Task(
            workers
                .of(0)
                .spawn(async move { serve(&endpoint, &socket).await }),
        )
    }

    /// Returns the resources used by its process. `None` if it has no process of its own.
    pub(crate) fn usage(&self) -> Result<Option<Usage>> {
        match self {
            Self::Process(child) => Usage::of(child.id()).map(Some),
            Self::Task(_) => Ok(None),
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        match self {
            Self::Process(child) => {
                drop(child.stdin.take());
                drop(child.wait());
            }
            Self::Task(task) => task.abort(),
        }
    }
}

/// Runs as a hub until standard input ends.
pub(crate) fn main(endpoint: &str, socket: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // A separate thread waits for it, so that waiting does not affect the measured cost.
    let (tell, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        tell.send(())
    });
    let result = runtime.block_on(async {
        tokio::select! {
            result = serve(endpoint, socket) => result,
            _ = ended => Ok(()),
        }
    });
    runtime.shutdown_background();
    result
}

async fn serve(endpoint: &str, socket: &Path) -> Result<()> {
    let store = Arc::new(EtcdStore::new(config(endpoint))?.for_engine());
    let me = MachineId::parse(&"e".repeat(32))?;
    let engine = Engine::new(store.clone(), me, Heart::default(), || "0".repeat(32));
    let (_stop, stopping) = watch::channel(false);
    let listener = UnixListener::bind(socket)?;
    let router = fleetd::api::router(Registry::new(store), PAGE);
    tokio::select! {
        () = engine.run(stopping) => bail!("the engine ended"),
        served = axum::serve(listener, router) => Ok(served?),
    }
}

/// Returns the configuration with which all parts of the fleet reach etcd.
pub(crate) fn config(endpoint: &str) -> EtcdConfig {
    EtcdConfig {
        endpoints: vec![endpoint.to_owned()],
        ..EtcdConfig::default()
    }
}
