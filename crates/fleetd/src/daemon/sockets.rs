//! Serves the API on the sockets that systemd hands over. If fleet.socket failed, fleetd opens its
//! addresses itself, as soon as each can be opened. An address that is missing or taken at boot
//! stops no unit.

use std::convert::Infallible;
use std::fs;
use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use listenfd::ListenFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::sync::{mpsc, watch};

use super::authorize::Caller;
use super::connections::{self, BUSY, Served};
use super::peers::{self, Groups};
use super::problems::Problems;
use super::shares::{Client, Places};
use super::tls::Tls;
use crate::backoff::Backoff;
use crate::config::Settings;
use crate::systemd::dbus::Dbus;

/// The unit whose addresses fleetd opens if systemd did not.
const FLEET_SOCKET: &str = "fleet.socket";

/// The mode of the socket: root and its group may use the API.
const MODE: u32 = 0o660;

/// The longest pause before an address that could not be opened is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A socket on which the API is served.
pub(super) enum Listener {
    Unix(UnixListener),
    /// TCP for clients with a certificate.
    Tls(TcpListener, Arc<Tls>),
    /// Plain TCP, for every client.
    Tcp(TcpListener),
    /// Plain TCP that fleet.conf does not allow. Every request is answered with the reason.
    Refused(TcpListener, String),
}

/// The address of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Address {
    /// Reads an entry of systemd's `Listen` property. `None` if it is not a stream socket, or an
    /// abstract one.
    fn of(kind: &str, text: &str) -> Option<Self> {
        match kind {
            "Stream" if text.starts_with('/') => Some(Self::Unix(text.into())),
            "Stream" => text.parse().ok().map(Self::Tcp),
            _ => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Unix(path) => path.display().to_string(),
            Self::Tcp(address) => address.to_string(),
        }
    }

    fn open(&self, settings: &Settings) -> Result<Listener> {
        match self {
            Self::Unix(path) => {
                let group = Groups::of(settings).rules().read.id;
                bind(path, group).map(Listener::Unix)
            }
            Self::Tcp(address) => Ok(over_tcp(TcpListener::bind(address)?, settings)),
        }
    }
}

/// Opens the API's sockets.
pub(super) struct Opener {
    settings: Settings,
    problems: Problems,
    /// The channel to the server.
    opened: mpsc::UnboundedSender<Listener>,
    /// The addresses that could not be opened yet.
    missing: Vec<Address>,
    /// Whether systemd must be asked for the addresses of fleet.socket.
    asks: bool,
}

impl Opener {
    /// Takes the sockets that were handed over. If there is none, it tries to open `listen`.
    pub(super) fn new(
        settings: &Settings,
        problems: &Problems,
    ) -> (Self, mpsc::UnboundedReceiver<Listener>) {
        let (opened, listeners) = mpsc::unbounded_channel();
        let mut opener = Self {
            settings: settings.clone(),
            problems: problems.clone(),
            opened,
            missing: Vec::new(),
            asks: false,
        };
        let mut handed = ListenFd::from_env();
        for index in 0..handed.len() {
            if let Ok(Some(socket)) = handed.take_unix_listener(index) {
                opener.serve(Listener::Unix(socket));
            } else if let Ok(Some(socket)) = handed.take_tcp_listener(index) {
                opener.serve(over_tcp(socket, settings));
            } else {
                let why = format!(
                    "socket {index} that systemd handed over is not a stream socket; write ListenStream="
                );
                problems.set(FLEET_SOCKET, Some(why));
            }
        }
        if handed.len() == 0 {
            opener.missing.push(Address::Unix(settings.listen.clone()));
            // A fleetd run by hand has no unit of its own.
            opener.asks = std::env::var_os("NOTIFY_SOCKET").is_some();
            opener.try_missing();
        }
        (opener, listeners)
    }

    /// Opens the missing addresses, repeatedly until none is missing.
    pub(super) async fn run(mut self, systemd: &Dbus) {
        let mut pause = Backoff::new("sockets").up_to(LONGEST_PAUSE);
        while self.asks || !self.missing.is_empty() {
            if self.asks {
                self.ask(systemd).await;
                self.try_missing();
            }
            tokio::time::sleep(pause.wait()).await;
            self.try_missing();
        }
    }

    /// Reads the addresses of fleet.socket.
    async fn ask(&mut self, systemd: &Dbus) {
        let listens = match systemd.listens(FLEET_SOCKET).await {
            Ok(listens) => listens,
            Err(error) => {
                tracing::debug!("systemd does not say where {FLEET_SOCKET} listens: {error}");
                return;
            }
        };
        self.asks = false;
        let own = Address::Unix(self.settings.listen.clone());
        for (kind, text) in listens {
            match Address::of(&kind, &text) {
                Some(address) if address == own => {}
                Some(address) => self.missing.push(address),
                None => self.problems.set(
                    FLEET_SOCKET,
                    Some(format!("{kind} {text} cannot be served; write ListenStream= with a path or an address")),
                ),
            }
        }
    }

    fn try_missing(&mut self) {
        for address in std::mem::take(&mut self.missing) {
            match address.open(&self.settings) {
                Ok(listener) => {
                    self.problems.set(&address.shown(), None);
                    tracing::info!("{} is open", address.shown());
                    self.serve(listener);
                }
                Err(error) => {
                    let why =
                        format!("the API is not served there, and fleetd tries again: {error:#}");
                    self.problems.set(&address.shown(), Some(why));
                    self.missing.push(address);
                }
            }
        }
    }

    fn serve(&self, listener: Listener) {
        // It fails only if the server has ended, and then fleetd ends too.
        let _ = self.opened.send(listener);
    }
}

/// Returns how to serve a TCP socket.
fn over_tcp(socket: TcpListener, settings: &Settings) -> Listener {
    let address = socket.local_addr().map(|address| address.to_string());
    let address = address.unwrap_or_else(|_| "of unknown address".to_owned());
    if let Some(files) = &settings.api_tls {
        let tls = Tls::new(files.clone());
        // Units must not wait for a certificate. Clients that connect meanwhile are not served.
        match tls.current() {
            Ok(_) => {
                tracing::info!("{address} is served to clients with a certificate of api_cafile")
            }
            Err(error) => {
                tracing::error!("{address} serves no clients until this is fixed: {error}")
            }
        }
        return Listener::Tls(socket, Arc::new(tls));
    }
    if settings.insecure_tcp {
        tracing::warn!(
            "insecure_tcp=true: anybody who reaches {address} can run anything as root on every machine"
        );
        return Listener::Tcp(socket);
    }
    let why = format!(
        "fleetd does not serve the TCP socket {address} that systemd handed over: anybody who reaches it could \
         run anything as root on every machine; remove it from fleet.socket, or set api_cafile, api_certfile and \
         api_keyfile in fleet.conf to serve clients with a certificate (insecure_tcp=true serves anybody)"
    );
    tracing::error!("{why}");
    Listener::Refused(socket, why)
}

/// Opens a socket for root and for that group, if fleetd may change its group.
fn bind(path: &Path, group: Option<u32>) -> Result<UnixListener> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            bail!(
                "{shown} is in the way of the API's socket: remove it, or set listen in fleet.conf"
            )
        }
        Ok(_) if is_served(path) => {
            bail!(
                "another process already serves {shown}: another fleetd, or fleet.socket; stop it, or set listen in fleet.conf"
            )
        }
        Ok(_) => fs::remove_file(path).with_context(|| format!("cannot replace {shown}"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot look at {shown}")),
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    // It is bound without any permission, so that no client connects before the mode is right.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let socket = bound.with_context(|| format!("cannot listen on {shown}"))?;
    // Without CAP_CHOWN, or without root, the socket keeps the owner that made it.
    let _ = lchown(path, None, group);
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))
        .with_context(|| format!("cannot set the mode of {shown}"))?;
    Ok(socket)
}

/// Returns whether a process listens there. A server with a full queue counts as listening, and
/// must not delay fleetd.
fn is_served(path: &Path) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let asked = SocketAddrUnix::new(path).and_then(|address| {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &address)
    });
    matches!(asked, Ok(()) | Err(Errno::AGAIN))
}

/// Serves the API on every socket that is opened.
pub(super) async fn serve(
    mut listeners: mpsc::UnboundedReceiver<Listener>,
    router: Router,
    groups: watch::Receiver<Groups>,
) -> Infallible {
    let places = Sides::default();
    let mut serving = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(listener) = listeners.recv() => match on(listener, &router, &groups, &places) {
                Ok(served) => serving.push(served),
                Err(error) => tracing::error!("a socket cannot be served: {error}"),
            },
            Some(never) = serving.next() => match never {},
            else => std::future::pending().await,
        }
    }
}

/// The two sides of the API. Network clients take no place from local clients, and refused clients
/// take none from served ones.
#[derive(Default)]
struct Sides {
    local: Places,
    remote: Places,
    refused: Places,
}

fn on(
    listener: Listener,
    router: &Router,
    groups: &watch::Receiver<Groups>,
    places: &Sides,
) -> io::Result<BoxFuture<'static, Infallible>> {
    let side = |places: &Places, busy| Side {
        router: router.clone(),
        places: places.clone(),
        busy,
    };
    Ok(match listener {
        Listener::Unix(socket) => {
            socket.set_nonblocking(true)?;
            let socket = tokio::net::UnixListener::from_std(socket)?;
            let groups = groups.clone();
            let open = move |stream: tokio::net::UnixStream| {
                // This must be done now, while the process that connected most likely exists.
                let caller = peers::peer(&stream).map_or_else(
                    || Caller::Refused("the kernel does not say who asks".to_owned()),
                    |peer| Caller::Local(groups.borrow().rules(), peer),
                );
                ready(Some((stream, caller)))
            };
            let whose = |stream: &tokio::net::UnixStream, _: &_| {
                let user = stream.peer_cred().map(|peer| Client::User(peer.uid()));
                user.unwrap_or(Client::Unknown)
            };
            let served = side(&places.local, BUSY).of(whose);
            connections::serve(socket, served, open).boxed()
        }
        Listener::Tls(socket, tls) => {
            let open = move |stream| {
                let tls = tls.clone();
                async move { Some((tls.accept(stream).await?, Caller::Trusted)) }
            };
            let served = side(&places.remote, &[]).of(host);
            connections::serve(tcp(socket)?, served, open).boxed()
        }
        Listener::Tcp(socket) => {
            let open = |stream| ready(Some((stream, Caller::Trusted)));
            let served = side(&places.remote, BUSY).of(host);
            connections::serve(tcp(socket)?, served, open).boxed()
        }
        Listener::Refused(socket, why) => {
            let open = move |stream| ready(Some((stream, Caller::Refused(why.clone()))));
            let served = side(&places.refused, BUSY).of(host);
            connections::serve(tcp(socket)?, served, open).boxed()
        }
    })
}

/// The state that the sockets of one side share.
struct Side {
    router: Router,
    places: Places,
    busy: &'static [u8],
}

impl Side {
    fn of<W>(self, whose: W) -> Served<W> {
        Served {
            router: self.router,
            places: self.places,
            whose,
            busy: self.busy,
        }
    }
}

fn host<S>(_: &S, address: &SocketAddr) -> Client {
    // An IPv6 socket shows IPv4 clients as IPv6 addresses.
    Client::Address(address.ip().to_canonical())
}

/// Returns a TCP socket of tokio, which must not block.
fn tcp(socket: TcpListener) -> io::Result<tokio::net::TcpListener> {
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_fleet_socket_are_read_as_systemd_writes_them() {
        let path = Some(Address::Unix("/run/fleet.sock".into()));
        assert_eq!(Address::of("Stream", "/run/fleet.sock"), path);
        for text in ["10.97.7.7:49153", "[::]:49153"] {
            let address = text.parse().expect("an address");
            assert_eq!(Address::of("Stream", text), Some(Address::Tcp(address)));
        }
        for (kind, text) in [
            ("Datagram", "10.97.7.7:49153"),
            ("Stream", "@abstract"),
            ("FIFO", "/x"),
        ] {
            assert_eq!(Address::of(kind, text), None, "{kind} {text}");
        }
    }

    #[test]
    fn the_socket_is_for_root_and_its_group_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/fleet.sock");
        let _socket = bind(&path, None).expect("binds");
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fleet.sock");
        drop(bind(&path, None).expect("binds"));
        let used = bind(&path, None).expect("replaces what was left behind");
        let error = bind(&path, None).expect_err("in use").to_string();
        assert!(error.contains("already serves"), "{error}");
        drop(used);
        fs::remove_file(&path).expect("removes");
        fs::write(&path, "precious").expect("writes");
        let error = bind(&path, None).expect_err("a file").to_string();
        assert!(error.contains("in the way"), "{error}");
    }
}
