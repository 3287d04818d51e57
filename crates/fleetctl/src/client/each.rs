//! Makes many requests at once, over a few connections.

use std::cell::{Cell, RefCell};
use std::mem;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::Client;

/// The number of requests in flight. fleetd writes requests that arrive together in one commit.
const IN_FLIGHT: usize = 32;

/// The error for a request that was not made, because fleetd stopped responding before its turn.
#[derive(Debug, thiserror::Error)]
#[error("not tried")]
pub(crate) struct NotTried;

impl Client {
    /// Calls `ask` for every item, several at once. Returns the results in the order of the items.
    /// After fleetd or its registry stops responding, the remaining items are [`NotTried`]: each
    /// would wait as long again.
    pub(crate) async fn each<T, R>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        ask: impl AsyncFn(&mut Client, T) -> anyhow::Result<R>,
    ) -> Vec<anyhow::Result<R>> {
        self.each_of(IN_FLIGHT, items, ask).await
    }

    /// Calls `ask` for every item in turn, for requests that depend on the order.
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
        // Through a tunnel, each connection would be a login. That takes longer than a few requests
        // and may ask for a passphrase.
        let at_once = if closed.is_tunnelled() { 1 } else { at_once };
        let answers = stream::iter(items).map(one).buffered(at_once).collect();
        let answers = answers.await;
        self.spare = open.into_inner();
        self.connection = self.spare.pop().unwrap_or_else(another);
        answers
    }
}
