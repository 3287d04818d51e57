//! A measured quantity, and the page of all of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use lab::{Lab, run};

/// A measured quantity: its text, the value of fleet 1.0, and the target. Floors and counts have no
/// target.
pub(crate) struct Figure {
    pub(crate) what: &'static str,
    pub(crate) original: &'static str,
    pub(crate) target: &'static str,
    pub(crate) unit: &'static str,
}

macro_rules! figures {
    ($($name:ident: $what:literal, $original:literal, $target:literal, $unit:literal;)*) => {
        $(pub(crate) const $name: &Figure = &Figure { what: $what, original: $original, target: $target, unit: $unit };)*
        /// All figures, in the order of the page.
        const ALL: &[&Figure] = &[$($name),*];
    };
}

figures! {
    NEW: "new unit: runs on all 3 hosts", "2.64", "< 0.10", "s";
    LISTED: "new unit: `list-units` has it active on all 3", "3.38", "< 0.20", "s";
    START: "start of a submitted unit: runs on all 3", "1.05", "< 0.10", "s";
    UPDATE: "update: the new process runs on all 3", "2.8", "", "s";
    STOP: "stop: gone from all 3", "0.90", "< 0.10", "s";
    DESTROY: "destroy: gone from all 3", "1.85", "< 0.10", "s";
    LABEL: "metadata set: the unit runs there", "2.1", "< 0.10", "s";
    UNLABEL: "metadata removed: the unit is gone there", "3.3", "< 0.10", "s";
    MANY: "50 units in one `start`: all 150 run", "5.2-5.8", "< 0.6", "s";
    MANY_GONE: "50 units in one `destroy`: all 150 are gone", "51-62", "< 0.6", "s";
    VERSION: "process of `fleetctl version`", "", "< 3", "ms";
    LIST_UNITS: "process of `list-units`, 100 units on 3 hosts", "", "< 10", "ms";
    LIST_UNIT_FILES: "process of `list-unit-files`, 100 units", "", "< 10", "ms";
    LIST_MACHINES: "process of `list-machines`, 100 units on 3 hosts", "", "< 10", "ms";
    IMPORT: "process of `import`, a DaemonSet of 74 lines", "", "< 5", "ms";
    REBOOT: "host rebooted, 100 units: start of fleetd until all run", "31.4", "< 0.5", "s";
    DARK: "the same with dead DNS, no network and an absent API address", "", "", "s";
    DARK_DELAY: "its time less that of the reboot before it", "", "< 0.5", "s";
    COMMENTS: "100 units that change only comments: reloads of systemd", "", "0", "";
    LEADER: "leader killed: another, or the same again, leads", "9.3-10.4", "< 5", "s";
    ROLLOUT: "rollout of a unit that starts in 1 s: 12 hosts, 25 % at once", "", "", "s";
    ROLLOUT_RATIO: "its time over that of the starts in its 4 batches", "", "<= 1.3", "";
    ROLLOUT_FLOOR_RATIO: "its time over that of 4 times the floor of a batch", "", "<= 1.3", "";
    ROLLOUT_WRITES: "its registry commits, a machine", "", "", "";
    RSS: "fleetd, 100 units: resident memory", "18-19", "< 10", "MiB";
    PSS: "fleetd, 100 units: its share of it (PSS)", "", "", "MiB";
    CPU: "fleetd, 100 units, idle: processor", "0.6-1.1", "< 0.05", "%";
    SWITCHES: "fleetd, 100 units, idle: times it woke", "", "", "/s";
    KEEP_ALIVES: "etcd, 3 hosts idle: lease keep-alives in all", "", "0.3 and 1 of the leader", "/s";
    OTHER_REQUESTS: "etcd, 3 hosts idle: other requests in all", "46", "0", "/s";
    EVENTS: "etcd, 3 hosts idle: watch events in all", "", "0", "/s";
    RAFT: "etcd, 3 hosts idle: raft proposals in all", "41", "0", "/s";
    CROWD_START: "1,000 units in one `fleetctl start`: all run", "", "", "s";
    CROWD_START_RATIO: "its time over that of `systemctl`, of each start", "", "<= 1.2", "";
    CROWD_UPDATE: "1,000 units in one `fleetctl start --replace`: all run again", "", "", "s";
    CROWD_UPDATE_RATIO: "its time over that of `systemctl`, of each update", "", "<= 1.2", "";
    CROWD_STOP: "1,000 units in one `fleetctl stop`: all are gone", "", "", "s";
    CROWD_STOP_RATIO: "its time over that of `systemctl`, of each stop", "", "<= 1.2", "";
    CROWD_RSS: "fleetd, 1,000 units: resident memory", "", "", "MiB";
    LOOP_FLEETD: "500 units that restart every 10 s: processor of fleetd", "", "", "%";
    LOOP_SYSTEMD: "meanwhile: PID 1", "", "", "%";
    LOOP_FLOOR_SYSTEMD: "floor: PID 1 while such units are not fleet's", "", "", "%";
    CROWD_FLOOR_START: "floor: `daemon-reload` and `start` of 1,000 such units", "", "", "s";
    CROWD_FLOOR_UPDATE: "floor: `systemctl daemon-reload` and `restart` of them", "", "", "s";
    CROWD_FLOOR_STOP: "floor: `systemctl stop` of the 1,000", "", "", "s";
    FLOOR_CTL: "floor: `fleetctl --version`, as every command above is run", "", "", "s";
    FLOOR_START: "floor: `systemctl start` of such a unit on one host", "", "", "s";
    FLOOR_STOP: "floor: `systemctl stop` of it", "", "", "s";
    FLOOR_RELOAD: "floor: `systemctl daemon-reload` on 3 hosts at once", "", "", "s";
    FLOOR_PUT: "floor: one put into etcd, over HTTP", "", "", "s";
    FLOOR_MANY: "floor: `systemctl start` of 50 units on each of 3 hosts", "", "", "s";
    FLOOR_MANY_GONE: "floor: `systemctl stop` of them", "", "", "s";
    FLOOR_BATCH: "floor: `daemon-reload`, `restart` of it on 3 of the 12 hosts", "", "", "s";
}

/// The measured samples.
#[derive(Default)]
pub(crate) struct Samples(BTreeMap<&'static str, Vec<f64>>);

impl Samples {
    pub(crate) fn add(&mut self, figure: &Figure, value: f64) {
        self.0.entry(figure.what).or_default().push(value);
    }

    /// Returns the figures as a table.
    pub(crate) fn table(&self) -> String {
        let mut table = "| what | unit | median | p10 | p90 | samples | aim | fleet 1.0 |\n\
                         |---|---|--:|--:|--:|--:|--:|--:|\n"
            .to_owned();
        for figure in ALL {
            let Some(samples) = self.0.get(figure.what) else {
                continue;
            };
            let _ = writeln!(
                table,
                "| {} | {} | **{}** | {} | {} | {} | {} | {} |",
                figure.what,
                figure.unit,
                digits(quantile(samples, 0.5)),
                digits(quantile(samples, 0.1)),
                digits(quantile(samples, 0.9)),
                samples.len(),
                figure.target,
                figure.original,
            );
        }
        table
    }
}

/// Returns the nearest sample, without interpolation.
fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() - 1) as f64 * part;
    sorted[at.round() as usize]
}

fn digits(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

/// Returns the place and the time of the measurement, in one line.
pub(crate) fn machine(lab: &Lab) -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = memory
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let systemd = first(lab.host(1).exec(&["systemctl", "--version"])?.ok()?);
    let etcd = first(run(&["etcd", "--version"])?.ok()?);
    let kernel = run(&["uname", "-r"])?.ok()?;
    let date = run(&["date", "+%F"])?.ok()?;
    Ok(format!(
        "Measured {} on {cores} cores that hosts, etcd and the measuring share, {} GiB, Linux {}; {systemd}; {etcd}.",
        date.trim(),
        kib.div_ceil(1 << 20),
        kernel.trim(),
    ))
}
