//! A container of a pod.

use std::collections::BTreeMap;

use super::env::{self, Known};
use super::fields::{Fate, Field, Fields, Rule};
use super::image;
use super::manifest::{Container, Volume};
use super::probe;
use super::quantity;
use super::quote::Text;
use super::remark::Remarks;
use super::security::Security;
use super::volume::{is_name, mounts};

const CONTAINER: &[Rule] = &[
    (
        "terminationMessagePath",
        Fate::Noted,
        "the journal has the last words of a container",
    ),
    (
        "terminationMessagePolicy",
        Fate::Noted,
        "the journal has the last words of a container",
    ),
    (
        "resizePolicy",
        Fate::Noted,
        "a change of the unit restarts the container",
    ),
    ("stdin", Fate::Refused, "a unit has no standard input"),
    ("stdinOnce", Fate::Refused, "a unit has no standard input"),
    ("tty", Fate::Refused, "a unit has no terminal"),
    (
        "volumeDevices",
        Fate::Refused,
        "there are no claims here; use a hostPath volume of the device",
    ),
    (
        "restartPolicyRules",
        Fate::Refused,
        "systemd restarts a container whenever it ends",
    ),
];

const LIMITS: &[Rule] = &[(
    "ephemeral-storage",
    Fate::Noted,
    "the size of a container on disk is not limited",
)];

/// What the containers of a pod have in common.
pub(super) struct Shared<'p> {
    pub(super) known: Known<'p>,
    pub(super) volumes: &'p BTreeMap<String, Volume>,
    pub(super) security: &'p Security,
    pub(super) host_network: bool,
}

/// Reads a container. `init`: it runs before the others, to its end.
pub(super) fn read(
    item: &Field<'_>,
    pod: &Shared<'_>,
    init: bool,
    remarks: &mut Remarks,
) -> Option<Container> {
    let mut fields = item.fields(remarks)?;
    let name = fields.take("name");
    let image = fields.take("image");
    let mut container = Container {
        name: String::new(),
        image: String::new(),
        pull: "missing",
        command: Vec::new(),
        args: Vec::new(),
        env: env::read(&mut fields, &pod.known, remarks),
        publish: ports(&mut fields, pod.host_network, remarks),
        mounts: Vec::new(),
        options: Vec::new(),
        limits: Vec::new(),
        ready: Vec::new(),
        post_start: None,
        pre_stop: None,
    };
    let words = |field: Option<Field<'_>>, remarks: &mut Remarks| -> Vec<Text> {
        let texts = field.map(|field| field.texts(remarks)).unwrap_or_default();
        texts
            .iter()
            .map(|text| env::expand(text, &container.env))
            .collect()
    };
    let command = words(fields.take("command"), remarks);
    let args = words(fields.take("args"), remarks);
    (container.command, container.args) = (command, args);
    if let Some(field) = fields.take("workingDir")
        && let Some(text) = field.text(remarks)
    {
        match text.starts_with('/') {
            true => container
                .options
                .push(Text::plain(format!("--workdir={text}"))),
            false => field.refuse(remarks, "write an absolute path"),
        }
    }
    let (privileged, options) = pod.security.of_container(&mut fields, remarks);
    container.options.extend(options);
    container.mounts = mounts(&mut fields, pod.volumes, privileged, remarks);
    container.limits = resources(&mut fields, init, remarks);
    if init {
        for key in [
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ] {
            if let Some(field) = fields.take(key) {
                field.refuse(
                    remarks,
                    "an init container runs to its end, without probes and hooks",
                );
            }
        }
    } else {
        probe::read(&mut fields, &mut container, remarks);
    }
    if let Some(field) = fields.take("restartPolicy") {
        field.refuse(
            remarks,
            "write a container that keeps running under containers; every container is a unit of its own",
        );
    }
    let policy = fields.take("imagePullPolicy");
    fields.finish(CONTAINER, remarks);

    container.name = named(item, name, remarks)?;
    let Some(image) = image else {
        item.refuse(remarks, "a container needs an image");
        return None;
    };
    let text = image.text(remarks)?;
    let completed = match image::complete(&text) {
        Ok(completed) => completed,
        Err(why) => {
            image.refuse(remarks, why);
            return None;
        }
    };
    if let Some(why) = image::of_kubernetes(&completed.name) {
        image.refuse(remarks, why);
    }
    container.pull = pull(policy, remarks);
    if completed.floats {
        image.note(
            remarks,
            format!(
                "{} may be another image tomorrow, so a rollback may not bring this one back; name a version or a digest",
                completed.name
            ),
        );
    }
    container.image = completed.name;
    Some(container)
}

fn named(item: &Field<'_>, name: Option<Field<'_>>, remarks: &mut Remarks) -> Option<String> {
    let Some(name) = name else {
        item.refuse(remarks, "a container needs a name");
        return None;
    };
    let text = name.text(remarks)?;
    if !is_name(&text) {
        name.refuse(remarks, "write small letters, digits and -, at most 63");
        return None;
    }
    Some(text)
}

fn pull(policy: Option<Field<'_>>, remarks: &mut Remarks) -> &'static str {
    let Some(policy) = policy else {
        return "missing";
    };
    match policy.text(remarks).as_deref() {
        Some("IfNotPresent") => "missing",
        Some("Never") => "never",
        Some("Always") => {
            policy.note(
                remarks,
                "podman pulls a newer image if it can, and starts the one it has if the registry is unreachable",
            );
            "newer"
        }
        Some(_) => {
            policy.refuse(remarks, "write Always, IfNotPresent or Never");
            "missing"
        }
        None => "missing",
    }
}

/// Reads ports. Only those that the machine gives away become options.
fn ports(container: &mut Fields<'_>, host_network: bool, remarks: &mut Remarks) -> Vec<String> {
    let mut publish = Vec::new();
    for item in container.list("ports", remarks) {
        let Some(mut fields) = item.fields(remarks) else {
            continue;
        };
        fields.text("name", remarks);
        let inside = port(fields.take("containerPort"), remarks);
        let outside_field = fields.take("hostPort");
        let outside = port(outside_field.clone(), remarks);
        let address = fields.take("hostIP");
        let protocol = fields.take("protocol");
        fields.finish(&[], remarks);
        let Some(inside) = inside else {
            item.refuse(remarks, "a port needs a containerPort");
            continue;
        };
        let word = protocol.as_ref().and_then(|it| it.text(remarks));
        let suffix = match (word.as_deref(), protocol) {
            (None | Some("TCP"), _) => "",
            (Some("UDP"), _) => "/udp",
            (Some("SCTP"), _) => "/sctp",
            (Some(_), Some(field)) => {
                field.refuse(remarks, "write TCP, UDP or SCTP");
                continue;
            }
            (Some(_), None) => continue,
        };
        let Some((outside, field)) = outside.zip(outside_field) else {
            if !host_network {
                item.note(
                    remarks,
                    "the port is reached in the container only; write a hostPort to publish it",
                );
            }
            continue;
        };
        if host_network {
            if outside != inside {
                field.refuse(remarks, "with hostNetwork it must equal containerPort");
            }
            continue;
        }
        let ip = address
            .as_ref()
            .and_then(|it| Some((it, it.text(remarks)?)));
        let ip = match ip {
            None => String::new(),
            Some((field, text)) => match text.parse::<std::net::IpAddr>() {
                Ok(std::net::IpAddr::V4(ip)) => format!("{ip}:"),
                Ok(std::net::IpAddr::V6(ip)) => format!("[{ip}]:"),
                Err(_) => {
                    field.refuse(remarks, "write an address of the machine");
                    continue;
                }
            },
        };
        publish.push(format!("{ip}{outside}:{inside}{suffix}"));
    }
    publish
}

fn port(field: Option<Field<'_>>, remarks: &mut Remarks) -> Option<u64> {
    let field = field?;
    let number = field.number(remarks)?;
    if !(1..=65535).contains(&number) {
        field.refuse(remarks, "write a port from 1 to 65535");
    }
    Some(number)
}

/// Reads requests and limits, which the unit's own cgroup enforces.
fn resources(container: &mut Fields<'_>, init: bool, remarks: &mut Remarks) -> Vec<String> {
    let mut settings = Vec::new();
    let Some(field) = container.take("resources") else {
        return settings;
    };
    let Some(mut fields) = field.fields(remarks) else {
        return settings;
    };
    if let Some(mut requests) = fields.map("requests", remarks) {
        if let Some(milli) = millicores(requests.take("cpu"), remarks) {
            settings.push(format!("CPUWeight={}", weight(milli)));
        }
        if let Some(bytes) = bytes(requests.take("memory"), remarks) {
            settings.push(format!("MemoryLow={bytes}"));
        }
        unlimited(requests, remarks);
    }
    if let Some(mut limits) = fields.map("limits", remarks) {
        if let Some(milli) = millicores(limits.take("cpu"), remarks) {
            let tenths = match milli % 10 {
                0 => String::new(),
                tenths => format!(".{tenths}"),
            };
            settings.push(format!("CPUQuota={}{tenths}%", milli / 10));
        }
        if let Some(bytes) = bytes(limits.take("memory"), remarks) {
            settings.push(format!("MemoryMax={bytes}"));
            settings.push("MemorySwapMax=0".to_owned());
        }
        unlimited(limits, remarks);
    }
    let claims = [("claims", Fate::Refused, "there are no resource claims here")];
    fields.finish(&claims, remarks);
    if init && !settings.is_empty() {
        field.note(
            remarks,
            "an init container runs with the resources of the unit",
        );
        settings.clear();
    }
    settings
}

/// Judges resources that no setting of a unit limits.
fn unlimited(resources: Fields<'_>, remarks: &mut Remarks) {
    for entry in resources.left() {
        let path = resources.below(&entry.key);
        if entry.key.starts_with("hugepages-") || entry.key.contains('/') {
            let text =
                "a unit cannot reserve this; a container gets devices with podman's --device";
            remarks.refuse(entry.at, &path, text);
        }
    }
    let judged: Vec<_> = resources
        .left()
        .iter()
        .map(|entry| entry.key.clone())
        .collect();
    if !judged
        .iter()
        .any(|key| key.starts_with("hugepages-") || key.contains('/'))
    {
        resources.finish(LIMITS, remarks);
    }
}

fn millicores(field: Option<Field<'_>>, remarks: &mut Remarks) -> Option<u64> {
    let field = field?;
    let amount = quantity::millicores(&field.amount(remarks)?).filter(|amount| *amount > 0);
    if amount.is_none() {
        field.refuse(remarks, "write an amount above 0, such as 100m or 0.5");
    }
    amount
}

fn bytes(field: Option<Field<'_>>, remarks: &mut Remarks) -> Option<u64> {
    let field = field?;
    let amount = quantity::bytes(&field.amount(remarks)?).filter(|amount| *amount > 0);
    if amount.is_none() {
        field.refuse(remarks, "write an amount above 0, such as 64Mi");
    }
    amount
}

/// The weight that Kubernetes gives a request, from the shares of cgroup v1.
fn weight(milli: u64) -> u64 {
    let shares = (milli.saturating_mul(1024) / 1000).clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}
