//! Units whose processes record when they start and when they stop.

pub(crate) use lab::trail::{PATH, Trail, install, now};

use super::QUARTER;

/// A unit that leaves a trail.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    version: u32,
    service: String,
    before: String,
    after: String,
    fleet: String,
}

impl Unit {
    /// Returns a unit for every machine, a quarter of them at once.
    pub(crate) fn version(version: u32) -> Self {
        Self {
            fleet: QUARTER.to_owned(),
            ..Self::plain(version)
        }
    }

    /// Returns a unit with nothing in `[X-Fleet]`.
    pub(crate) fn plain(version: u32) -> Self {
        Self {
            version,
            service: String::new(),
            before: String::new(),
            after: String::new(),
            fleet: String::new(),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.version
    }

    /// Makes it report that it is up, after that many seconds.
    pub(crate) fn notifies_after(self, seconds: u32) -> Self {
        Self {
            service: "Type=notify\nNotifyAccess=all\n".to_owned(),
            before: format!("sleep {seconds}; systemd-notify --ready"),
            ..self
        }
    }

    /// Makes it run this once it is up.
    pub(crate) fn then(self, after: &str) -> Self {
        Self {
            after: after.to_owned(),
            ..self
        }
    }

    /// Adds a line to `[Service]`.
    pub(crate) fn service(mut self, line: &str) -> Self {
        self.service += &format!("{line}\n");
        self
    }

    /// Adds a line to `[X-Fleet]`.
    pub(crate) fn fleet(mut self, line: &str) -> Self {
        self.fleet += &format!("{line}\n");
        self
    }

    pub(crate) fn file(&self) -> String {
        let Self {
            version,
            service,
            before,
            after,
            fleet,
        } = self;
        format!(
            "[Service]\nExecStart={PATH} %n {version} '{before}' '{after}'\n{service}\n[X-Fleet]\n{fleet}"
        )
    }
}
