//! Shows that of two conflicting units, the one created first runs on every host. The other one
//! runs after it.

use anyhow::ensure;

use super::{SLEEPER, await_on, destroy_all, fleetctl, on_three_hosts, write};

#[test]
fn conflicting_unit_created_first_runs_until_it_is_gone() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        let rival = format!("{SLEEPER}Conflicts=plain*\n");
        write(
            one,
            &[("plain.service", SLEEPER), ("rival.service", &rival)],
        )?;
        for (first, second) in [
            ("plain.service", "rival.service"),
            ("rival.service", "plain.service"),
        ] {
            // Each is from another host, because the source of a unit does not matter.
            write(
                lab.host(2),
                &[("plain.service", SLEEPER), ("rival.service", &rival)],
            )?;
            fleetctl(one, &format!("start --wait {first}"))?.ok()?;
            let started = fleetctl(lab.host(2), &format!("start --wait {second}"))?;
            ensure!(started.code == 3, "it belongs on no machine: {started:?}");
            await_on(lab, first, "active", &[1, 2, 3])?;
            await_on(lab, second, "active", &[])?;
            let status = fleetctl(one, &format!("status {second}"))?;
            let why =
                format!("not on 3 machines: it conflicts with {first}, which was created first");
            ensure!(
                status.code == 3 && status.stdout.contains(&why),
                "{status:?}"
            );

            // An update does not make it younger.
            write(
                one,
                &[(
                    first,
                    &format!("# newer\n{}", one.read_file(&format!("/root/{first}"))?),
                )],
            )?;
            fleetctl(one, &format!("start --wait --replace {first}"))?.ok()?;
            await_on(lab, first, "active", &[1, 2, 3])?;

            fleetctl(one, &format!("destroy {first}"))?.ok()?;
            await_on(lab, second, "active", &[1, 2, 3])?;
            await_on(lab, first, "active", &[])?;
            destroy_all(lab)?;
        }

        // Both are created at once. One of them wins, the same one everywhere.
        let started = fleetctl(one, "start --wait rival plain")?;
        ensure!(
            started.code == 3,
            "one of them belongs on no machine: {started:?}"
        );
        await_on(lab, "rival.service", "active", &[1, 2, 3])?;
        await_on(lab, "plain.service", "active", &[])?;
        fleetctl(one, "unload rival")?.ok()?;
        await_on(lab, "plain.service", "active", &[1, 2, 3])?;
        destroy_all(lab)
    });
}
