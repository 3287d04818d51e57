//! The samples, and their tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Result, bail};

/// The number of machines, and of units on each.
pub(crate) type Size = (usize, usize);

/// Samples by size, subject and measure.
#[derive(Default)]
pub(crate) struct Samples {
    size: Size,
    values: BTreeMap<(&'static str, &'static str), BTreeMap<Size, Vec<f64>>>,
}

/// A start that costs only what etcd, the leader and a hundred agents do.
pub(crate) const AMONG: &str = "start, a hundred agents among others";

/// The changes, in the order of the table.
pub(crate) const CHANGES: [&str; 7] = [
    "start",
    AMONG,
    "stop",
    "destroy",
    "metadata of one machine",
    "update, all at once",
    "update, 10 % at a time",
];

/// The rows of the other tables: subject, measure, and label.
const IDLE: [(&str, &str, &str); 12] = [
    (
        "idle",
        "keep-alives",
        "lease renewals, a machine and second",
    ),
    (
        "idle",
        "other requests",
        "other requests, a machine and second",
    ),
    ("idle", "writes", "raft proposals, a machine and second"),
    (
        "idle",
        "bytes",
        "bytes to and from etcd, a machine and second",
    ),
    ("idle", "agents' CPU", "processor of an agent, % of a core"),
    ("idle", "an agent's memory", "memory of an agent, KiB"),
    (
        "idle",
        "engine's CPU",
        "processor of the leader, % of a core",
    ),
    ("idle", "engine's memory", "memory of the leader, MiB"),
    ("idle", "engine's peak", "its peak, MiB"),
    ("idle", "etcd's CPU", "processor of etcd, % of a core"),
    ("idle", "etcd's memory", "memory of etcd, MiB"),
    ("idle", "registry", "the registry in etcd, MiB"),
];

const STORMS: [(&str, &str, &str); 13] = [
    (
        "join",
        "told",
        "all machines join: until all units run everywhere, s",
    ),
    ("join", "errors", "calls that failed"),
    ("join", "etcd's peak", "etcd's peak memory, MiB"),
    (
        "etcd restarted",
        "all follow",
        "etcd restarted: until all follow it, s",
    ),
    ("etcd restarted", "calm", "until etcd is idle again, s"),
    (
        "etcd restarted",
        "errors",
        "calls that failed from its end on",
    ),
    ("etcd restarted", "etcd's peak", "etcd's peak memory, MiB"),
    (
        "back after a cut",
        "all follow",
        "all lines cut for a lease, and back: until all follow, s",
    ),
    (
        "back after a cut",
        "all present",
        "until all are present, s",
    ),
    ("back after a cut", "calm", "until etcd is idle again, s"),
    ("back after a cut", "errors", "calls that failed"),
    ("back after a cut", "etcd's peak", "etcd's peak memory, MiB"),
    (
        "leader",
        "peak",
        "the leader's peak memory in all of it, MiB",
    ),
];

const READS: [(&str, &str, &str); 9] = [
    (
        "reads",
        "floor",
        "floor: one range read of all reports, printed, ms",
    ),
    (
        "reads",
        "rows",
        "floor: the same, read as JSON and printed as rows, ms",
    ),
    ("reads", "list-units", "`fleetctl list-units`, ms"),
    ("reads", "list-units ratio", "over the floor with rows"),
    ("reads", "status", "`fleetctl status`, ms"),
    ("reads", "status unit", "`fleetctl status` of one unit, ms"),
    (
        "reads",
        "fleetctl's peak",
        "peak memory of `fleetctl list-units`, MiB",
    ),
    (
        "reads",
        "server before",
        "peak memory of the leader before it answered any of it, MiB",
    ),
    ("reads", "server after", "and after, MiB"),
];

const GROWTH: [(&str, &str, &str); 4] = [
    (
        "growth",
        "adopted",
        "etcd, after all machines adopted 50 equal files, MiB",
    ),
    (
        "growth",
        "history",
        "etcd, 1,000 units with 10 revisions of 100 KB, MiB",
    ),
    ("growth", "leader", "memory of a leader beside these, MiB"),
    ("growth", "leader's peak", "its peak, MiB"),
];

impl Samples {
    /// Sets the size of the samples that are added from here on.
    pub(crate) fn of(&mut self, size: Size) {
        self.size = size;
    }

    pub(crate) fn add(&mut self, what: &'static str, measure: &'static str, value: f64) {
        let sizes = self.values.entry((what, measure)).or_default();
        sizes.entry(self.size).or_default().push(value);
    }

    /// Returns all samples, one on each line: subject, measure and value, separated by tabs.
    pub(crate) fn raw(&self) -> String {
        let sizes = self.values.iter();
        let samples = sizes.flat_map(|(named, sizes)| {
            let values = sizes.values().flatten();
            values.map(move |value| (named, value))
        });
        samples
            .map(|((what, measure), value)| format!("{what}\t{measure}\t{value:e}\n"))
            .collect()
    }

    /// Adds the samples of one size, from their lines.
    pub(crate) fn take(&mut self, size: Size, raw: &str) -> Result<()> {
        self.of(size);
        for line in raw.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [what, measure, value] = fields[..] else {
                bail!("{line:?} is no sample");
            };
            // There are only some dozens of them.
            let kept = |text: &str| -> &'static str { text.to_owned().leak() };
            self.add(kept(what), kept(measure), value.parse()?);
        }
        Ok(())
    }

    /// Returns the sample nearest to that quantile, without interpolation.
    pub(crate) fn quantile(
        &self,
        what: &'static str,
        measure: &'static str,
        size: Size,
        part: f64,
    ) -> Option<f64> {
        let mut samples = self.values.get(&(what, measure))?.get(&size)?.clone();
        samples.sort_by(f64::total_cmp);
        let at = (samples.len().checked_sub(1)?) as f64 * part;
        samples.get(at.round() as usize).copied()
    }

    pub(crate) fn median(
        &self,
        what: &'static str,
        measure: &'static str,
        size: Size,
    ) -> Option<f64> {
        self.quantile(what, measure, size, 0.5)
    }

    pub(crate) fn sizes(&self) -> BTreeSet<Size> {
        self.values
            .values()
            .flat_map(BTreeMap::keys)
            .copied()
            .collect()
    }

    /// Returns all tables.
    pub(crate) fn tables(&self) -> String {
        let mut text = String::new();
        for size in self.sizes() {
            text += &self.changes(size);
        }
        text += &self.table("While nothing changes", &IDLE);
        text += &self.table("Storms", &STORMS);
        text += &self.table("Reads", &READS);
        text += &self.table("Growth", &GROWTH);
        text
    }

    fn changes(&self, size: Size) -> String {
        let (machines, units) = size;
        let mut text = format!(
            "### {machines} machines, {units} units on each\n\n\
             | change | floor: seen, ms | seen, ms | ratio (p10-p90) | floor: back, ms | reported, ms | ratio (p10-p90) | writes | MiB to etcd | MiB from etcd | rounds |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        );
        let mut any = false;
        for what in CHANGES {
            let value = |measure| {
                self.median(what, measure, size)
                    .map_or("-".to_owned(), digits)
            };
            let ratio = |measure| {
                let part = |part| {
                    self.quantile(what, measure, size, part)
                        .map_or("-".to_owned(), digits)
                };
                format!("**{}** ({}-{})", part(0.5), part(0.1), part(0.9))
            };
            let mebibytes = |measure| {
                let bytes = self.median(what, measure, size);
                bytes.map_or("-".to_owned(), |it| digits(it / 1048576.0))
            };
            let Some(count) = self
                .values
                .get(&(what, "told"))
                .and_then(|it| it.get(&size))
            else {
                continue;
            };
            any = true;
            let _ = writeln!(
                text,
                "| {what} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                value("floor seen"),
                value("seen"),
                ratio("seen ratio"),
                value("floor told"),
                value("told"),
                ratio("told ratio"),
                value("writes"),
                mebibytes("received"),
                mebibytes("sent"),
                count.len(),
            );
        }
        if any { text + "\n" } else { String::new() }
    }

    fn table(&self, title: &str, rows: &[(&'static str, &'static str, &str)]) -> String {
        let measured = |size: &Size| {
            rows.iter()
                .any(|(what, measure, _)| self.median(what, measure, *size).is_some())
        };
        let sizes: Vec<Size> = self.sizes().into_iter().filter(measured).collect();
        if sizes.is_empty() {
            return String::new();
        }
        let heads: Vec<String> = sizes
            .iter()
            .map(|(machines, units)| format!("{machines} x {units}"))
            .collect();
        let mut text = format!("### {title}\n\n| what | {} |\n|---|", heads.join(" | "));
        text += &"--:|".repeat(sizes.len());
        text.push('\n');
        for (what, measure, reads) in rows {
            let scale = match reads.rsplit(' ').next() {
                Some("MiB") => 1048576.0,
                Some("KiB") => 1024.0,
                _ => 1.0,
            };
            let cells: Vec<String> = sizes
                .iter()
                .map(|size| {
                    let value = self.median(what, measure, *size);
                    value.map_or("-".to_owned(), |value| digits(value / scale))
                })
                .collect();
            if cells.iter().any(|cell| cell != "-") {
                let _ = writeln!(text, "| {reads} | {} |", cells.join(" | "));
            }
        }
        text + "\n"
    }
}

/// Returns a number with three significant digits.
pub(crate) fn digits(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        v if v.abs() >= 100.0 => format!("{v:.0}"),
        v if v.abs() >= 10.0 => format!("{v:.1}"),
        v if v.abs() >= 1.0 => format!("{v:.2}"),
        v if v.abs() >= 0.001 => format!("{v:.3}"),
        v => format!("{v:.5}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_another_process_are_read_unchanged() {
        let mut there = Samples::default();
        there.of((300, 3));
        for value in [1.0 / 3.0, 0.0, 1e9] {
            there.add("start", "told", value);
        }
        there.add("idle", "writes", 7.0);
        let mut here = Samples::default();
        here.take((300, 3), &there.raw()).expect("samples");
        assert_eq!(here.raw(), there.raw());
        assert_eq!(here.sizes(), BTreeSet::from([(300, 3)]));
        assert_eq!(here.median("start", "told", (300, 3)), Some(1.0 / 3.0));
        here.take((1, 1), "start").expect_err("no sample");
    }
}
