//! fleetctl
fn main() {}
