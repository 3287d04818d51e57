//! The pod of a DaemonSet.

use super::container::{self, Shared};
use super::env::Known;
use super::fields::{Fate, Fields, Rule};
use super::manifest::{Container, Places, Pod};
use super::quote::Text;
use super::remark::Remarks;
use super::security::Security;
use super::volume::volumes;

const SPEC: &[Rule] = &[
    (
        "serviceAccountName",
        Fate::Noted,
        "there are no accounts and no API to call; a container that needs them will not work",
    ),
    (
        "serviceAccount",
        Fate::Noted,
        "there are no accounts and no API to call; a container that needs them will not work",
    ),
    (
        "automountServiceAccountToken",
        Fate::Noted,
        "there are no tokens",
    ),
    (
        "priorityClassName",
        Fate::Noted,
        "nothing evicts units; MemoryLow= and OOMScoreAdjust= protect one",
    ),
    ("priority", Fate::Noted, "nothing evicts units"),
    ("preemptionPolicy", Fate::Noted, "nothing evicts units"),
    (
        "dnsPolicy",
        Fate::Noted,
        "there is no DNS of a cluster; containers use the machine's",
    ),
    (
        "enableServiceLinks",
        Fate::Noted,
        "there are no Services to link",
    ),
    (
        "schedulerName",
        Fate::Noted,
        "a unit runs on every machine that matches",
    ),
    ("os", Fate::Noted, "every machine runs Linux"),
    (
        "imagePullSecrets",
        Fate::Refused,
        "log in on the machines: podman reads /etc/containers/auth.json, or REGISTRY_AUTH_FILE in the unit",
    ),
    (
        "shareProcessNamespace",
        Fate::Refused,
        "every container is a unit of its own",
    ),
    (
        "ephemeralContainers",
        Fate::Refused,
        "use podman exec on the machine",
    ),
    (
        "runtimeClassName",
        Fate::Refused,
        "set the runtime in the machines' containers.conf",
    ),
    (
        "topologySpreadConstraints",
        Fate::Refused,
        "a unit runs on every machine that matches",
    ),
    (
        "nodeName",
        Fate::Refused,
        "select machines with nodeSelector",
    ),
    (
        "activeDeadlineSeconds",
        Fate::Refused,
        "a unit runs until it is stopped",
    ),
    (
        "overhead",
        Fate::Refused,
        "write the resources of the containers",
    ),
    (
        "readinessGates",
        Fate::Refused,
        "nothing sets conditions here",
    ),
    (
        "schedulingGates",
        Fate::Refused,
        "hold an update back with UpdateStrategy=manual",
    ),
    ("subdomain", Fate::Refused, "there is no DNS of a cluster"),
    (
        "setHostnameAsFQDN",
        Fate::Refused,
        "write the whole name as hostname",
    ),
    (
        "hostUsers",
        Fate::Noted,
        "containers run with the machine's users",
    ),
    (
        "resourceClaims",
        Fate::Refused,
        "there are no resource claims here",
    ),
    (
        "resources",
        Fate::Refused,
        "write the resources of the containers",
    ),
];

const METADATA: &[Rule] = &[
    ("name", Fate::Noted, "the unit is named after the DaemonSet"),
    (
        "generateName",
        Fate::Noted,
        "the unit is named after the DaemonSet",
    ),
    (
        "namespace",
        Fate::Noted,
        "there are no namespaces; all units share one list of names",
    ),
    (
        "annotations",
        Fate::Noted,
        "annotations are not kept; nothing here reads them",
    ),
    (
        "creationTimestamp",
        Fate::Noted,
        "Kubernetes wrote it for itself",
    ),
    ("finalizers", Fate::Noted, "nothing here reads them"),
];

/// Reads the labels of a pod template.
pub(super) fn labels(template: &mut Fields<'_>, remarks: &mut Remarks) -> Vec<(String, String)> {
    let Some(mut metadata) = template.map("metadata", remarks) else {
        return Vec::new();
    };
    let labels = metadata.take("labels").map(|it| it.pairs(remarks));
    metadata.finish(METADATA, remarks);
    let labels = labels.unwrap_or_default().into_iter();
    labels.map(|(key, _, value)| (key, value)).collect()
}

/// Reads a pod's spec, without what selects machines.
pub(super) fn read(
    mut spec: Fields<'_>,
    labels: Vec<(String, String)>,
    namespace: &str,
    remarks: &mut Remarks,
) -> Pod {
    let mut options = Vec::new();
    let host_network = spec.flag("hostNetwork", remarks);
    for (key, option) in [("hostPID", "--pid=host"), ("hostIPC", "--ipc=host")] {
        if spec.flag(key, remarks) {
            options.push(Text::plain(option));
        }
    }
    let network = network(&mut spec, host_network, remarks);
    let mut places = Places::default();
    let volumes = volumes(&mut spec, &mut places.volumes, remarks);
    let security = Security::of_pod(&mut spec, remarks);
    let grace = spec.number("terminationGracePeriodSeconds", remarks);
    if let Some(policy) = spec.take("restartPolicy")
        && policy.text(remarks).is_some_and(|text| text != "Always")
    {
        policy.refuse(remarks, "a DaemonSet restarts its containers Always");
    }
    let shared = Shared {
        known: Known {
            namespace,
            labels: &labels,
        },
        volumes: &volumes,
        security: &security,
        host_network,
    };
    let key = spec.left().iter().find(|entry| entry.key == "containers");
    places.containers = key.map(|entry| entry.at).unwrap_or(spec.at);
    let mut containers = |key, init, remarks: &mut Remarks| -> Vec<Container> {
        let items = spec.list(key, remarks).into_iter();
        items
            .filter_map(|item| container::read(&item, &shared, init, remarks))
            .collect()
    };
    let init = containers("initContainers", true, remarks);
    let containers = containers("containers", false, remarks);
    let (at, path) = (spec.at, spec.below("containers"));
    spec.finish(SPEC, remarks);
    if containers.is_empty() && !remarks.refused() {
        remarks.refuse(at, &path, "a DaemonSet needs a container");
    }
    let mut names: Vec<&str> = init
        .iter()
        .chain(&containers)
        .map(|it| it.name.as_str())
        .collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        remarks.refuse(
            at,
            &path,
            format!("two containers have the name {}", pair[0]),
        );
    }
    Pod {
        host_network,
        grace: grace.unwrap_or(30),
        options,
        network,
        volumes: volumes.clone(),
        places,
        init,
        containers,
        labels,
    }
}

/// Reads names and addresses that the containers see.
fn network(spec: &mut Fields<'_>, host_network: bool, remarks: &mut Remarks) -> Vec<Text> {
    let mut options = Vec::new();
    if host_network {
        options.push(Text::plain("--network=host"));
    }
    if let Some(field) = spec.take("hostname")
        && let Some(text) = field.text(remarks)
    {
        match host_network {
            true => field.refuse(
                remarks,
                "with hostNetwork a container has the machine's name",
            ),
            false => options.push(Text::plain(format!("--hostname={text}"))),
        }
    }
    for alias in spec.list("hostAliases", remarks) {
        let Some(mut fields) = alias.fields(remarks) else {
            continue;
        };
        let ip = fields.text("ip", remarks);
        let names = fields.take("hostnames").map(|it| it.texts(remarks));
        fields.finish(&[], remarks);
        match (ip, names) {
            (Some(ip), Some(names)) => {
                let option = |name: &String| Text::plain(format!("--add-host={name}:{ip}"));
                options.extend(names.iter().map(option));
            }
            _ => alias.refuse(remarks, "an alias needs an ip and hostnames"),
        }
    }
    if let Some(mut dns) = spec.map("dnsConfig", remarks) {
        for (key, option) in [("nameservers", "--dns="), ("searches", "--dns-search=")] {
            for item in dns.list(key, remarks) {
                if let Some(text) = item.text(remarks) {
                    options.push(Text::plain(format!("{option}{text}")));
                }
            }
        }
        for item in dns.list("options", remarks) {
            let Some(mut fields) = item.fields(remarks) else {
                continue;
            };
            let name = fields.text("name", remarks);
            let value = fields.text("value", remarks);
            fields.finish(&[], remarks);
            match (name, value) {
                (Some(name), Some(value)) => {
                    options.push(Text::plain(format!("--dns-option={name}:{value}")));
                }
                (Some(name), None) => options.push(Text::plain(format!("--dns-option={name}"))),
                (None, _) => item.refuse(remarks, "an option needs a name"),
            }
        }
        dns.finish(&[], remarks);
    }
    options
}
