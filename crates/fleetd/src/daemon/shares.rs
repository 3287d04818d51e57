//! The places for clients. Each user and each address has a share, and some places are for root
//! alone, so that no client blocks others.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The number of connections served at once.
const PLACES: usize = 256;

/// The number of places that only root gets.
const FOR_ROOT: usize = 32;

/// The number of places that one user, or one address, gets.
pub(super) const SHARE: usize = 64;

/// The client of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// A user of this machine.
    User(u32),
    /// A host of the network.
    Address(IpAddr),
    /// The kernel does not report it.
    Unknown,
}

impl Client {
    /// Returns how long the client may read nothing of its answer. Root may read it page by page.
    pub(super) fn patience(self) -> Duration {
        match self {
            Self::User(0) => Duration::from_secs(300),
            _ => Duration::from_secs(10),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Unknown => f.write_str("a client"),
        }
    }
}

/// The places, and the clients that have them.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<HashMap<Client, usize>>>);

/// A connection's place. Dropping it releases the place.
pub(super) struct Place {
    places: Places,
    client: Client,
}

impl Places {
    /// Takes a place. `None` if the client has its full share, or all places are taken.
    pub(super) fn take(&self, client: Client) -> Option<Place> {
        let mut taken = self.taken();
        let all: usize = taken.values().sum();
        let (most, share) = match client {
            Client::User(0) => (PLACES, PLACES),
            _ => (PLACES - FOR_ROOT, SHARE),
        };
        let own = taken.entry(client).or_default();
        if all >= most || *own >= share {
            return None;
        }
        *own += 1;
        Some(Place {
            places: self.clone(),
            client,
        })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Client, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(places: &Places, client: Client) -> Vec<Place> {
        std::iter::from_fn(|| places.take(client)).collect()
    }

    #[test]
    fn user_has_a_share_and_root_has_reserved_places() {
        let places = Places::default();
        let mut held = Vec::new();
        for user in 1000..1010 {
            held.push(taken(&places, Client::User(user)).len());
        }
        assert_eq!(
            held,
            [0; 10].map(|_: usize| SHARE),
            "each gives its places back"
        );
        let all: Vec<_> = (1000..1010)
            .flat_map(|user| taken(&places, Client::User(user)))
            .collect();
        assert_eq!(all.len(), PLACES - FOR_ROOT);
        assert!(places.take(Client::Unknown).is_none());
        assert_eq!(taken(&places, Client::User(0)).len(), FOR_ROOT);
        drop(all);
        let one = Client::Address([10, 0, 0, 1].into());
        assert_eq!(taken(&places, one).len(), SHARE);
    }
}
