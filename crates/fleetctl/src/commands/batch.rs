//! Reports which units were changed and which were not, when several are changed and some fail.

use std::fmt::Display;

use anyhow::anyhow;

use crate::client::NotTried;
use crate::output::talk;

/// The results of changing several units.
#[derive(Default)]
pub(super) struct Batch {
    done: Vec<String>,
    failed: Vec<(String, anyhow::Error)>,
}

impl Batch {
    /// Records the result for one unit. Returns its value if it succeeded.
    pub(super) fn note<T>(&mut self, unit: impl Display, result: anyhow::Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                self.done.push(unit.to_string());
                Some(value)
            }
            Err(error) => {
                self.failed.push((unit.to_string(), error));
                None
            }
        }
    }

    /// Returns an error if one unit failed. It begins with `failing` (`Error stopping units`);
    /// `done` is what happened to the others (`stopped`). With several units, each reason is
    /// printed first, once.
    pub(super) fn finish(mut self, failing: &'static str, done: &str) -> anyhow::Result<()> {
        if self.failed.is_empty() {
            return Ok(());
        }
        if self.done.is_empty() && self.failed.len() == 1 {
            let only = self.failed.pop().map(|(_, error)| error.context(failing));
            return only.map_or(Ok(()), Err);
        }
        for reason in self.reasons() {
            talk(format_args!("{failing}: {reason}"));
        }
        let names = |units: &mut dyn Iterator<Item = &String>| {
            let names: Vec<&str> = units.map(String::as_str).collect();
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        let (good, bad) = (
            names(&mut self.done.iter()),
            names(&mut self.failed.iter().map(|(unit, _)| unit)),
        );
        Err(anyhow!("{done}: {good}; not {done}: {bad}"))
    }

    /// Returns each reason with the units that it stopped, unless it names them itself.
    fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
        for (unit, error) in &self.failed {
            if error.is::<NotTried>() {
                continue;
            }
            let reason = format!("{error:#}");
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, units)) => units.push(unit),
                None => reasons.push((reason, vec![unit])),
            }
        }
        let tell = |(reason, units): (String, Vec<&str>)| {
            if units.iter().all(|unit| reason.contains(unit)) {
                reason
            } else {
                format!("{}: {reason}", units.join(", "))
            }
        };
        reasons.into_iter().map(tell).collect()
    }
}

/// Returns an error found before any of these units was touched. With several units, its reason
/// alone would not say what happened to the others.
pub(super) fn before_any(why: anyhow::Error, units: &[&str], done: &str) -> anyhow::Error {
    if units.len() < 2 {
        return why;
    }
    talk(format_args!("{why:#}"));
    anyhow!("{done}: none; not {done}: {}", units.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(results: [Result<(), &'static str>; 3]) -> Batch {
        let mut batch = Batch::default();
        for (unit, result) in ["a.service", "b.service", "c.service"].iter().zip(results) {
            batch.note(unit, result.map_err(anyhow::Error::msg));
        }
        batch
    }

    #[test]
    fn batch_error_lists_done_and_undone_units() {
        let batch = batch([Ok(()), Err("b.service: no"), Err("away")]);
        assert_eq!(batch.reasons(), ["b.service: no", "c.service: away"]);
        let error = batch.finish("Error stopping units", "stopped");
        assert_eq!(
            error.expect_err("two failed").to_string(),
            "stopped: a.service; not stopped: b.service, c.service"
        );
    }

    #[test]
    fn shared_reason_is_printed_once() {
        let mut batch = batch([Err("away"), Err("away"), Ok(())]);
        batch.note::<()>("d.service", Err(NotTried.into()));
        assert_eq!(batch.reasons(), ["a.service, b.service: away"]);
    }

    #[test]
    fn single_unit_fails_with_its_own_reason() {
        let mut batch = Batch::default();
        batch.note::<()>("a.service", Err(anyhow!("no")));
        let error = batch.finish("Error stopping units", "stopped");
        let error = format!("{:#}", error.expect_err("it failed"));
        assert_eq!(error, "Error stopping units: no");
    }
}
