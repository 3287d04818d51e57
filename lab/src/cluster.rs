//! A lab as a whole: building, starting, watching and removing it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

use crate::etcd::Member;
use crate::folders::{self, Folder};
use crate::host::{Host, System};
use crate::images::Images;
use crate::{cleanup, network, podman, requirements, rootfs, wait};

/// The number of labs at once, over all processes of this checkout. Two cores carry this many
/// without different results.
const AT_ONCE: usize = 2;

/// Hosts and etcd members on one network. Dropping it removes them.
#[derive(Debug)]
pub struct Lab {
    hosts: Vec<Host>,
    members: Vec<Member>,
    images: Option<Images>,
    failed: AtomicBool,
    folder: Folder,
    _place: File,
}

/// The parts of a lab to start.
#[derive(Debug, Clone)]
#[must_use = "a lab exists once `start` or `test` is called"]
pub struct Builder {
    hosts: usize,
    members: usize,
    etcd_arguments: Vec<String>,
    /// The release of all hosts. `None` for this machine's own.
    suite: Option<String>,
    /// The releases of single hosts, by number.
    suites: BTreeMap<usize, String>,
    podman: bool,
}

impl Builder {
    /// Sets the number of hosts. The default is 1, and the limit 200.
    pub fn hosts(mut self, hosts: usize) -> Self {
        self.hosts = hosts;
        self
    }

    /// Sets the number of etcd members: 0 by default, 1, or 3.
    pub fn etcd(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// Sets a release of Debian for all hosts, such as `trixie`, instead of this machine's own.
    pub fn suite(mut self, suite: &str) -> Self {
        self.suite = Some(suite.to_owned());
        self
    }

    /// Sets the release of the host with this number, counted from 1. The others keep theirs.
    pub fn suite_of(mut self, number: usize, suite: &str) -> Self {
        self.suites.insert(number, suite.to_owned());
        self
    }

    /// Adds podman and docker's command to all hosts, and a registry with the images `busybox` and
    /// `nginx` to the lab's network.
    pub fn podman(mut self) -> Self {
        self.podman = true;
        self
    }

    /// Adds arguments for every etcd member, such as those of a listener with TLS. They win over
    /// the lab's own.
    pub fn etcd_arguments(mut self, arguments: &[&str]) -> Self {
        self.etcd_arguments = arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect();
        self
    }

    /// Boots everything, and waits until all hosts report `running` and all members are healthy.
    ///
    /// Waits while two other labs exist, so never start a lab while holding two.
    pub fn start(self) -> Result<Lab> {
        requirements::requirements().context("this machine cannot hold a lab")?;
        requirements::raise_limits()?;
        // Done before the lab takes its place, so that no other lab waits for a download.
        let systems = self.systems()?;
        let place = place()?;
        let folder = Folder::create()?;
        mount(
            "tmpfs",
            folder.ram(),
            "tmpfs",
            MountFlags::empty(),
            c"mode=0755",
        )
        .context("cannot mount a tmpfs")?;
        // The value is complete from here on, so that dropping it after an error removes everything
        // made so far.
        let mut lab = Lab {
            hosts: vec![],
            members: vec![],
            images: None,
            failed: AtomicBool::new(false),
            folder,
            _place: place,
        };
        network::create_bridge(lab.id())?;
        for number in 1..=self.members {
            lab.members.push(Member::create(
                &lab.folder,
                number,
                self.members,
                &self.etcd_arguments,
            )?);
        }
        for (system, number) in systems.iter().zip(1..) {
            lab.hosts.push(Host::create(&lab.folder, system, number)?);
        }
        if let Some(system) = systems.first().filter(|_| self.podman) {
            lab.images = Some(Images::start(&lab.folder, &system.rootfs)?);
        }
        lab.members.iter().try_for_each(Member::start)?;
        lab.hosts.iter().try_for_each(Host::switch_on)?;
        lab.members.iter().try_for_each(Member::await_healthy)?;
        lab.hosts.iter().try_for_each(Host::await_boot)?;
        Ok(lab)
    }

    /// Runs the body of a test: starts a lab and passes it to `body`. Skips the test, with the
    /// reason, if this machine cannot run a lab.
    ///
    /// # Panics
    /// If the lab does not start or `body` fails. The logs are then kept.
    pub fn test(self, body: impl FnOnce(&Lab) -> Result<()>) {
        if let Err(why) = self.requirements() {
            return requirements::skip(&format!("{why:#}"));
        }
        let lab = self
            .start()
            .unwrap_or_else(|error| panic!("the lab does not start: {error:#}"));
        // The panic drops the lab, and the drop keeps the logs.
        body(&lab).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Runs the body of a test that applies to more than one release. Like [`test`](Self::test),
    /// with a new lab for this machine's release and for the Debian after it.
    ///
    /// # Panics
    /// As `test` does, after printing the release.
    pub fn test_on_all_suites(self, body: impl Fn(&Lab) -> Result<()>) {
        let suites = rootfs::suites();
        // If no release is known, `test` prints why it is skipped.
        for suite in suites.unwrap_or_else(|_| vec![String::new()]) {
            println!("on {suite} hosts");
            self.clone().suite(&suite).test(&body);
        }
    }

    fn suite_by_host(&self) -> Result<Vec<String>> {
        let own = rootfs::suite()?;
        let of_all = self.suite.as_ref().unwrap_or(&own);
        let of = |number| self.suites.get(&number).unwrap_or(of_all).clone();
        Ok((1..=self.hosts).map(of).collect())
    }

    /// Returns the system of each host. Missing ones are made now.
    fn systems(&self) -> Result<Vec<System>> {
        let suites = self.suite_by_host()?.into_iter();
        let system = |suite: String| {
            let rootfs = if self.podman {
                podman::provide(&suite)
            } else {
                rootfs::provide(&suite)
            };
            Ok(System {
                rootfs: rootfs.with_context(|| format!("needs hosts with {suite}"))?,
                suite,
                runs_containers: self.podman,
            })
        };
        suites.map(system).collect()
    }

    /// Checks that this machine can run this lab. Another release must be downloaded, which needs
    /// the network.
    fn requirements(&self) -> Result<()> {
        requirements::requirements()?;
        self.systems().map(drop)
    }
}

impl Lab {
    /// Returns a builder of one host without etcd.
    pub fn builder() -> Builder {
        Builder {
            hosts: 1,
            members: 0,
            etcd_arguments: vec![],
            suite: None,
            suites: BTreeMap::new(),
            podman: false,
        }
    }

    /// Returns the lab's id: eight hexadecimal digits that are part of all its names.
    pub fn id(&self) -> &str {
        &self.folder.id
    }

    /// Returns all hosts, the first one first.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Returns the host with this number, counted from 1 as addresses and names are.
    ///
    /// # Panics
    /// If there is none.
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number - 1]
    }

    /// Returns all etcd members, the first one first.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns the etcd member with this number, counted from 1.
    ///
    /// # Panics
    /// If there is none.
    pub fn member(&self, number: usize) -> &Member {
        &self.members[number - 1]
    }

    /// Returns the registry of container images.
    ///
    /// # Panics
    /// If the lab was built without [`Builder::podman`].
    pub fn images(&self) -> &Images {
        self.images
            .as_ref()
            .expect("a lab of hosts with podman has a registry of images")
    }

    /// Waits as [`wait_until`](crate::wait_until) does. An error includes the end of each host's
    /// journal, and the logs are kept.
    pub fn wait_until(
        &self,
        limit: Duration,
        what: &str,
        condition: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        wait::wait_until(limit, what, condition).map_err(|error| {
            self.failed.store(true, Ordering::Relaxed);
            self.hosts
                .iter()
                .fold(error, |error, host| host.explained(&error))
        })
    }

    /// Copies the logs to `target/lab/failed/<id>` and prints that path.
    fn keep_logs(&self) -> Result<()> {
        let kept = folders::base().join("failed").join(self.id());
        fs::create_dir_all(&kept)?;
        for host in &self.hosts {
            fs::write(
                kept.join(format!("{}.journal", host.name())),
                host.journal(100_000).unwrap_or_default(),
            )?;
            fs::copy(
                host.console(),
                kept.join(format!("{}.console", host.name())),
            )?;
        }
        for member in &self.members {
            fs::copy(member.log(), kept.join(format!("{}.log", member.name())))?;
        }
        if let Some(images) = &self.images {
            fs::copy(images.log(), kept.join("images.log"))?;
        }
        eprintln!("lab: the logs of this run are in {}", kept.display());
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if (thread::panicking() || self.failed.load(Ordering::Relaxed))
            && let Err(error) = self.keep_logs()
        {
            eprintln!("lab: cannot keep the logs: {error:#}");
        }
        if let Err(error) = cleanup::remove(self.id()) {
            eprintln!(
                "lab: {} is not removed, the next start tries again: {error:#}",
                self.id()
            );
        }
        self.hosts.iter().for_each(Host::reap);
        self.members.iter().for_each(Member::reap);
        self.images.iter().for_each(Images::reap);
    }
}

/// Waits until fewer than [`AT_ONCE`] labs exist. Dropping the file frees the place.
fn place() -> Result<File> {
    loop {
        for number in 1..=AT_ONCE {
            let file = folders::lock_file(&format!("place{number}"))?;
            if file.try_lock().is_ok() {
                return Ok(file);
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
}
