//! Shows that a unit that fails, or that systemd refuses, is reported and stops no other unit,
//! however many fail.

use anyhow::ensure;

use super::{SLEEPER, SOON, await_on, destroy_all, fleetctl, on_three_hosts, write};

#[test]
fn a_unit_that_cannot_run_says_why_and_the_others_run() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        let global = "\n[X-Fleet]\nGlobal=true\n";
        let crashing = format!("[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit 7'{global}");
        // It is active for a moment, which may or may not be observed.
        let brief = format!("[Service]\nExecStart=/does/not/exist{global}");
        let refused = format!("[Service]\nExecStart=\nRestart=perhaps{global}");
        write(
            one,
            &[
                ("crashing.service", &crashing),
                ("refused.service", &refused),
                ("brief.service", &brief),
                ("fine.service", SLEEPER),
            ],
        )?;
        let started = fleetctl(one, "start --wait crashing refused brief fine")?;
        ensure!(started.code == 1, "{started:?}");
        for machine in [
            "190c6f8f.../10.99.1.1",
            "c46a8ace.../10.99.1.2",
            "d77c07da.../10.99.1.3",
        ] {
            for why in [
                format!(
                    "refused.service: not ready on {machine}: systemd refused: Unit refused.service has a bad unit file setting."
                ),
                format!(
                    "crashing.service: not ready on {machine}: failed (failed), result exit-code"
                ),
            ] {
                ensure!(started.stderr.contains(&why), "no `{why}` in {started:?}");
            }
        }
        await_on(lab, "fine.service", "active", &[1, 2, 3])?;
        for unit in ["crashing.service", "brief.service"] {
            await_on(lab, unit, "failed", &[1, 2, 3])?;
        }
        lab.wait_until(SOON, "each unit is listed as it is", || {
            let listed = fleetctl(
                one,
                "list-units --no-legend --fields=unit,load,active,machine",
            )?
            .ok()?;
            // One or two tabs separate the cells of a row.
            let told = |line: &str| {
                listed
                    .lines()
                    .filter(|row| row.replace("\t\t", "\t").starts_with(line))
                    .count()
            };
            ensure!(told("crashing.service\tloaded\tfailed\t") == 3, "{listed}");
            ensure!(
                told("refused.service\tbad-setting\tinactive\t") == 3,
                "{listed}"
            );
            ensure!(told("fine.service\tloaded\tactive\t") == 3, "{listed}");
            Ok(true)
        })?;
        for (unit, code) in [("fine", 0), ("crashing", 3), ("refused", 3), ("'*'", 3)] {
            let status = fleetctl(one, &format!("status {unit}"))?;
            ensure!(status.code == code, "{status:?}");
        }
        let cluster = fleetctl(one, "status")?;
        ensure!(
            cluster.code == 3 && cluster.stdout.contains("Problems: 9\n"),
            "{cluster:?}"
        );

        // The next revision of each fixes it.
        write(
            one,
            &[("crashing.service", SLEEPER), ("refused.service", SLEEPER)],
        )?;
        fleetctl(one, "start --wait --replace crashing refused")?.ok()?;
        for unit in ["crashing.service", "refused.service"] {
            await_on(lab, unit, "active", &[1, 2, 3])?;
        }
        let cluster = fleetctl(one, "status")?;
        ensure!(
            cluster.code == 3 && cluster.stdout.contains("Problems: 3\n"),
            "{cluster:?}"
        );

        // A failed unit leaves no trace in systemd.
        write(one, &[("crashing.service", &crashing)])?;
        ensure!(fleetctl(one, "start --wait --replace crashing")?.code == 1);
        destroy_all(lab)?;
        for host in lab.hosts() {
            assert_eq!(host.sh("systemctl --failed --no-legend")?.ok()?, "");
        }
        Ok(())
    });
}

#[test]
fn fifty_units_start_and_go_at_once() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        one.write_file("/root/many@.service", SLEEPER)?;
        let started = fleetctl(one, "start --wait $(seq --format='many@%02g' 50)")?.ok()?;
        ensure!(started.lines().count() == 100, "{started}");
        for host in lab.hosts() {
            let active = host
                .sh("systemctl list-units --no-legend --state=running 'many@*' | wc -l")?
                .ok()?;
            assert_eq!(active, "50\n", "on {}", host.name());
        }
        assert_eq!(
            fleetctl(one, "list-units --no-legend")?
                .ok()?
                .lines()
                .count(),
            150
        );
        destroy_all(lab)?;
        for host in lab.hosts() {
            assert_eq!(
                host.sh("systemctl list-units --all --no-legend 'many@*'; pidof sleep")?
                    .stdout,
                ""
            );
        }
        Ok(())
    });
}
