//! What systemd says of units, and what that means.

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
