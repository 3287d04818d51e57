//! fleetd as a library: its API, its loops, and both sides of its two seams.

mod api;
mod bytes;
mod loops;
mod store;
mod systemd;
