//! Flags of fleet 1.0 about waiting for units that are not global.

use clap::Args;

/// Flags of fleet 1.0, which never applied to global units.
#[derive(Args)]
pub(super) struct Blocking {
    /// Accepted without effect: these commands never wait
    #[arg(long)]
    no_block: bool,
    #[arg(long, value_name = "N", hide = true)]
    block_attempts: Option<i64>,
}
