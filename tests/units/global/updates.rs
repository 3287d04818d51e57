//! Shows that an update reaches every host, and restarts a unit exactly when its process would
//! differ.

use anyhow::ensure;

use super::{
    SLEEPER, SOON, assert_files, await_on, destroy_all, fleetctl, main_pids, on_three_hosts, write,
};

const UNIT: &str = "web.service";

#[test]
fn an_update_restarts_what_it_changes_and_nothing_else() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        write(one, &[(UNIT, SLEEPER), ("bystander.service", SLEEPER)])?;
        fleetctl(one, "start --wait web bystander")?.ok()?;
        let (mut before, bystander) = (main_pids(lab, UNIT)?, main_pids(lab, "bystander.service")?);
        let mut placed = SLEEPER.to_owned();
        for (content, restarts) in [
            (SLEEPER.replace("infinity", "1000000"), true),
            (
                format!(
                    "# why a million: nobody knows\n{}",
                    SLEEPER.replace("infinity", "1000000")
                ),
                false,
            ),
            (
                format!(
                    "[Unit]\nDescription=patient\n{}[Install]\nWantedBy=multi-user.target\n",
                    SLEEPER.replace("infinity", "1000000")
                ),
                false,
            ),
            (
                format!(
                    "{SLEEPER}MachineMetadata=host=n1\nMachineMetadata=host=n2\nMachineMetadata=host=n3\n"
                ),
                true,
            ),
        ] {
            write(one, &[(UNIT, &content)])?;
            // Without --replace the registry's content stays.
            let warned = fleetctl(one, "start web")?;
            ensure!(
                warned.code == 0 && warned.stderr.contains("differ"),
                "{warned:?}"
            );
            fleetctl(one, "start --wait --replace web")?.ok()?;
            // systemd reads no comments. A unit whose file differs only in them keeps running.
            if !content.starts_with('#') {
                placed.clone_from(&content);
            }
            lab.wait_until(SOON, "the new file is everywhere, and read", || {
                assert_files(lab, UNIT, placed.as_bytes())?;
                let stale = lab
                    .hosts()
                    .iter()
                    .map(|host| host.systemctl_show(UNIT, "NeedDaemonReload"));
                Ok(stale
                    .collect::<Result<Vec<_>, _>>()?
                    .iter()
                    .all(|answer| answer == "no"))
            })?;
            await_on(lab, UNIT, "active", &[1, 2, 3])?;
            let after = main_pids(lab, UNIT)?;
            for (old, new) in before.iter().zip(&after) {
                ensure!(
                    (old != new) == restarts,
                    "restarts: {restarts}, but {before:?} became {after:?} with\n{content}"
                );
            }
            before = after;
        }
        ensure!(
            main_pids(lab, "bystander.service")? == bystander,
            "another unit was restarted"
        );

        // An update may also remove the unit from a host.
        write(
            one,
            &[(UNIT, &format!("{SLEEPER}MachineMetadata=host=n2\n"))],
        )?;
        fleetctl(one, "start --wait --replace web")?.ok()?;
        await_on(lab, UNIT, "active", &[2])?;
        destroy_all(lab)
    });
}
