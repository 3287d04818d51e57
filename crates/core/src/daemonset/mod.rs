//! DaemonSet manifests of Kubernetes as units that run `podman`.
//!
//! The registry and the machines only ever see the units. So a rollout, its health gate, limits and
//! a reboot without the registry work as for any unit, and the machines learn nothing new.
//!
//! ```text
//!   bytes --yaml--> Node --document, pod, container ...--> Manifest --unit--> unit files
//!                     \__________________ remarks ____________________/
//! ```
//!
//! **Invariant: nothing is dropped silently.** Every field becomes a part of a unit, or is noted,
//! or is refused with its line. `fields::Fields::finish` judges the fields that no code took.

mod container;
mod document;
mod env;
mod fields;
mod image;
mod manifest;
mod placement;
mod pod;
mod ports;
mod probe;
mod quantity;
mod quote;
mod remark;
mod security;
mod unit;
mod volume;
mod yaml;

pub use ports::port_clash;
pub use remark::{Kind, Place, Remark};
pub use yaml::MANIFEST_MAX;

use manifest::{Manifest, Volume};
use remark::Remarks;
use yaml::Node;

use crate::unit::{Content, Parsed, UnitName};

/// What a file became.
#[derive(Clone, Debug, Default)]
pub struct Conversion {
    /// The units; none if anything was refused.
    pub units: Vec<(UnitName, Content)>,
    /// The remarks, in the order of the file.
    pub remarks: Vec<Remark>,
}

impl Conversion {
    /// Whether a remark stopped the conversion.
    pub fn is_refused(&self) -> bool {
        self.remarks
            .iter()
            .any(|remark| remark.kind == Kind::Refused)
    }
}

/// Converts the DaemonSets of a file. `file`: its name, for the units' first line.
pub fn convert(bytes: &[u8], file: &str) -> Conversion {
    match yaml::documents(bytes) {
        Ok(documents) => units(&documents, file),
        Err(error) => {
            let mut remarks = Remarks::default();
            remarks.refuse(error.at, "", error.text);
            Conversion {
                units: Vec::new(),
                remarks: remarks.0,
            }
        }
    }
}

fn units(documents: &[Node], file: &str) -> Conversion {
    let mut remarks = Remarks::default();
    let mut units = Vec::new();
    let file = file.replace(char::is_control, " ");
    for node in documents {
        if let Some(manifest) = document::read(node, &mut remarks) {
            complete(&manifest, &mut remarks);
            take(&manifest, &file, &mut units, &mut remarks, node.at);
        }
    }
    if units.is_empty() && !remarks.refused() {
        let at = documents.first().map(|node| node.at);
        let at = at.unwrap_or(Place { line: 1, column: 1 });
        remarks.refuse(at, "", "there is no DaemonSet in this file");
    }
    if remarks.refused() {
        units.clear();
    }
    let mut remarks = remarks.0;
    remarks.sort_by_key(|remark| remark.at);
    Conversion { units, remarks }
}

/// Remarks on what follows from several fields together.
fn complete(manifest: &Manifest, remarks: &mut Remarks) {
    let path = "spec.template.spec";
    let pod = &manifest.pod;
    for (name, volume) in &pod.volumes {
        let at = pod.places.volumes[name];
        match (volume, unit::uses(manifest, name)) {
            (Volume::Memory(_), 2..) => {
                let text = format!(
                    "containers cannot share the memory of {name:?}; use a directory on disk"
                );
                remarks.refuse(at, &format!("{path}.volumes"), text);
            }
            (_, 0) => {
                let text = format!("no container mounts {name:?}");
                remarks.note(at, &format!("{path}.volumes"), text);
            }
            (Volume::Empty, _) => {
                let text =
                    format!("{name:?} is empty again after its containers restart; a pod keeps it");
                remarks.note(at, &format!("{path}.volumes"), text);
            }
            _ => {}
        }
    }
    if pod.containers.len() > 1 {
        let names: Vec<String> = pod
            .containers
            .iter()
            .map(|it| unit::stem(manifest, it))
            .collect();
        let text = format!(
            "the containers become units of their own, {}, each with updates of its own",
            names.join(", ")
        );
        remarks.note(pod.places.containers, &format!("{path}.containers"), text);
    }
}

fn take(
    manifest: &Manifest,
    file: &str,
    units: &mut Vec<(UnitName, Content)>,
    remarks: &mut Remarks,
    at: Place,
) {
    for written in unit::write(manifest, file) {
        let content = Content::from(written.text.as_str());
        let checked = UnitName::parse(&written.name).map_err(|error| error.to_string());
        let checked = checked.and_then(|name| {
            let parsed = Parsed::parse(name.clone(), &content);
            parsed.validate().map_err(|error| error.to_string())?;
            Ok(name)
        });
        match checked {
            Ok(name) if units.iter().any(|(other, _)| *other == name) => {
                remarks.refuse(at, "", format!("two documents become {name}"));
            }
            Ok(name) => units.push((name, content)),
            Err(error) => remarks.refuse(at, "", format!("{}: {error}", written.name)),
        }
    }
}

#[cfg(test)]
mod tests;
