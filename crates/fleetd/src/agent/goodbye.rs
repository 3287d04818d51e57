//! The last report of a machine that shuts down, asked for by the daemon when it is stopped with
//! its host.

use std::future::pending;

use tokio::sync::watch;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Up,
    Asked,
    Said,
}

/// Asks the session for the last report, and knows when it is written. Both sides hold one.
#[derive(Clone, Debug, Default)]
pub struct Goodbye(watch::Sender<Stage>);

impl Goodbye {
    /// Has the session say that the host is shutting down, and waits until it did. Without a
    /// registry that is never.
    pub async fn say(&self) {
        self.0.send_replace(Stage::Asked);
        self.reaches(Stage::Said).await;
    }

    pub(super) async fn asked(&self) {
        self.reaches(Stage::Asked).await;
    }

    pub(super) fn is_said(&self) {
        self.0.send_replace(Stage::Said);
    }

    async fn reaches(&self, stage: Stage) {
        if self
            .0
            .subscribe()
            .wait_for(|it| *it == stage)
            .await
            .is_err()
        {
            pending::<()>().await;
        }
    }
}
