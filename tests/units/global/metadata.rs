//! Shows that a unit with `MachineMetadata=` runs where the metadata matches, and moves when it
//! changes.

use anyhow::ensure;
use lab::Lab;

use super::{
    SOON, await_listing, await_on, destroy_all, fleetctl, left_behind, on_three_hosts, write,
};

#[test]
fn unit_runs_where_its_metadata_matches() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        write(
            one,
            &[
                ("web.service", &selecting("role=web")),
                ("two.service", &selecting("\"host=n1\" \"host=n2\"")),
                ("own@.service", &selecting("host=%i")),
            ],
        )?;
        // No machine matches web yet, so there is no row, and a special exit code.
        let started = fleetctl(one, "start --wait web two own@n3")?;
        ensure!(started.code == 3, "{started:?}");
        await_on(lab, "web.service", "active", &[])?;
        await_on(lab, "two.service", "active", &[1, 2])?;
        await_on(lab, "own@n3.service", "active", &[3])?;
        await_listing(
            lab,
            "",
            "UNIT\t\tMACHINE\t\t\tACTIVE\tSUB\n\
             own@n3.service\td77c07da.../10.99.1.3\tactive\trunning\n\
             two.service\t190c6f8f.../10.99.1.1\tactive\trunning\n\
             two.service\tc46a8ace.../10.99.1.2\tactive\trunning\n",
        )?;
        let status = fleetctl(one, "status web")?;
        ensure!(status.code == 3, "{status:?}");
        ensure!(
            status
                .stdout
                .contains("not on 3 machines: it needs role=web, and role is not set here"),
            "{status:?}"
        );

        fleetctl(one, "metadata d77c role=web")?.ok()?;
        await_on(lab, "web.service", "active", &[3])?;
        let listed = fleetctl(one, "list-machines --no-legend --fields=metadata")?.ok()?;
        assert_eq!(listed, "host=n1\nhost=n2\nhost=n3,role=web\n");
        fleetctl(one, "metadata d77c role-")?.ok()?;
        await_on(lab, "web.service", "active", &[])?;
        ensure!(
            !left_behind(lab.host(3))?.contains("web"),
            "its file is left on n3"
        );

        // Metadata of fleet.conf is hidden, and shown again.
        fleetctl(one, "metadata c46a host-")?.ok()?;
        await_on(lab, "two.service", "active", &[1])?;
        fleetctl(one, "metadata c46a host=n3")?.ok()?;
        await_on(lab, "own@n3.service", "active", &[2, 3])?;
        fleetctl(one, "metadata c46a host=n2")?.ok()?;
        await_on(lab, "own@n3.service", "active", &[3])?;
        await_on(lab, "two.service", "active", &[1, 2])?;
        destroy_all(lab)
    });
}

#[test]
fn a_machine_that_joins_gets_what_it_matches() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let join = |number: usize| {
            let host = lab.host(number);
            let conf = lab
                .fleet_conf()
                .metadata(&format!("host={}, role = web", host.name()));
            host.install_fleet(&conf)
        };
        join(1)?;
        join(2)?;
        write(
            lab.host(1),
            &[
                ("web.service", &selecting("role=web")),
                ("late.service", &selecting("host=n3")),
            ],
        )?;
        lab.wait_until(SOON, "both machines are listed", || {
            Ok(fleetctl(lab.host(1), "list-machines --no-legend")?
                .ok()?
                .lines()
                .count()
                == 2)
        })?;
        let started = fleetctl(lab.host(1), "start --wait web late")?;
        ensure!(
            started.code == 3,
            "late belongs on no machine yet: {started:?}"
        );
        await_on(lab, "web.service", "active", &[1, 2])?;
        join(3)?;
        await_on(lab, "web.service", "active", &[1, 2, 3])?;
        await_on(lab, "late.service", "active", &[3])?;
        fleetctl(lab.host(3), "status web late")?.ok().map(drop)
    });
}

fn selecting(metadata: &str) -> String {
    format!(
        "[Service]\nExecStart=/bin/sleep infinity\n[X-Fleet]\nGlobal=true\nMachineMetadata={metadata}\n"
    )
}
