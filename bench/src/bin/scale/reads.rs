//! Measures listing everything, against a bare range read of the same data.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use etcd_client::{Client, GetOptions};
use fleet_core::keys;
use fleet_core::record::{self, ReportChanges};

use crate::figures::Samples;
use crate::hub::{self, Hub};
use crate::process::Usage;

/// The largest message that a client of etcd accepts; fleet's own limit is the same.
const MESSAGE: usize = 256 << 20;

/// The limit for a command.
const LIMIT: Duration = Duration::from_secs(60);

/// Lists everything, and records the time.
pub(crate) async fn measure(
    endpoint: &str,
    socket: &Path,
    fleetctl: &Path,
    hub: &Hub,
    samples: &mut Samples,
) -> Result<()> {
    let (floor, rows) = (bare(endpoint, false).await?, bare(endpoint, true).await?);
    samples.add("reads", "floor", millis(floor));
    samples.add("reads", "rows", millis(rows));
    if let Some(usage) = hub.usage()? {
        samples.add("reads", "server before", usage.peak as f64);
    }
    let (took, peak) = run(fleetctl, socket, &["list-units", "--no-legend"])?;
    samples.add("reads", "list-units", millis(took));
    let ratio = took.as_secs_f64() / rows.as_secs_f64();
    samples.add("reads", "list-units ratio", ratio);
    samples.add("reads", "fleetctl's peak", peak as f64);
    let (took, _) = run(fleetctl, socket, &["status"])?;
    samples.add("reads", "status", millis(took));
    let (took, _) = run(
        fleetctl,
        socket,
        &["status", "--lines", "0", "base-000.service"],
    )?;
    samples.add("reads", "status unit", millis(took));
    if let Some(usage) = hub.usage()? {
        samples.add("reads", "server after", usage.peak as f64);
    }
    Ok(())
}

/// Reads every report in one request and prints it: unchanged, or as a row for each unit.
async fn bare(endpoint: &str, as_rows: bool) -> Result<Duration> {
    let begin = Instant::now();
    let client = Client::connect([endpoint], None).await?;
    let prefix = format!("{}{}", hub::config(endpoint).prefix, keys::REPORTS);
    let below = GetOptions::new().with_prefix();
    let mut kv = client.kv_client().max_decoding_message_size(MESSAGE);
    let answer = kv.get(prefix, Some(below)).await?;
    let mut out = BufWriter::new(OpenOptions::new().write(true).open("/dev/null")?);
    for pair in answer.kvs() {
        if as_rows {
            let report: ReportChanges = record::decode(pair.value())?;
            for (name, unit) in report.units {
                let key = pair.key_str()?;
                writeln!(out, "{name}\t{key}\t{}\t{}", unit.active, unit.sub)?;
            }
        } else {
            out.write_all(pair.value())?;
        }
    }
    out.flush()?;
    Ok(begin.elapsed())
}

/// Runs fleetctl against the hub. Returns its time and its peak memory.
fn run(fleetctl: &Path, socket: &Path, arguments: &[&str]) -> Result<(Duration, u64)> {
    let begin = Instant::now();
    let mut child = Command::new(fleetctl)
        .arg(format!("--endpoint=unix://{}", socket.display()))
        .arg("--request-timeout=60")
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .context("fleetctl cannot be started")?;
    let mut peak = 0;
    loop {
        if let Ok(usage) = Usage::of(child.id()) {
            peak = peak.max(usage.peak);
        }
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("fleetctl {}: {status}", arguments.join(" "));
            }
            return Ok((begin.elapsed(), peak));
        }
        if begin.elapsed() > LIMIT {
            drop(child.kill());
            drop(child.wait());
            bail!("fleetctl {} does not end", arguments.join(" "));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Builds fleetctl as this program was built.
pub(crate) fn fleetctl() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "fleetctl"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    if !status.success() {
        bail!("fleetctl cannot be built");
    }
    // The path is <target>/release/scale.
    let own = std::env::current_exe()?;
    let folder = own.parent();
    Ok(folder.context("no folder of binaries")?.join("fleetctl"))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
