//! The etcd that all of it runs against: one process on loopback, its data in memory, and what it
//! says of itself.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::process::Usage;

const START_LIMIT: Duration = Duration::from_secs(60);

/// Thousands of machines rewrite their reports many times in a run: the default of 2 GiB is for
/// less.
const QUOTA: &str = "8589934592";

/// One etcd process; ended and its data gone when this is dropped.
pub(crate) struct Etcd {
    process: Option<Child>,
    endpoint: String,
    metrics: String,
    arguments: Vec<String>,
    dir: TempDir,
}

/// What etcd has counted so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Raft proposals: every write, and every lease granted or revoked.
    pub(crate) proposals: f64,
    /// Bytes that clients sent, and were sent.
    pub(crate) received: f64,
    pub(crate) sent: f64,
    /// Messages of clients: each request, and each message on a stream.
    pub(crate) messages: f64,
    /// Those of them that renew a lease.
    pub(crate) keep_alives: f64,
    /// What the data takes, without what compaction freed.
    pub(crate) size: f64,
}

impl Counters {
    /// What was counted since then; the size as it is now.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            proposals: self.proposals - before.proposals,
            received: self.received - before.received,
            sent: self.sent - before.sent,
            messages: self.messages - before.messages,
            keep_alives: self.keep_alives - before.keep_alives,
            size: self.size,
        }
    }
}

impl Etcd {
    /// Starts one, or says that etcd is not installed.
    pub(crate) fn start() -> Result<Option<Self>> {
        let version = Command::new("etcd").arg("--version").output();
        if version.is_err() {
            return Ok(None);
        }
        let (client, peer, metrics) = (address()?, address()?, address()?);
        let dir = in_memory()?;
        let data = dir.path().join("data").display().to_string();
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let cluster = format!("one={peer}");
        let arguments = [
            ["--name", "one"],
            ["--data-dir", &data],
            ["--listen-client-urls", &client],
            ["--advertise-client-urls", &client],
            ["--listen-peer-urls", &peer],
            ["--initial-advertise-peer-urls", &peer],
            ["--initial-cluster", &cluster],
            ["--listen-metrics-urls", &format!("http://{metrics}")],
            ["--quota-backend-bytes", QUOTA],
            ["--logger", "zap"],
            ["--log-level", "error"],
        ];
        let mut etcd = Self {
            process: None,
            arguments: arguments.concat().into_iter().map(str::to_owned).collect(),
            endpoint: client,
            metrics,
            dir,
        };
        etcd.restart()?;
        Ok(Some(etcd))
    }

    /// The URL for clients.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Ends it as a power cut does, and starts it with the data it has.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.kill();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))?;
        let process = Command::new("etcd")
            .args(&self.arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("etcd cannot be started")?;
        self.process = Some(process);
        let begin = Instant::now();
        while !self
            .get("/health")
            .is_ok_and(|it| it.contains(r#""health":"true""#))
        {
            if begin.elapsed() > START_LIMIT {
                bail!("etcd does not serve; see {}", self.dir.path().display());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    pub(crate) fn counters(&self) -> Result<Counters> {
        let text = self.get("/metrics")?;
        let sum = |name: &str, label: &str| {
            let lines = text.lines().filter(|line| {
                let rest = line.strip_prefix(name);
                rest.is_some_and(|it| it.starts_with(['{', ' '])) && line.contains(label)
            });
            lines
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        Ok(Counters {
            proposals: sum("etcd_server_proposals_committed_total", ""),
            received: sum("etcd_network_client_grpc_received_bytes_total", ""),
            sent: sum("etcd_network_client_grpc_sent_bytes_total", ""),
            messages: sum("grpc_server_msg_received_total", ""),
            keep_alives: sum("grpc_server_msg_received_total", "LeaseKeepAlive"),
            size: sum("etcd_mvcc_db_total_size_in_use_in_bytes", ""),
        })
    }

    /// Forgets what was overwritten, as an operator has it do.
    pub(crate) async fn compact(&self) -> Result<()> {
        let mut client = etcd_client::Client::connect([self.endpoint()], None).await?;
        let answer = client.get("bare/all", None).await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        client.compact(revision, None).await?;
        Ok(())
    }

    /// What the process has used.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let process = self.process.as_ref().context("etcd does not run")?;
        Usage::of(process.id())
    }

    fn get(&self, path: &str) -> Result<String> {
        get(&self.metrics, path)
    }
}

/// What is told there over HTTP, with its headers.
pub(crate) fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder whose files need no disk, so that the disk of the day is not what is measured.
pub(crate) fn in_memory() -> std::io::Result<TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

/// A loopback address that nobody listens on, below the ports that the kernel gives to outgoing
/// connections.
pub(crate) fn address() -> Result<String> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(499);
    for _ in 0..1000 {
        let given = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(12_000 + given % 20_000)?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok(listener.local_addr()?.to_string());
        }
    }
    bail!("no free port")
}
