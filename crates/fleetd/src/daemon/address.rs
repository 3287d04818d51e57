//! The address that a machine is listed under. Boot never waits for it: it is found later, and
//! followed when it changes.

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

/// The kernel's groups of news on addresses and routes, IPv4 and IPv6 (linux/rtnetlink.h):
/// `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`.
const NEWS: u32 = 0x10 | 0x40 | 0x100 | 0x400;

/// A change of the network is several pieces of news: they are taken together.
const SETTLING: Duration = Duration::from_millis(500);

/// How long names that do not resolve are left alone; also the pause between looks if the kernel
/// reports no changes.
const AGAIN: Duration = Duration::from_secs(10);

/// Keeps the address of the record true. `endpoints`: of the registry, as URLs.
pub(super) async fn follow(endpoints: &[String], record: &watch::Sender<MachineRecord>) {
    let addresses = endpoints.iter().filter_map(|url| url.split_once("://"));
    let addresses: Vec<&str> = addresses
        .map(|(_, rest)| rest.trim_end_matches('/'))
        .collect();
    let news = News::open();
    let mut registry = Vec::new();
    loop {
        // Before names are resolved, which may take half a minute.
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

/// A machine that has lost its address is listed under the last that it had.
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

/// The addresses behind these names. tokio asks the resolver on a thread of its own.
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

/// The address that this machine reaches the registry from, else that of its default route.
fn primary(registry: &[SocketAddr]) -> Option<IpAddr> {
    let anywhere = ANYWHERE.parse().ok();
    registry.iter().copied().chain(anywhere).find_map(source)
}

/// The address that packets to `to` leave from. Connecting a datagram socket asks the routes and
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

/// Reports when addresses or routes change. The change itself is not read: the routes are read
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

    /// Waits for news and for their end.
    async fn next(&self) {
        let Ok(mut ready) = self.0.readable().await else {
            return sleep(AGAIN).await;
        };
        sleep(SETTLING).await;
        let mut unread = [0; 4096];
        // News that did not fit into the socket are news, too.
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
    fn loopback_is_no_address_to_be_listed_under() {
        assert_eq!(source("127.0.0.1:2379".parse().expect("an address")), None);
    }
}
