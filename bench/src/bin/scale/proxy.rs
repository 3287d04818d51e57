//! etcd's own gRPC proxy in front of the measured etcd, for `--proxy`.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::etcd::{self, address};

const START_LIMIT: Duration = Duration::from_secs(10);

/// One proxy process. Dropping it ends the process.
pub(crate) struct Proxy {
    process: Child,
    endpoint: String,
}

impl Proxy {
    /// Starts one in front of that endpoint.
    pub(crate) fn start(behind: &str) -> Result<Self> {
        let listen = address()?;
        let process = Command::new("etcd")
            .args(["grpc-proxy", "start", "--endpoints", behind])
            .args(["--listen-addr", &listen])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("etcd grpc-proxy cannot be started")?;
        let proxy = Self {
            process,
            endpoint: format!("http://{listen}"),
        };
        let begin = Instant::now();
        while etcd::get(&listen, "/health").is_err() {
            if begin.elapsed() > START_LIMIT {
                bail!("etcd grpc-proxy does not serve");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(proxy)
    }

    /// Returns the URL for clients.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
