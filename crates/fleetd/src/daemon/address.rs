//! The address that a machine is listed under.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use crate::config::Settings;

/// From TEST-NET-1 (RFC 5737): it is nobody's, so the route to it is the default route.
const ANYWHERE: &str = "192.0.2.1:9";

/// `public_ip`, else the address that this machine reaches the registry from, else that of its default route; empty
/// if there is none.
pub(super) fn primary(settings: &Settings) -> String {
    if let Some(configured) = settings.public_ip {
        return configured.to_string();
    }
    let registry = settings
        .etcd
        .endpoints
        .iter()
        .filter_map(|url| url.split_once("://"))
        .filter_map(|(_, rest)| rest.trim_end_matches('/').to_socket_addrs().ok())
        .flatten();
    let anywhere = ANYWHERE.parse().ok();
    registry
        .chain(anywhere)
        .find_map(source)
        .map(|address| address.to_string())
        .unwrap_or_default()
}

/// The address that packets to `to` leave from. Connecting a datagram socket asks the routes and sends nothing.
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
