//! Real etcd members on loopback. Each is removed when its value is dropped.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// The time limit of a start. An election on two busy cores takes a while.
const START_LIMIT: Duration = Duration::from_secs(20);

/// One etcd process with its own data.
pub(crate) struct Etcd {
    process: Option<Child>,
    arguments: Vec<String>,
    endpoint: String,
    metrics: String,
    dir: TempDir,
}

impl Etcd {
    /// Starts a cluster of one. `None` if etcd is not installed.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a cluster of one, with these additional command line arguments.
    pub(crate) async fn start_with(arguments: &[&str]) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let (peer, member) = (address(), Self::new("one", arguments));
        let cluster = format!("one=http://{peer}");
        let mut member = member.in_cluster(&peer, &cluster);
        member.restart();
        member.healthy().await;
        Some(member)
    }

    /// Starts a cluster of three.
    pub(crate) async fn start_three() -> Option<[Self; 3]> {
        if !is_installed() {
            return None;
        }
        let peers = ["a", "b", "c"].map(|name| (name, address()));
        let cluster = peers
            .clone()
            .map(|(name, peer)| format!("{name}=http://{peer}"));
        let cluster = cluster.join(",");
        let mut members =
            peers.map(|(name, peer)| Self::new(name, &[]).in_cluster(&peer, &cluster));
        members.iter_mut().for_each(Self::restart);
        for member in &members {
            member.healthy().await;
        }
        Some(members)
    }

    /// Returns the URL for clients. It is https with TLS arguments.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Stops the process at once: connections stay open, but no answers come.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Continues the process.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills the process like a power cut. Its data stays for `restart`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// Starts the process with its present data.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = Some(spawn(&self.arguments, &self.dir));
    }

    /// Waits until the member serves.
    pub(crate) async fn healthy(&self) {
        let begin = Instant::now();
        while !self.get("/health").await.contains(r#""health":"true""#) {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(begin.elapsed() < START_LIMIT, "etcd does not serve:\n{log}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns the sum of a metric over all labels that contain `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.get("/metrics").await;
        let samples = text
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(label));
        samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    fn new(name: &str, arguments: &[&str]) -> Self {
        let (client, metrics) = (address(), address());
        let is_tls = arguments.contains(&"--cert-file");
        let endpoint = format!("{}://{client}", if is_tls { "https" } else { "http" });
        let dir = tempfile::tempdir().expect("a place for data");
        let data = dir.path().join("data");
        let usual = [
            ("--name", name),
            ("--data-dir", data.to_str().expect("text")),
            ("--listen-client-urls", &endpoint),
            ("--advertise-client-urls", &endpoint),
            ("--listen-metrics-urls", &format!("http://{metrics}")),
            ("--logger", "zap"),
            ("--log-level", "warn"),
        ];
        let usual = usual.iter().flat_map(|(option, value)| [*option, *value]);
        Self {
            process: None,
            arguments: usual
                .chain(arguments.iter().copied())
                .map(str::to_owned)
                .collect(),
            endpoint,
            metrics,
            dir,
        }
    }

    fn in_cluster(mut self, peer: &str, cluster: &str) -> Self {
        let peer = format!("http://{peer}");
        let more = [
            ("--listen-peer-urls", peer.as_str()),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", cluster),
        ];
        let more = more.iter().flat_map(|(option, value)| [*option, *value]);
        self.arguments.extend(more.map(str::to_owned));
        self
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it was started");
        kill_process(Pid::from_child(process), signal).expect("it is our child");
    }

    async fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(&self.metrics).await
            && stream.write_all(request.as_bytes()).await.is_ok()
        {
            drop(stream.read_to_string(&mut answer).await);
        }
        answer
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns whether etcd can be run. Prints if it cannot, and fails if it must.
fn is_installed() -> bool {
    let version = Command::new("etcd")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if version.is_ok() {
        return true;
    }
    let must = std::env::var_os("FLEET_TESTS_MUST_RUN").is_some_and(|value| value == "1");
    let line = "skipped: etcd is not installed (apt-get install etcd-server)";
    assert!(!must, "{line}");
    println!("{line}");
    false
}

fn spawn(arguments: &[String], dir: &TempDir) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.path().join("log"));
    let log = log.expect("a place for the log");
    Command::new("etcd")
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("etcd is installed")
}

/// Returns a loopback address without a listener, a new one each time. Its port is below those that
/// the kernel gives to outgoing connections (32768 and up), because one of them could take it
/// before etcd does.
fn address() -> String {
    const FIRST: u32 = 12_000;
    const PORTS: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Test processes that run at the same time begin at different places.
    let begin = std::process::id().wrapping_mul(499);
    let free = || {
        let given = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + given % PORTS).ok()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some(listener.local_addr().ok()?.to_string())
    };
    std::iter::repeat_with(free)
        .take(1_000)
        .flatten()
        .next()
        .expect("a free port")
}
