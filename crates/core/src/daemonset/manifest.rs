//! A DaemonSet as far as a unit can follow it.

use std::collections::{BTreeMap, BTreeSet};

use super::quote::Text;
use super::remark::Place;

/// A DaemonSet.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) placement: Placement,
    pub(super) policy: Policy,
    pub(super) pod: Pod,
}

/// Which machines run it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Placement {
    /// Metadata that a machine must have: every key, each with one of its values.
    pub(super) metadata: BTreeMap<String, BTreeSet<String>>,
    /// One of these, as systemd names them; empty if any will do.
    pub(super) architectures: BTreeSet<&'static str>,
}

/// How updates are rolled out.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) manual: bool,
    pub(super) max_unavailable: String,
    pub(super) min_ready: Option<u64>,
}

/// What the containers share.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) labels: Vec<(String, String)>,
    pub(super) host_network: bool,
    /// Seconds that a container may take to stop.
    pub(super) grace: u64,
    /// Options of `podman run` for every container.
    pub(super) options: Vec<Text>,
    /// Options of the network, for the first container, whose network the others join.
    pub(super) network: Vec<Text>,
    pub(super) volumes: BTreeMap<String, Volume>,
    /// Where the volumes and the containers are in the file.
    pub(super) places: Places,
    pub(super) init: Vec<Container>,
    pub(super) containers: Vec<Container>,
}

/// Places for remarks that concern several fields.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) volumes: BTreeMap<String, Place>,
    pub(super) containers: Place,
}

/// A volume that containers mount by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Volume {
    /// A path of the machine.
    Host { path: String, kind: HostPath },
    /// A directory that ends with the containers.
    Empty,
    /// The same in memory, of this size in bytes.
    Memory(Option<u64>),
    /// It was refused.
    Refused,
}

/// What a path of the machine must be before a container starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostPath {
    /// Anything; a directory is made if nothing is there.
    Any,
    /// A directory, which is made if nothing is there.
    DirectoryOrCreate,
    /// A file, which is made if nothing is there.
    FileOrCreate,
    /// A directory.
    Directory,
    /// A file, a socket or a device.
    Present,
}

/// One container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    /// When podman pulls the image.
    pub(super) pull: &'static str,
    /// The program; empty for that of the image.
    pub(super) command: Vec<Text>,
    pub(super) args: Vec<Text>,
    pub(super) env: Vec<(String, Text)>,
    /// Host ports, as `--publish=` takes them.
    pub(super) publish: Vec<String>,
    pub(super) mounts: Vec<Mount>,
    /// Options of `podman run` that follow from one field each.
    pub(super) options: Vec<Text>,
    /// Settings of the unit that limit its resources.
    pub(super) limits: Vec<String>,
    /// Checks that must succeed once before the unit is ready.
    pub(super) ready: Vec<Probe>,
    pub(super) post_start: Option<Vec<Text>>,
    pub(super) pre_stop: Option<PreStop>,
}

/// A volume in a container.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) volume: String,
    pub(super) path: String,
    pub(super) sub_path: Option<String>,
    pub(super) read_only: bool,
    pub(super) propagation: Option<&'static str>,
}

/// A command that is run in the container until it succeeds.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) command: Vec<Text>,
    pub(super) delay: u64,
    pub(super) period: u64,
}

/// What happens before a container is stopped.
#[derive(Debug)]
pub(super) enum PreStop {
    /// This runs in the container.
    Exec(Vec<Text>),
    /// So many seconds pass.
    Sleep(u64),
}
