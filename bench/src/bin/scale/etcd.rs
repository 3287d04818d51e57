//! The etcd of all measurements, one process on loopback with its data in memory, and its own
//! metrics.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::process::Usage;

const START_LIMIT: Duration = Duration::from_secs(60);

/// The database quota. Thousands of machines rewrite their reports many times in a run, which
/// exceeds the default of 2 GiB.
const QUOTA: &str = "8589934592";

/// One etcd process. Dropping it ends the process and removes its data.
pub(crate) struct Etcd {
    process: Option<Child>,
    endpoint: String,
    metrics: String,
    arguments: Vec<String>,
    dir: TempDir,
}

/// etcd's counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// The Raft proposals: every write, and every lease granted or revoked.
    pub(crate) proposals: f64,
    /// The bytes received from clients, and sent to them.
    pub(crate) received: f64,
    pub(crate) sent: f64,
    /// The messages of clients: each request, and each message on a stream.
    pub(crate) messages: f64,
    /// The messages that renew a lease.
    pub(crate) keep_alives: f64,
    /// The size of the data, without what compaction freed.
    pub(crate) size: f64,
}

impl Counters {
    /// Returns the counts since then, with the present size.
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
    /// Starts one. `None` if etcd is not installed.
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

    /// Returns the URL for clients.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Ends it as a power cut does, and starts it with its data.
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

    /// Compacts overwritten values, as an operator would.
    pub(crate) async fn compact(&self) -> Result<()> {
        let mut client = etcd_client::Client::connect([self.endpoint()], None).await?;
        let answer = client.get("bare/all", None).await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        client.compact(revision, None).await?;
        Ok(())
    }

    /// Returns the resources used by the process.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let process = self.process.as_ref().context("etcd does not run")?;
        Usage::of(process.id())
    }

    fn get(&self, path: &str) -> Result<String> {
        get(&self.metrics, path)
    }
}

/// Returns the response of an HTTP request, with its headers.
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

/// Returns a folder in memory, so that the disk is not measured.
pub(crate) fn in_memory() -> std::io::Result<TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

/// Returns a free loopback address, below the ports that the kernel uses for outgoing connections.
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
