//! Shows that changes by hand to unit files and their links are reported, and undone at once
//! without a restart.

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use super::{TRAIL, clean, install, start};
use crate::support::workload::{SOON, active, fleet_journal, works};

const FILE: &str = "/run/fleet/units/drifts.service";
const LINK: &str = "/run/systemd/system/drifts.service";

/// Returns everything on the host that a restart or reload of the unit would change.
fn trace(host: &Host) -> Result<String> {
    let show = "cat /srv/drifts.service; systemctl show -p ActiveState,MainPID,InvocationID,NRestarts drifts.service";
    host.sh(show)?.ok()
}

#[test]
fn files_and_links_changed_by_hand_are_restored_unrestarted() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        install(lab)?;
        let host = lab.host(1);
        start(
            host,
            "drifts.service",
            &format!("{TRAIL}[Install]\nWantedBy=multi-user.target\n"),
        )?;
        active(lab, "drifts.service", [host])?;
        let (file, before) = (host.read_file(FILE)?, trace(host)?);
        let reload = "systemctl daemon-reload";
        for (what, command, named) in [
            (
                "a changed file",
                format!("printf '[Service]\\nNice=1\\n' >> {FILE}"),
                "somebody changed its file",
            ),
            (
                "a changed file that systemd has read",
                format!("sed -i s/infinity/4711/ {FILE}; {reload}"),
                "somebody changed its file",
            ),
            (
                "an empty file",
                format!(": > {FILE}"),
                "somebody changed its file",
            ),
            (
                "another file in its place",
                format!(
                    "cp {FILE} /run/x; printf '[Service]\\nNice=1\\n' >> /run/x; mv /run/x {FILE}"
                ),
                "somebody changed its file",
            ),
            (
                "a removed file",
                format!("rm {FILE}"),
                "somebody removed its file",
            ),
            (
                "a removed file that systemd has missed",
                format!("rm {FILE}; {reload}"),
                "somebody removed its file",
            ),
            (
                // With `rm -r`, files would return before it ends.
                "a directory that was moved away",
                "mv /run/fleet/units /run/elsewhere".to_owned(),
                "somebody removed its file",
            ),
            (
                "a removed file after that",
                format!("rm {FILE}"),
                "somebody removed its file",
            ),
            (
                "a removed link",
                format!("rm {LINK}"),
                "somebody removed systemd's link",
            ),
            (
                "a removed link that systemd has missed",
                format!("rm {LINK}; {reload}"),
                "somebody removed systemd's link",
            ),
            (
                "disabled",
                "systemctl disable --runtime drifts.service".to_owned(),
                "somebody removed systemd's link",
            ),
        ] {
            let told = fleet_journal(host)?.matches(named).count();
            host.sh(&command)?.ok()?;
            lab.wait_until(SOON, &format!("{what} is named and put right"), || {
                let needs_reload = host.systemctl_show("drifts.service", "NeedDaemonReload")?;
                let command = host.systemctl_show("drifts.service", "ExecStart")?;
                let load = host.systemctl_show("drifts.service", "LoadState")?;
                let link = std::fs::read_link(host.path(LINK));
                ensure!(link.is_ok_and(|to| to.as_os_str() == FILE), "no link");
                ensure!(
                    load == "loaded" && needs_reload == "no",
                    "{load}, needs a reload: {needs_reload}"
                );
                ensure!(command.contains("infinity"), "{command}");
                Ok(host.read_file(FILE)? == file
                    && fleet_journal(host)?.matches(named).count() > told)
            })?;
            let now = trace(host)?;
            ensure!(now == before, "{what}:\n{before}\nis now\n{now}");
        }
        clean(lab, host)?;

        // A drop-in is an administrator's own addition. It stays, and takes effect at the next
        // start.
        host.write_file(
            "/etc/systemd/system/drifts.service.d/mine.conf",
            "[Service]\nEnvironment=MINE=1\n",
        )?;
        host.sh(reload)?.ok()?;
        works(lab, "after.service")?;
        ensure!(trace(host)? == before, "a drop-in touched the unit");
        ensure!(host.systemctl_show("drifts.service", "Environment")? == "MINE=1");
        clean(lab, host)
    });
}
