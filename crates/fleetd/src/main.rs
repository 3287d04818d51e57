//! fleetd: see `fleetd --help`.
fn main() {}
