//! Where the API is served: on the sockets that systemd hands over, else on one of fleetd's own.

use std::fs;
use std::future::ready;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::serve::ListenerExt as _;
use futures_util::future::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use listenfd::ListenFd;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::sync::Semaphore;

use super::authorize::Caller;
use super::connections;
use super::peers::{self, Groups};
use super::tls::Tls;
use crate::config::Settings;

/// Root and the socket's group may use the API.
const MODE: u32 = 0o660;

/// How many connections are served at once over all unix sockets, and as many over all TCP sockets: together well below
/// the 1024 files that systemd lets a service open.
const CONNECTIONS: usize = 256;

/// For how long a TCP client may take nothing of what it is sent, in milliseconds.
const STALLED_MS: u32 = 10_000;

/// A socket that the API is served on.
pub(super) enum Listener {
    Unix(UnixListener),
    /// TCP for clients with a certificate.
    Tls(TcpListener, Arc<Tls>),
    /// Plain TCP, for anybody.
    Tcp(TcpListener),
    /// Plain TCP that nobody has allowed: every request is answered with the reason.
    Refused(TcpListener, String),
}

/// Takes the sockets that were handed over. Without any, makes `listen`.
pub(super) fn listen(settings: &Settings) -> Result<Vec<Listener>> {
    let mut handed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..handed.len() {
        if let Ok(Some(socket)) = handed.take_unix_listener(index) {
            listeners.push(Listener::Unix(socket));
        } else if let Ok(Some(socket)) = handed.take_tcp_listener(index) {
            listeners.push(over_tcp(socket, settings)?);
        } else {
            bail!("socket {index} that was handed over is no stream socket; see fleet.socket");
        }
    }
    if listeners.is_empty() {
        listeners.push(Listener::Unix(bind(
            &settings.listen,
            Groups::of(settings).rules().read.id,
        )?));
    }
    Ok(listeners)
}

/// How a TCP socket that was handed over is served.
fn over_tcp(socket: TcpListener, settings: &Settings) -> Result<Listener> {
    let address = socket
        .local_addr()
        .context("a socket that was handed over")?;
    if let Some(files) = &settings.api_tls {
        let tls = Tls::new(files.clone());
        // Units must not wait for a certificate: whoever connects meanwhile is not served.
        match tls.current() {
            Ok(_) => {
                tracing::info!("{address} is served to clients with a certificate of api_cafile")
            }
            Err(error) => {
                tracing::error!("{address} is served to nobody until this is put right: {error}")
            }
        }
        return Ok(Listener::Tls(socket, Arc::new(tls)));
    }
    if settings.insecure_tcp {
        tracing::warn!(
            "insecure_tcp=true: anybody who reaches {address} can run anything as root on every machine"
        );
        return Ok(Listener::Tcp(socket));
    }
    let why = format!(
        "fleetd does not serve the TCP socket {address} that systemd handed over: anybody who reaches it could \
         run anything as root on every machine; remove it from fleet.socket, or set api_cafile, api_certfile and \
         api_keyfile in fleet.conf to serve clients with a certificate (insecure_tcp=true serves anybody)"
    );
    tracing::error!("{why}");
    Ok(Listener::Refused(socket, why))
}

/// Opens a socket for root and, where fleetd may give it away, that group.
fn bind(path: &Path, group: Option<u32>) -> Result<UnixListener> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            bail!(
                "{shown} is in the way of the API's socket: remove it, or set listen in fleet.conf"
            )
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            bail!(
                "somebody serves {shown} already: another fleetd, or fleet.socket; stop it, or set listen in fleet.conf"
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
    // Bound without any permission, so that nobody gets in before the mode is right.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let socket = bound.with_context(|| format!("cannot listen on {shown}"))?;
    // Without CAP_CHOWN, or without root, the socket stays its maker's.
    let _ = lchown(path, None, group);
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))
        .with_context(|| format!("cannot set the mode of {shown}"))?;
    Ok(socket)
}

/// Serves the API on all of them.
pub(super) async fn serve(listeners: Vec<Listener>, router: Router, groups: Groups) -> Result<()> {
    // Whoever can connect over the network takes no place from root on this machine.
    let local = Arc::new(Semaphore::new(CONNECTIONS));
    let remote = Arc::new(Semaphore::new(CONNECTIONS));
    let mut serving = FuturesUnordered::new();
    for listener in listeners {
        let router = router.clone();
        serving.push(match listener {
            Listener::Unix(socket) => {
                socket.set_nonblocking(true)?;
                let socket = tokio::net::UnixListener::from_std(socket)?;
                let groups = groups.clone();
                let open = move |stream: tokio::net::UnixStream| {
                    // Now, while the process that connected is most likely there.
                    let caller = peers::peer(&stream).map_or_else(
                        || Caller::Refused("the kernel does not say who asks".to_owned()),
                        |peer| Caller::Local(groups.rules(), peer),
                    );
                    ready(Some((stream, caller)))
                };
                connections::serve(socket, open, router, local.clone()).boxed()
            }
            Listener::Tls(socket, tls) => {
                let open = move |stream| {
                    let tls = tls.clone();
                    async move { Some((tls.accept(stream).await?, Caller::Trusted)) }
                };
                connections::serve(tcp(socket)?, open, router, remote.clone()).boxed()
            }
            Listener::Tcp(socket) => {
                let open = |stream| ready(Some((stream, Caller::Trusted)));
                connections::serve(tcp(socket)?, open, router, remote.clone()).boxed()
            }
            Listener::Refused(socket, why) => {
                let open = move |stream| ready(Some((stream, Caller::Refused(why.clone()))));
                connections::serve(tcp(socket)?, open, router, remote.clone()).boxed()
            }
        });
    }
    match serving.next().await {
        Some(never) => match never {},
        None => bail!("there is no socket to serve the API on"),
    }
}

/// A TCP socket whose connections end when the other side takes nothing for a while. A unix socket needs no such bound:
/// who stalls there is root, or somebody that root lets in.
fn tcp(socket: TcpListener) -> io::Result<impl axum::serve::Listener<Io = tokio::net::TcpStream>> {
    socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    Ok(socket.tap_io(|stream| {
        if let Err(error) = set_tcp_user_timeout(stream, STALLED_MS) {
            tracing::debug!("a connection without a bound on stalls: {error}");
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(error.contains("somebody serves"), "{error}");
        drop(used);
        fs::remove_file(&path).expect("removes");
        fs::write(&path, "precious").expect("writes");
        let error = bind(&path, None).expect_err("a file").to_string();
        assert!(error.contains("in the way"), "{error}");
    }
}
