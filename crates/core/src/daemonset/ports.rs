//! Ports of the machine that units publish with `podman run --publish=`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::unit::Parsed;

/// A port of the machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct HostPort {
    port: u16,
    protocol: String,
    /// `None` for every address.
    ip: Option<IpAddr>,
}

impl HostPort {
    fn meets(&self, other: &Self) -> bool {
        let same_ip = match (&self.ip, &other.ip) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.port == other.port && self.protocol == other.protocol && same_ip
    }
}

/// Returns the port that two units both want on machines where both may run, as `8000/tcp`.
///
/// The unit that starts second there fails, as a pod would stay pending.
pub fn port_clash(one: &Parsed, other: &Parsed) -> Option<String> {
    let apart = |one: &Parsed, other: &Parsed| {
        let pattern = one.options.conflicting_pattern(other.name.as_str());
        pattern.is_some()
    };
    if apart(one, other) || apart(other, one) || !overlap(one, other) {
        return None;
    }
    let theirs = published(other);
    let ports = published(one);
    let port = ports
        .iter()
        .find(|port| theirs.iter().any(|it| it.meets(port)))?;
    Some(format!("{}/{}", port.port, port.protocol))
}

/// Returns whether a machine can have the metadata that both need.
fn overlap(one: &Parsed, other: &Parsed) -> bool {
    let theirs = &other.options.machine_metadata;
    one.options.machine_metadata.iter().all(|(key, values)| {
        theirs
            .get(key)
            .is_none_or(|accepted| !values.is_disjoint(accepted))
    })
}

fn published(unit: &Parsed) -> BTreeSet<HostPort> {
    let assignments = unit.file.assignments().iter();
    let starts = assignments.filter(|it| it.section == "Service" && it.key == "ExecStart");
    let words = starts.flat_map(|it| it.value.split_ascii_whitespace());
    let options = words.filter_map(|word| word.trim_matches('"').strip_prefix("--publish="));
    options.filter_map(host_port).collect()
}

/// Reads `[IP:]HOST:CONTAINER[/PROTOCOL]`.
fn host_port(option: &str) -> Option<HostPort> {
    let (ports, protocol) = option.split_once('/').unwrap_or((option, "tcp"));
    let (outside, _inside) = ports.rsplit_once(':')?;
    let (ip, port) = match outside.rsplit_once(':') {
        Some((ip, port)) => (ip.trim_matches(['[', ']']).parse().ok(), port),
        None => (None, outside),
    };
    Some(HostPort {
        port: port.parse().ok()?,
        protocol: protocol.to_owned(),
        ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::{Content, UnitName};

    fn unit(name: &str, publish: &str, fleet: &str) -> Parsed {
        let text = format!(
            "[Service]\nExecStart=/usr/bin/podman run {publish} x\n[X-Fleet]\nGlobal=true\n{fleet}"
        );
        let name = UnitName::parse(name).expect("valid");
        Parsed::parse(name, &Content::from(text.as_str()))
    }

    #[test]
    fn ports_clash_only_where_both_units_may_run() {
        for (publish, fleet, clash) in [
            ("--publish=8000:80", "", true),
            ("--publish=80:8000", "", false),
            ("--publish=8000:80/udp", "", false),
            ("--publish=127.0.0.1:8000:80", "", true),
            ("\"--publish=[::1]:8000:80\"", "", true),
            ("--publish=8000:80", "MachineMetadata=app=b", true),
            ("--publish=8000:80", "MachineMetadata=rack=2", false),
            ("--publish=8000:80", "Conflicts=app-*", false),
            ("", "", false),
        ] {
            let one = unit(
                "app-a.service",
                "--publish=8000:80",
                "MachineMetadata=rack=1",
            );
            let other = unit("b.service", publish, fleet);
            let found = port_clash(&one, &other);
            assert_eq!(
                found.as_deref(),
                clash.then_some("8000/tcp"),
                "{publish} {fleet}"
            );
            assert_eq!(found, port_clash(&other, &one));
        }
        let one = unit("a.service", "--publish=10.0.0.1:80:80", "");
        let other = unit("b.service", "--publish=10.0.0.2:80:80", "");
        assert_eq!(port_clash(&one, &other), None);
    }
}
