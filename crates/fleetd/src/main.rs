//! fleetd: see `fleetd --help`, and ARCHITECTURE.md for how it is made.

fn main() -> std::process::ExitCode {
    fleetd::daemon::main()
}
