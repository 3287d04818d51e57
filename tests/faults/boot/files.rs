//! Files that cannot be read or written at boot.

use anyhow::ensure;
use lab::{Host, Lab};

use super::{comes_back, prepare, status_line};
use crate::support::looking::told;
use crate::support::workload::fleet_journal;

#[test]
fn missing_etcd_certificates_keep_no_unit_down() {
    Lab::builder().etcd(1).test(|lab| {
        let host = prepare(lab)?;
        for (lines, named) in [
            (
                "etcd_servers=https://10.99.0.1:2379\netcd_cafile=/etc/ssl/private/late.pem\n",
                "etcd_cafile",
            ),
            (
                "etcd_servers=https://10.99.0.1:2379\netcd_certfile=/no.pem\netcd_keyfile=/no.key\n",
                "etcd_keyfile",
            ),
            // There is no authority of its own, and this host has none of the system.
            ("etcd_servers=https://10.99.0.1:2379\n", "etcd_cafile"),
        ] {
            host.write_file("/etc/fleet/fleet.conf", lines)?;
            comes_back(lab, host)?;
            // It is the first of several problems, which are ordered by name.
            status_line(lab, host, "etcd_cafile", true)?;
            ensure!(fleet_journal(host)?.contains(named), "the journal does not name {named}");
            let checked = host.exec(&["fleetd", "--check-config"])?;
            ensure!(
                checked.code == 78 && checked.stdout.contains("# problem: ") && checked.stdout.contains(named),
                "{checked:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_state_directory_that_cannot_be_written_keeps_no_unit_down() {
    Lab::builder().etcd(1).test(|lab| {
        let host = prepare(lab)?;
        host.write_file(
            "/etc/systemd/system/var-lib-fleet.mount",
            "[Unit]\nDefaultDependencies=no\nBefore=local-fs.target\n[Mount]\nWhat=/var/lib/fleet\nWhere=/var/lib/fleet\n\
             Type=none\nOptions=bind,ro\n[Install]\nWantedBy=local-fs.target\n",
        )?;
        host.sh("systemctl enable --quiet var-lib-fleet.mount")?.ok()?;
        comes_back(lab, host)?;
        names_the_directory(lab, host)?;
        // An empty one, as on a host whose disk was never prepared.
        host.sh("systemctl disable --quiet var-lib-fleet.mount")?.ok()?;
        host.write_file(
            "/etc/systemd/system/var-lib.mount",
            "[Unit]\nDefaultDependencies=no\nBefore=local-fs.target\n[Mount]\nWhat=tmpfs\nWhere=/var/lib\n\
             Type=tmpfs\nOptions=ro\n[Install]\nWantedBy=local-fs.target\n",
        )?;
        host.sh("systemctl enable --quiet var-lib.mount")?.ok()?;
        // It starts from the registry, because there is no disk to start from.
        comes_back(lab, host)?;
        names_the_directory(lab, host)
    });
}

fn names_the_directory(lab: &Lab, host: &Host) -> anyhow::Result<()> {
    status_line(lab, host, "state_directory", true)?;
    told(lab, "state_directory", true)?;
    host.fleetctl(&["list-units"])?.ok().map(drop)
}
