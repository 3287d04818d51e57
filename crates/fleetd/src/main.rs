//! fleetd. See `fleetd --help` for its use, and ARCHITECTURE.md for its design.

fn main() -> std::process::ExitCode {
    fleetd::daemon::main()
}
