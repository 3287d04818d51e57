//! One etcd member among the hosts. Tests may kill it, stall it, cut it off, delete its data and
//! count its work.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::cgroup::Cgroup;
use crate::exec::{self, Output};
use crate::folders::Folder;
use crate::network::Link;
use crate::wait::wait_until;

/// The time limit of a start, with an election. Less than a second is usual.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A member of the lab's etcd cluster.
#[derive(Debug)]
pub struct Member {
    number: usize,
    name: String,
    peers: String,
    arguments: Vec<String>,
    link: Link,
    cgroup: Cgroup,
    data: PathBuf,
    log: PathBuf,
    process: Mutex<Option<Child>>,
}

impl Member {
    /// Prepares member `number` (from 1) of `count` without starting it. `arguments` are last on
    /// its command line, so they win.
    pub(crate) fn create(
        folder: &Folder,
        number: usize,
        count: usize,
        arguments: &[String],
    ) -> Result<Self> {
        let name = format!("etcd{number}");
        let peers: Vec<String> = (1..=count)
            .map(|peer| format!("etcd{peer}=http://{}:2380", address(peer)))
            .collect();
        Ok(Self {
            number,
            peers: peers.join(","),
            arguments: arguments.to_vec(),
            link: Link::create(&folder.id, &name, &address(number))?,
            cgroup: Cgroup::new(&folder.id, &name)?,
            data: folder.ram().join(&name),
            log: folder.ram().join(format!("{name}.log")),
            name,
            process: Mutex::default(),
        })
    }

    /// Returns `etcd1`, `etcd2`, ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the client URL: `http://10.99.0.<number>:2379`.
    pub fn endpoint(&self) -> String {
        format!("http://{}:2379", address(self.number))
    }

    /// Returns this member's cable.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Returns the data directory. Copy it while the member is dead to save or restore an old
    /// state.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Starts the process and returns at once. Does nothing if it runs.
    pub fn start(&self) -> Result<()> {
        let mut process = self.process();
        if process.is_some() {
            return Ok(());
        }
        let (client, peer) = (
            self.endpoint(),
            format!("http://{}:2380", address(self.number)),
        );
        let child = self
            .cgroup
            .launch(&[
                "nsenter",
                &format!("--net={}", self.link.path()),
                "--",
                "etcd",
                &format!("--name={}", self.name),
                &format!("--data-dir={}", self.data.display()),
                &format!("--listen-client-urls={client},http://127.0.0.1:2379"),
                &format!("--advertise-client-urls={client}"),
                &format!("--listen-peer-urls={peer}"),
                &format!("--initial-advertise-peer-urls={peer}"),
                &format!("--initial-cluster={}", self.peers),
                "--logger=zap",
                "--log-level=warn",
                // When many tests share few cores, checking a password takes longer than fleetd
                // waits.
                "--bcrypt-cost=4",
            ])?
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&self.log)?)
            .spawn()
            .context("cannot start `sh`")?;
        *process = Some(child);
        Ok(())
    }

    /// Waits until the member reports that it is healthy, which needs a majority of members.
    pub fn await_healthy(&self) -> Result<()> {
        wait_until(START_LIMIT, &format!("{} is healthy", self.name), || {
            Ok(self.get("/health")?.contains("\"true\""))
        })
        .with_context(|| fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Sends SIGKILL. Does nothing if the member is dead.
    pub fn kill(&self) -> Result<()> {
        if let Some(mut child) = self.process().take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Kills the member if it runs, starts it, and waits until it is healthy.
    pub fn restart(&self) -> Result<()> {
        self.kill()?;
        self.start()?;
        self.await_healthy()
    }

    /// Stops the process at once: connections stay open, but no answers come.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Continues after [`Member::pause`].
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills the member and deletes its data. Once all members are wiped, starting them makes a
    /// new, empty cluster. If only one of several is wiped, the others refuse it.
    pub fn wipe(&self) -> Result<()> {
        self.kill()?;
        if self.data.exists() {
            fs::remove_dir_all(&self.data)?;
        }
        Ok(())
    }

    /// Cuts the member off from the hosts and from the other members.
    pub fn partition(&self) -> Result<()> {
        self.link.cut()
    }

    /// Connects it again.
    pub fn heal(&self) -> Result<()> {
        self.link.restore()
    }

    /// Runs etcdctl (v3) against this member alone.
    pub fn etcdctl(&self, arguments: &[&str]) -> Result<Output> {
        let endpoint = format!("--endpoints={}", self.endpoint());
        let net = format!("--net={}", self.link.path());
        let command = [
            "nsenter",
            &net,
            "--",
            "env",
            "ETCDCTL_API=3",
            "etcdctl",
            &endpoint,
        ];
        exec::run(&[&command, arguments].concat())
    }

    /// Returns the member's counters since its start.
    pub fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::parse(&self.get("/metrics")?))
    }

    /// Returns the path of its log: warnings and errors.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Waits for the process of a member that was ended from outside.
    pub(crate) fn reap(&self) {
        if let Some(mut child) = self.process().take() {
            // A member that was paused before it joined its cgroup would never end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        // A panic while it was locked leaves nothing half done.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process();
        let child = process
            .as_ref()
            .with_context(|| format!("{} does not run", self.name))?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Returns the body of a GET. It is sent on the member's own loopback, so that a partition does
    /// not block it.
    fn get(&self, path: &str) -> Result<String> {
        self.link.inside(|| {
            let limit = Duration::from_secs(2);
            let mut stream =
                TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], 2379)), limit)?;
            stream.set_read_timeout(Some(limit))?;
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            match answer.split_once("\r\n\r\n") {
                Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
                _ => bail!("{} answers {path} with: {answer}", self.name),
            }
        })
    }
}

fn address(number: usize) -> String {
    format!("10.99.0.{number}")
}

/// Counters of one member, by their full name with labels, as on etcd's /metrics page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(pub BTreeMap<String, f64>);

impl Metrics {
    fn parse(page: &str) -> Self {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        Self(
            pairs
                .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
                .collect(),
        )
    }

    /// Returns the sum over all label values of a counter, such as `grpc_server_handled_total`. 0
    /// if it is missing.
    pub fn sum(&self, counter: &str) -> f64 {
        let named = |name: &str| {
            name == counter
                || name
                    .strip_prefix(counter)
                    .is_some_and(|rest| rest.starts_with('{'))
        };
        self.0
            .iter()
            .filter(|(name, _)| named(name))
            .map(|(_, value)| value)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels_and_no_longer_names() {
        let metrics = Metrics::parse(
            "# HELP puts\nputs{a=\"1\"} 2\nputs{a=\"2\"} 3\nputs_total 7\nbad line\n",
        );
        assert_eq!(metrics.sum("puts"), 5.0);
        assert_eq!(metrics.sum("puts_total"), 7.0);
        assert_eq!(metrics.sum("gets"), 0.0);
    }
}
