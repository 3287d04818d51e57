//! docs/scale.md and its plots.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::figures::{CHANGES, Samples};
use crate::plot::{self, Line};

/// Writes the tables and the plots.
pub(crate) fn write(samples: &Samples) -> Result<()> {
    let docs = lab::repository().join("docs");
    let mut links = String::new();
    for (name, plot) in plots(samples) {
        fs::write(docs.join(name), plot)?;
        links += &format!("![{name}]({name})\n");
    }
    let text = format!("{}\n\n{links}\n{}", machine()?, samples.tables());
    lab::write_page("docs/scale.md", "cargo scale", &text)
}

/// Returns the place and the time of the measurement, in one line.
fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib = memory.split_whitespace().nth(1);
    let kib: u64 = kib.and_then(|text| text.parse().ok()).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let etcd = Command::new("etcd").arg("--version").output()?.stdout;
    let etcd = String::from_utf8_lossy(&etcd);
    let date = Command::new("date").arg("+%F").output()?.stdout;
    Ok(format!(
        "Measured {} on {cores} cores that agents, etcd and the bare clients share, {} GiB, Linux {}; {}.",
        String::from_utf8_lossy(&date).trim(),
        kib.div_ceil(1 << 20),
        kernel.trim(),
        etcd.lines().next().unwrap_or_default(),
    ))
}

fn plots(samples: &Samples) -> Vec<(&'static str, String)> {
    let fewest = samples.sizes().into_iter().map(|(_, units)| units).min();
    let units = fewest.unwrap_or_default();
    let line = |name: &str, what: &'static str, measure: &'static str, scale: f64| {
        let sizes = samples.sizes().into_iter().filter(|size| size.1 == units);
        let points = sizes.filter_map(|size| {
            let value = samples.median(what, measure, size)?;
            Some((size.0 as f64, value / scale))
        });
        Line {
            name: name.to_owned(),
            is_floor: measure.starts_with("floor"),
            points: points.collect(),
        }
    };
    let with_floor = |floor: &'static str, measure: &'static str| {
        let mut lines = vec![
            line("floor: one put", "start", floor, 1.0),
            line(
                "floor: 10 % at a time",
                "update, 10 % at a time",
                floor,
                1.0,
            ),
        ];
        lines.extend(CHANGES.map(|what| line(what, what, measure, 1.0)));
        lines
    };
    let title = |text: &str| format!("{text}, {units} units on each machine");
    let drawn = [
        (
            "scale-seen.svg",
            plot::draw(
                &title("Until every machine acts on a change"),
                "ms",
                &with_floor("floor seen", "seen"),
            ),
        ),
        (
            "scale-reported.svg",
            plot::draw(
                &title("Until every machine has reported a change"),
                "ms",
                &with_floor("floor told", "told"),
            ),
        ),
        (
            "scale-writes.svg",
            plot::draw(
                &title("Writes to etcd of one change"),
                "raft proposals",
                &CHANGES.map(|what| line(what, what, "writes", 1.0)),
            ),
        ),
        (
            "scale-memory.svg",
            plot::draw(
                &title("Memory"),
                "MiB",
                &[
                    line("etcd", "idle", "etcd's memory", 1048576.0),
                    line(
                        "etcd, peak of a storm",
                        "back after a cut",
                        "etcd's peak",
                        1048576.0,
                    ),
                    line("the leader", "idle", "engine's memory", 1048576.0),
                    line("one agent", "idle", "an agent's memory", 1048576.0),
                    line("the registry", "idle", "registry", 1048576.0),
                ],
            ),
        ),
        (
            "scale-storms.svg",
            plot::draw(
                &title("Until it is calm after a storm"),
                "s",
                &[
                    line("all join at once", "join", "told", 1.0),
                    line("etcd restarted", "etcd restarted", "calm", 1.0),
                    line("back after a cut", "back after a cut", "calm", 1.0),
                ],
            ),
        ),
    ];
    drawn
        .into_iter()
        .filter_map(|(name, plot)| Some((name, plot?)))
        .collect()
}
