//! What systemd says of units, and what that means.

use crate::unit::{ServiceType, UnitKind};

/// What systemd says of a unit at one moment, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Load state: `loaded`, `not-found`, `bad-setting`, `error`, `masked`.
    pub load: String,
    /// Active state: `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`.
    pub active: String,
    /// Sub state, such as `running`.
    pub sub: String,
    /// The kind of the job that waits or runs for it, such as `start`; none if there is no job.
    pub job: Option<String>,
}

impl State {
    /// A unit that systemd does not know.
    pub fn not_found() -> Self {
        Self {
            load: "not-found".to_owned(),
            active: "inactive".to_owned(),
            sub: "dead".to_owned(),
            job: None,
        }
    }

    /// Whether systemd has no file of it.
    pub fn is_not_found(&self) -> bool {
        self.load == "not-found"
    }

    /// Whether it lives on in systemd, which has no file of it any more. It looks for one in a reload only.
    pub fn lost_its_file(&self) -> bool {
        self.is_not_found() && (self.active != "inactive" || self.job.is_some())
    }

    /// Whether it runs, or is about to.
    pub fn is_up(&self) -> bool {
        matches!(
            self.active.as_str(),
            "active" | "reloading" | "activating" | "refreshing" | "maintenance"
        ) || matches!(
            self.job.as_deref(),
            Some("start" | "restart" | "try-restart")
        )
    }

    /// Whether a stop is on its way.
    pub fn is_stopping(&self) -> bool {
        self.active == "deactivating" && self.job.as_deref() != Some("restart")
            || self.job.as_deref() == Some("stop")
    }
}

/// Whether a unit that should be launched does what it should.
///
/// `result` is systemd's `Result` of its last run; `service` matters for services only.
pub fn ready(kind: UnitKind, service: ServiceType, state: &State, result: &str) -> bool {
    if state.load != "loaded" {
        return false;
    }
    match state.active.as_str() {
        "active" | "reloading" => true,
        // `result` alone would do for a oneshot that ran; with a job pending it is that of the run before.
        "inactive" => {
            kind == UnitKind::Service
                && service.oneshot
                && !service.remain_after_exit
                && state.job.is_none()
                && result == "success"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTING: ServiceType = ServiceType {
        oneshot: false,
        remain_after_exit: false,
        proves_readiness: false,
    };
    const ONESHOT: ServiceType = ServiceType {
        oneshot: true,
        remain_after_exit: false,
        proves_readiness: true,
    };

    fn state(active: &str, job: Option<&str>) -> State {
        State {
            load: "loaded".to_owned(),
            active: active.to_owned(),
            sub: String::new(),
            job: job.map(str::to_owned),
        }
    }

    #[test]
    fn a_lasting_unit_is_ready_while_active() {
        for (active, is_ready) in [
            ("active", true),
            ("reloading", true),
            ("activating", false),
            ("deactivating", false),
            ("inactive", false),
            ("failed", false),
        ] {
            let state = state(active, None);
            assert_eq!(
                ready(UnitKind::Service, LASTING, &state, "success"),
                is_ready,
                "{active}"
            );
        }
    }

    #[test]
    fn a_oneshot_is_ready_when_it_is_done_with_success() {
        let done = state("inactive", None);
        assert!(ready(UnitKind::Service, ONESHOT, &done, "success"));
        assert!(!ready(UnitKind::Service, ONESHOT, &done, "exit-code"));
        let waiting = state("inactive", Some("start"));
        assert!(!ready(UnitKind::Service, ONESHOT, &waiting, "success"));
    }

    #[test]
    fn a_unit_whose_file_systemd_refuses_is_never_ready() {
        let mut bad = state("active", None);
        bad.load = "bad-setting".to_owned();
        assert!(!ready(UnitKind::Service, LASTING, &bad, "success"));
    }
}
