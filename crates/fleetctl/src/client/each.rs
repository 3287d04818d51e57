//! Asks many things at once, over a few connections.

use std::cell::{Cell, RefCell};
use std::mem;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::Client;

/// How many requests are on their way at once: fleetd makes those that come together in one commit.
const IN_FLIGHT: usize = 32;

/// A request that was not made, because fleetd stopped answering before its turn came.
#[derive(Debug, thiserror::Error)]
#[error("not tried")]
pub(crate) struct NotTried;

impl Client {
    /// Calls `ask` for every item, several at once; the answers come in the order of the items.
    /// Once fleetd or its registry does not answer, the rest is [`NotTried`]: each would wait for
    /// it as long again.
    pub(crate) async fn each<T, R>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        ask: impl AsyncFn(&mut Client, T) -> anyhow::Result<R>,
    ) -> Vec<anyhow::Result<R>> {
        self.each_of(IN_FLIGHT, items, ask).await
    }

    /// The same, one after the other, for what depends on the order.
    pub(crate) async fn each_in_turn<T, R>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        ask: impl AsyncFn(&mut Client, T) -> anyhow::Result<R>,
    ) -> Vec<anyhow::Result<R>> {
        self.each_of(1, items, ask).await
    }

    async fn each_of<T, R>(
        &mut self,
        at_once: usize,
        items: impl IntoIterator<Item = T>,
        ask: impl AsyncFn(&mut Client, T) -> anyhow::Result<R>,
    ) -> Vec<anyhow::Result<R>> {
        let (closed, timeout) = (self.connection.another(), self.timeout);
        let another = || closed.another();
        let mut open = mem::take(&mut self.spare);
        open.push(mem::replace(&mut self.connection, another()));
        let (open, gone) = (RefCell::new(open), Cell::new(false));
        let one = async |item| {
            if gone.get() {
                return Err(NotTried.into());
            }
            let connection = open.borrow_mut().pop().unwrap_or_else(another);
            let mut client = Client {
                connection,
                spare: Vec::new(),
                timeout,
                warned: self.warned.clone(),
            };
            let answer = ask(&mut client, item).await;
            gone.set(gone.get() || client.connection.is_lost());
            open.borrow_mut().push(client.connection);
            answer
        };
        // Through a tunnel, each connection would be a login, which takes longer than a few
        // requests and may ask for a passphrase.
        let at_once = if closed.is_tunnelled() { 1 } else { at_once };
        let answers = stream::iter(items).map(one).buffered(at_once).collect();
        let answers = answers.await;
        self.spare = open.into_inner();
        self.connection = self.spare.pop().unwrap_or_else(another);
        answers
    }
}
