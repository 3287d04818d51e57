//! What one machine of the fleet does for all of it: an engine that leads, and the API, as a
//! process of their own.

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

/// The rows of a page where nobody asks for more: the default of fleet.conf.
const PAGE: u16 = 100;

/// A hub that runs.
pub(crate) enum Hub {
    /// Ends when its standard input does, so that it never outlives the bench.
    Process(Child),
    Task(JoinHandle<Result<()>>),
}

impl Hub {
    /// Starts one, `apart` as a process of its own.
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

    /// Starts one as a process.
    fn process(endpoint: &str, socket: &Path) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args([ARGUMENT, endpoint])
            .arg(socket)
            .stdin(Stdio::piped())
            .spawn()
            .context("the hub cannot be started")?;
        Ok(Self::Process(child))
    }

    /// Starts one in this process.
    fn task(endpoint: &str, socket: &Path, workers: &Workers) -> Self {
        let (endpoint, socket) = (endpoint.to_owned(), socket.to_owned());
        Self::Task(
            workers
                .of(0)
                .spawn(async move { serve(&endpoint, &socket).await }),
        )
    }

    /// What its process has used; none where it has none of its own.
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

/// Is a hub until standard input ends.
pub(crate) fn main(endpoint: &str, socket: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // A thread of its own waits for that, lest waiting costs what is measured.
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

/// How every part of the fleet reaches etcd.
pub(crate) fn config(endpoint: &str) -> EtcdConfig {
    EtcdConfig {
        endpoints: vec![endpoint.to_owned()],
        ..EtcdConfig::default()
    }
}
