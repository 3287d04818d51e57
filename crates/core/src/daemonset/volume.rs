//! Volumes of a pod, and where containers mount them.

use std::collections::BTreeMap;

use super::fields::{Fate, Fields, Rule};
use super::manifest::{HostPath, Mount, Volume};
use super::quantity;
use super::remark::{Place, Remarks};

pub(super) const NO_FILES: &str =
    "a unit has no files of its own yet; put the files on the machines and use a hostPath volume";

const SOURCES: &[Rule] = &[
    ("configMap", Fate::Refused, NO_FILES),
    ("secret", Fate::Refused, NO_FILES),
    (
        "projected",
        Fate::Refused,
        "there are no tokens and no API to call; put files on the machines and use a hostPath volume",
    ),
    (
        "downwardAPI",
        Fate::Refused,
        "write what the container needs in its env",
    ),
    (
        "persistentVolumeClaim",
        Fate::Refused,
        "there are no claims here; mount the storage on the machines and use a hostPath volume",
    ),
    (
        "ephemeral",
        Fate::Refused,
        "there are no claims here; use emptyDir or a hostPath volume",
    ),
    (
        "csi",
        Fate::Refused,
        "there are no CSI drivers here; mount the storage on the machines and use a hostPath volume",
    ),
    (
        "nfs",
        Fate::Refused,
        "mount it on the machines and use a hostPath volume",
    ),
    (
        "image",
        Fate::Refused,
        "an image cannot be mounted; put the files into the container's image",
    ),
];

/// Reads the volumes of a pod.
pub(super) fn volumes(
    pod: &mut Fields<'_>,
    places: &mut BTreeMap<String, Place>,
    remarks: &mut Remarks,
) -> BTreeMap<String, Volume> {
    let mut volumes = BTreeMap::new();
    for item in pod.list("volumes", remarks) {
        let Some(mut fields) = item.fields(remarks) else {
            continue;
        };
        let name = fields.text("name", remarks);
        let mut found = Vec::new();
        if let Some(host) = fields.map("hostPath", remarks) {
            found.push(host_path(host, remarks));
        }
        if let Some(empty) = fields.map("emptyDir", remarks) {
            found.push(empty_dir(empty, remarks));
        }
        let others = fields.left().len();
        fields.finish(SOURCES, remarks);
        let Some(name) = name.filter(|name| is_name(name)) else {
            item.refuse(
                remarks,
                "a volume needs a name, of small letters, digits and -",
            );
            continue;
        };
        let volume = match (found.pop(), found.pop(), others) {
            (Some(volume), None, 0) => volume,
            // Kubernetes takes a volume without a source for an emptyDir.
            (None, None, 0) => Volume::Empty,
            (None, ..) => {
                // Its source may be one that is refused, and empty.
                if !remarks.refused() {
                    item.refuse(remarks, "a volume needs a hostPath or an emptyDir");
                }
                Volume::Refused
            }
            _ => {
                item.refuse(remarks, "a volume has one source");
                Volume::Refused
            }
        };
        places.insert(name.clone(), item.at);
        if volumes.insert(name, volume).is_some() {
            item.refuse(remarks, "two volumes have this name");
        }
    }
    volumes
}

/// Whether a text can name a volume or a container.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= 63 && name.chars().all(allowed) && !name.starts_with('-')
}

fn host_path(mut fields: Fields<'_>, remarks: &mut Remarks) -> Volume {
    let path = fields.take("path");
    let kind = fields.take("type");
    let at = fields.at;
    let whole = fields.path.clone();
    fields.finish(&[], remarks);
    let Some(path) = path else {
        remarks.refuse(at, &whole, "a hostPath needs a path");
        return Volume::Refused;
    };
    let Some(text) = path.text(remarks) else {
        return Volume::Refused;
    };
    if !is_path(&text) {
        path.refuse(remarks, NO_PATH);
        return Volume::Refused;
    }
    let word = kind.as_ref().and_then(|kind| kind.text(remarks));
    let kind = match (word.as_deref(), kind) {
        (None | Some(""), _) => HostPath::Any,
        (Some("DirectoryOrCreate"), _) => HostPath::DirectoryOrCreate,
        (Some("FileOrCreate"), _) => HostPath::FileOrCreate,
        (Some("Directory"), _) => HostPath::Directory,
        (Some("File" | "Socket" | "CharDevice" | "BlockDevice"), _) => HostPath::Present,
        (Some(_), kind) => {
            if let Some(kind) = kind {
                let text = "write Directory, DirectoryOrCreate, File, FileOrCreate, Socket, CharDevice or BlockDevice";
                kind.refuse(remarks, text);
            }
            return Volume::Refused;
        }
    };
    Volume::Host { path: text, kind }
}

const NO_PATH: &str =
    "write an absolute path without .., colons, control characters, and blanks at its ends";

/// Whether podman and systemd read a path as it is. A colon separates the parts of `--volume=`.
fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains(':')
        && !path.contains(char::is_control)
        && path.trim() == path
        && !path.ends_with('\\')
        && !path.split('/').any(|part| part == "..")
}

fn empty_dir(mut fields: Fields<'_>, remarks: &mut Remarks) -> Volume {
    let medium = fields.take("medium");
    let limit = fields.take("sizeLimit");
    fields.finish(&[], remarks);
    let word = medium.as_ref().and_then(|medium| medium.text(remarks));
    let size = limit.as_ref().and_then(|limit| {
        let bytes = quantity::bytes(&limit.amount(remarks)?);
        if bytes.is_none() {
            limit.refuse(remarks, "write an amount such as 64Mi");
        }
        bytes
    });
    match (word.as_deref(), medium, limit) {
        (Some("Memory"), ..) => Volume::Memory(size),
        (None | Some(""), _, limit) => {
            if let Some(limit) = limit {
                limit.note(remarks, "the size of a directory on disk is not limited");
            }
            Volume::Empty
        }
        (Some(_), medium, _) => {
            if let Some(medium) = medium {
                medium.refuse(remarks, "write Memory, or leave it out");
            }
            Volume::Refused
        }
    }
}

const MOUNT: &[Rule] = &[
    (
        "subPathExpr",
        Fate::Refused,
        "variables in paths are not expanded; write a subPath",
    ),
    (
        "recursiveReadOnly",
        Fate::Refused,
        "podman makes the mount itself read-only; write readOnly",
    ),
];

/// Reads the mounts of a container.
pub(super) fn mounts(
    container: &mut Fields<'_>,
    volumes: &BTreeMap<String, Volume>,
    privileged: bool,
    remarks: &mut Remarks,
) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for item in container.list("volumeMounts", remarks) {
        let Some(mut fields) = item.fields(remarks) else {
            continue;
        };
        let name = fields.take("name");
        let path = fields.take("mountPath");
        let sub_path = fields.take("subPath");
        let read_only = fields.flag("readOnly", remarks);
        let propagation = fields.take("mountPropagation");
        fields.finish(MOUNT, remarks);
        let (Some(name), Some(path)) = (name, path) else {
            item.refuse(remarks, "a mount needs a name and a mountPath");
            continue;
        };
        let (Some(volume), Some(text)) = (name.text(remarks), path.text(remarks)) else {
            continue;
        };
        let Some(source) = volumes.get(&volume) else {
            name.refuse(remarks, format!("there is no volume {volume:?}"));
            continue;
        };
        if !is_path(&text) {
            path.refuse(remarks, NO_PATH);
            continue;
        }
        let below = sub_path.as_ref().and_then(|field| field.text(remarks));
        let below = below.filter(|below| !below.is_empty());
        if let (Some(field), Some(below)) = (&sub_path, &below) {
            match source {
                Volume::Host { .. } if is_path(&format!("/{below}")) && !below.starts_with('/') => {
                }
                Volume::Host { .. } => field.refuse(remarks, "write a path below the volume"),
                Volume::Refused => {}
                Volume::Empty | Volume::Memory(_) => {
                    field.refuse(remarks, "only a part of a hostPath can be mounted");
                }
            }
        }
        let word = propagation.as_ref().and_then(|it| it.text(remarks));
        let propagates = match (word.as_deref(), &propagation) {
            (Some("HostToContainer"), _) => Some("rslave"),
            (Some("Bidirectional"), Some(field)) => {
                if !privileged {
                    field.refuse(
                        remarks,
                        "only a privileged container can pass mounts to the machine",
                    );
                }
                Some("rshared")
            }
            (None | Some("None"), _) => None,
            (Some(_), Some(field)) => {
                field.refuse(remarks, "write None, HostToContainer or Bidirectional");
                None
            }
            (Some(_), None) => None,
        };
        if let (Some(field), Some(_), false) = (
            &propagation,
            propagates,
            matches!(source, Volume::Host { .. }),
        ) {
            field.refuse(remarks, "only mounts below a hostPath can propagate");
        }
        mounts.push(Mount {
            volume,
            path: text,
            sub_path: below,
            read_only,
            propagation: propagates,
        });
    }
    mounts
}
