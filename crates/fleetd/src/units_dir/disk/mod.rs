//! A units directory on a disk: what lies in it, and how its changes are noticed.

mod scan;
mod trust;
mod watch;

pub(super) use scan::{RECENT, Scan};
pub(super) use watch::Watch;
