//! Follows the journals of several machines at once.

use fleet_core::api::Machine;
use tokio::sync::mpsc;

use super::stream::EntryStream;
use super::{Entry, Query, prompts};
use crate::remote::Ssh;

/// The number of entries that wait for a slow reader. Beyond it, the machines wait.
const WAITING_MAX: usize = 1024;

/// An event of one of the followed machines.
pub(crate) enum Event {
    /// The machine logged an entry.
    Entry(usize, Entry),
    /// The machine will send nothing more, with the reason.
    Ended(usize, String),
}

/// Follows machines, each by its number and from a cursor, or from the beginning. Dropping the
/// receiver ends it.
pub(crate) fn follow(
    ssh: &Ssh,
    machines: &[Machine],
    query: &Query,
    from: &[(usize, Option<String>)],
) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let prompts = prompts(machines);
    for &(number, ref cursor) in from {
        let words = query.follow(cursor.as_deref());
        let opened = EntryStream::open(ssh, &machines[number], &words, prompts);
        let sender = sender.clone();
        tokio::spawn(async move {
            let why = match opened {
                Err(why) => why,
                Ok(mut stream) => {
                    while let Some(entry) = stream.next().await {
                        if sender.send(Event::Entry(number, entry)).await.is_err() {
                            return;
                        }
                    }
                    match stream.end().await {
                        Ok(_) => "journalctl ended there".to_owned(),
                        Err(why) => why,
                    }
                }
            };
            // The receiver may be gone. Then the event is not needed.
            let _ = sender.send(Event::Ended(number, why)).await;
        });
    }
    receiver
}
