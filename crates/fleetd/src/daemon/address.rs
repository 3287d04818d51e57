//! The listed address of a machine. Boot does not wait for it. It is found later, and followed when
//! it changes.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use fleet_core::record::MachineRecord;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// From TEST-NET-1 (RFC 5737): no host has it, so the route to it is the default route.
const ANYWHERE: &str = "192.0.2.1:9";

/// The first of the protocols of netlink.
const NETLINK_ROUTE: Option<Protocol> = None;

/// The kernel's groups of notices about addresses and routes, IPv4 and IPv6 (linux/rtnetlink.h):
/// `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`.
const NEWS: u32 = 0x10 | 0x40 | 0x100 | 0x400;

/// The time in which notices are taken together. One change of the network sends several.
const SETTLING: Duration = Duration::from_millis(500);

/// The pause before names that do not resolve are tried again. Also the time between checks if the
/// kernel reports no changes.
const AGAIN: Duration = Duration::from_secs(10);

/// Keeps the address of the record current. `endpoints` has the registry's URLs.
pub(super) async fn follow(endpoints: &[String], record: &watch::Sender<MachineRecord>) {
    let addresses = endpoints.iter().filter_map(|url| url.split_once("://"));
    let addresses: Vec<&str> = addresses
        .map(|(_, rest)| rest.trim_end_matches('/'))
        .collect();
    let news = News::open();
    let mut registry = Vec::new();
    loop {
        // This comes before names are resolved, which may take half a minute.
        show(primary(&registry), record);
        if registry.iter().copied().all(|to| source(to).is_none()) {
            registry = resolve(&addresses).await;
            show(primary(&registry), record);
        }
        let next = async {
            match &news {
                Ok(news) => news.next().await,
                Err(_) => sleep(AGAIN).await,
            }
        };
        if registry.is_empty() {
            let _ = timeout(AGAIN, next).await;
        } else {
            next.await;
        }
    }
}

/// Shows a new address. A machine that has lost its address keeps the last one.
fn show(address: Option<IpAddr>, record: &watch::Sender<MachineRecord>) {
    let Some(address) = address.map(|address| address.to_string()) else {
        return;
    };
    record.send_if_modified(|record| {
        let differs = record.primary_ip != address;
        if differs {
            tracing::info!("this machine is listed under the address {address}");
            record.primary_ip = address;
        }
        differs
    });
}

/// Returns the addresses of these names. tokio resolves them on a thread of its own.
async fn resolve(addresses: &[&str]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for address in addresses {
        match lookup_host(*address).await {
            Ok(resolved) => found.extend(resolved),
            Err(error) => tracing::debug!("{address} does not resolve: {error}"),
        }
    }
    found
}

/// Returns the source address of packets to the registry, else that of the default route.
fn primary(registry: &[SocketAddr]) -> Option<IpAddr> {
    let anywhere = ANYWHERE.parse().ok();
    registry.iter().copied().chain(anywhere).find_map(source)
}

/// Returns the source address of packets to `to`. Connecting a datagram socket reads the routes and
/// sends nothing.
fn source(to: SocketAddr) -> Option<IpAddr> {
    let from: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// Notices that addresses or routes changed. Their content is ignored, because the routes are read
/// again.
struct News(AsyncFd<OwnedFd>);

impl News {
    fn open() -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let family = AddressFamily::NETLINK;
        let socket = socket_with(family, SocketType::RAW, flags, NETLINK_ROUTE)?;
        bind(&socket, &SocketAddrNetlink::new(0, NEWS))?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, and an OwnedFd stays open"
        )]
        AsyncFd::with_interest(socket, Interest::READABLE).map(Self)
    }

    /// Waits for a notice, and reads all that follow it.
    async fn next(&self) {
        let Ok(mut ready) = self.0.readable().await else {
            return sleep(AGAIN).await;
        };
        sleep(SETTLING).await;
        let mut unread = [0; 4096];
        // Notices that did not fit into the socket count as notices too.
        while matches!(
            recv(self.0.get_ref(), &mut unread[..], RecvFlags::empty()),
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR)
        ) {}
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_that_do_not_resolve_are_left_out() {
        let found = resolve(&["127.0.0.1:2379", "no.such.name.invalid:2379"]).await;
        assert_eq!(found, ["127.0.0.1:2379".parse().expect("an address")]);
    }

    #[test]
    fn loopback_address_is_never_listed() {
        assert_eq!(source("127.0.0.1:2379".parse().expect("an address")), None);
    }
}
