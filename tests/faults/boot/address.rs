//! The listed address of a machine.

use lab::Lab;

use super::{comes_back, listed_address, prepare};
use crate::support::looking::SOON;

#[test]
fn an_address_is_found_after_boot_and_followed() {
    Lab::builder().etcd(1).test(|lab| {
        let host = prepare(lab)?;
        // The next step takes longer than the interval of lease renewals, so a check tied to
        // renewals sees no address.
        host.sh("ip address flush dev eth0")?.ok()?;
        comes_back(lab, host)?;
        let listed_as = |address: &str| {
            lab.wait_until(SOON, &format!("the machine is listed as {address}"), || {
                Ok(listed_address(host)? == address)
            })
        };
        host.sh("ip address add 10.99.1.1/16 dev eth0")?.ok()?;
        listed_as("10.99.1.1")?;
        let session = host
            .sh("journalctl --unit=fleet.service | grep -c 'fleetd is up'")?
            .ok()?;
        // Connections of etcd with the old address break.
        host.sh("ip address flush dev eth0; ip address add 10.99.1.77/16 dev eth0")?
            .ok()?;
        listed_as("10.99.1.77")?;
        let now = host
            .sh("journalctl --unit=fleet.service | grep -c 'fleetd is up'")?
            .ok()?;
        anyhow::ensure!(session == now, "fleetd was restarted");
        Ok(())
    });
}
