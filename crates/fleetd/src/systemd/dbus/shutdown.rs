//! Whether the host is shutting down. The bus may be stopped before fleetd is, in spite of
//! `After=`; PID 1's own socket, which `systemctl` uses, is there to the end.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::proxy::MANAGER_PATH;
use super::session::Session;
use crate::systemd::Result;

const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const STATE: &str = "SystemState";

/// How long each may take to answer: the machine's lease is not renewed meanwhile.
const LIMIT: Duration = Duration::from_millis(500);

/// Returns `false` if neither answers.
pub(super) async fn is_under_way(session: impl Future<Output = Result<Arc<Session>>>) -> bool {
    let over_the_bus = async {
        let state = session.await.ok()?;
        let state = state.property::<String>(MANAGER_PATH, MANAGER, STATE).await;
        state.ok()?
    };
    let mut state = timeout(LIMIT, over_the_bus).await.ok().flatten();
    if state.is_none() {
        let asked = timeout(LIMIT, over_its_socket()).await;
        state = asked.ok().flatten();
    }
    state.is_some_and(|state| state == "stopping")
}

async fn over_its_socket() -> Option<String> {
    let ask = || Command::new("systemctl").arg("is-system-running").output();
    let answer = spawn_blocking(ask).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}
