//! The lab's network: a bridge in a namespace of its own, and one namespace with a cable to it for
//! each host and etcd member.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The directory where `ip netns` keeps its named namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";

/// Returns the prefix of the names of all of a lab's namespaces.
pub(crate) fn prefix(id: &str) -> String {
    format!("fleet-{id}-")
}

/// Creates the bridge for the cables of a lab.
pub(crate) fn create_bridge(id: &str) -> Result<()> {
    let namespace = prefix(id) + "net";
    ip(None, &format!("netns add {namespace}"))?;
    ip(
        Some(&namespace),
        "link add bridge type bridge\nlink set bridge up",
    )
}

/// The cable between a host or etcd member and the bridge. It may be cut at any time.
#[derive(Debug)]
pub struct Link {
    bridge: String,
    port: String,
    namespace: String,
}

impl Link {
    /// Creates a namespace called `name` with one interface, `eth0`, which has `address` in a /16.
    pub(crate) fn create(id: &str, name: &str, address: &str) -> Result<Self> {
        let link = Self {
            bridge: prefix(id) + "net",
            port: name.into(),
            namespace: prefix(id) + name,
        };
        let (port, namespace) = (&link.port, &link.namespace);
        ip(None, &format!("netns add {namespace}"))?;
        ip(
            Some(&link.bridge),
            &format!(
                "link add {port} type veth peer name eth0 netns {namespace}\n\
                 link set {port} master bridge\n\
                 link set {port} up"
            ),
        )?;
        ip(
            Some(namespace),
            &format!("address add {address}/16 dev eth0\nlink set eth0 up\nlink set lo up"),
        )?;
        Ok(link)
    }

    /// Pulls the cable: nothing arrives and nothing leaves, and connections hang instead of
    /// breaking.
    pub fn cut(&self) -> Result<()> {
        ip(Some(&self.bridge), &format!("link set {} down", self.port))
    }

    /// Plugs it in again.
    pub fn restore(&self) -> Result<()> {
        ip(Some(&self.bridge), &format!("link set {} up", self.port))
    }

    /// Returns the file that names the namespace.
    pub fn path(&self) -> String {
        format!("{NAMESPACES}/{}", self.namespace)
    }

    /// Runs `act` on a thread inside the namespace. Sockets that it opens belong to this end of the
    /// cable.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        // setns changes only the calling thread, so a thread of its own is enough.
        let entered = || {
            let namespace = File::open(self.path())
                .with_context(|| format!("no namespace {}", self.namespace))?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            act()
        };
        thread::scope(|scope| scope.spawn(entered).join())
            .unwrap_or_else(|_| bail!("panicked in namespace {}", self.namespace))
    }
}

/// Runs lines of `ip`, in a namespace or in this one, with one process for all of them.
fn ip(namespace: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `ip` (package iproute2)")?;
    child
        .stdin
        .take()
        .context("`ip` has no standard input")?
        .write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "`ip {lines}` failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
