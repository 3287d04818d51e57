//! The registry of container images that hosts with podman pull from: Debian's docker-registry, on
//! the lab's network, with the images `busybox` and `nginx`.
//!
//! What runs is the program in the hosts' own root file system, which also holds the images: this
//! machine needs no package for it.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cgroup::Cgroup;
use crate::folders::Folder;
use crate::network::Link;
use crate::wait::wait_until;

/// Apart from the addresses of etcd members and hosts.
const ADDRESS: [u8; 4] = [10, 99, 2, 1];

/// Bound of a start. A tenth of a second is usual.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The running registry of images.
#[derive(Debug)]
pub struct Images {
    link: Link,
    log: PathBuf,
    process: Mutex<Option<Child>>,
}

impl Images {
    /// Starts the registry from a root file system with podman.
    pub(crate) fn start(folder: &Folder, rootfs: &Path) -> Result<Self> {
        let [a, b, c, d] = ADDRESS;
        let name = "images";
        let link = Link::create(&folder.id, name, &format!("{a}.{b}.{c}.{d}"))?;
        let log = folder.ram().join("images.log");
        let child = Cgroup::new(&folder.id, name)?
            .launch(&[
                "nsenter",
                &format!("--net={}", link.path()),
                "--",
                "chroot",
                &rootfs.display().to_string(),
                "docker-registry",
                "serve",
                CONFIG_PATH,
            ])?
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start `sh`")?;
        let images = Self {
            link,
            log,
            process: Mutex::new(Some(child)),
        };
        images
            .await_start()
            .with_context(|| fs::read_to_string(&images.log).unwrap_or_default())?;
        Ok(images)
    }

    /// Ends the registry: hosts are refused from now on. A cut cable would let podman wait for
    /// minutes.
    pub fn stop(&self) -> Result<()> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = process.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// What it logged.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Waits for the process, which was ended from outside.
    pub(crate) fn reap(&self) {
        let _ = self.stop();
    }

    fn await_start(&self) -> Result<()> {
        wait_until(START_LIMIT, "the registry of images listens", || {
            self.link.inside(|| {
                TcpStream::connect(SocketAddr::from((ADDRESS, PORT)))?;
                Ok(true)
            })
        })
    }
}

const PORT: u16 = 5000;

/// Where the root file system has [`config`].
pub(crate) const CONFIG_PATH: &str = "/etc/docker/registry/config.yml";

/// The configuration of docker-registry. It only reads: all labs share one root file system.
pub(crate) fn config() -> String {
    let [a, b, c, d] = ADDRESS;
    format!(
        "version: 0.1\n\
         log:\n  level: warn\n\
         storage:\n\
         \x20 filesystem:\n    rootdirectory: /srv/images\n\
         \x20 maintenance:\n    uploadpurging:\n      enabled: false\n    readonly:\n      enabled: true\n\
         http:\n  addr: {a}.{b}.{c}.{d}:{PORT}\n"
    )
}

/// The hosts' registries.conf: image names without a host, and those of docker.io, come from here.
pub(crate) fn registries_conf() -> String {
    let [a, b, c, d] = ADDRESS;
    format!(
        "unqualified-search-registries = [\"docker.io\"]\n\n\
         [[registry]]\nprefix = \"docker.io\"\nlocation = \"{a}.{b}.{c}.{d}:{PORT}\"\ninsecure = true\n"
    )
}
