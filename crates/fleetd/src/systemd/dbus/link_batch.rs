//! Files that are to be linked at the same time are linked by one call: after each, systemd tells
//! everybody that unit files changed.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::yield_now;

use super::session::{CALL, Session};
use super::{FORCE, RUNTIME, Result};

/// A file, and whom to tell that it is linked.
type Asked = (String, oneshot::Sender<()>);

/// What is to be linked.
#[derive(Default)]
pub(super) struct Linking {
    waiting: Mutex<Vec<Asked>>,
    turn: tokio::sync::Mutex<()>,
}

impl Linking {
    fn waiting(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has systemd link a file of fleet's.
    pub(super) async fn link(&self, session: &Session, path: String) -> Result<()> {
        let link = async |files: &[&str]| {
            let link = session.manager.link_unit_files(files, RUNTIME, FORCE);
            session.ask(CALL, link).await.map(drop)
        };
        let (tell, mut told) = oneshot::channel();
        self.waiting().push((path.clone(), tell));
        // Others ask in the same moment.
        yield_now().await;
        let turn = self.turn.lock().await;
        let mut is_made = told.try_recv();
        if is_made == Err(TryRecvError::Empty) {
            let together = mem::take(&mut *self.waiting());
            let files: Vec<&str> = together.iter().map(|(path, _)| &**path).collect();
            let answer = link(&files).await;
            if files.len() == 1 {
                return answer;
            }
            if answer.is_ok() {
                // Who is gone need not know.
                for (_, tell) in together {
                    let _ = tell.send(());
                }
            }
            is_made = told.try_recv();
        }
        drop(turn);
        match is_made {
            Ok(()) => Ok(()),
            // One of those that were asked for together cannot be linked: each is told of its own.
            Err(_) => link(&[&path]).await,
        }
    }
}
