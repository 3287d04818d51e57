//! Shows that a unit file reaches the hosts byte for byte, with any content, and that systemd runs
//! it as written.

use anyhow::ensure;

use super::{assert_files, destroy_all, fleetctl, on_three_hosts};

/// A file with bytes that are not UTF-8, quotes, semicolons, percent signs, continued lines, and no
/// newline at the end.
const ODD: &[u8] = b"# caf\xe9 \xff\r\n\n[Unit]\nDescription=Gr\xc3\xbc\xc3\x9fe; 100%% \"quoted\"\n\n[Service]\n\
Type=oneshot\nRemainAfterExit=yes\n\
ExecStartPre=-/bin/false\nExecStartPre=-/does/not/exist\nExecStartPre=-/bin/mkdir /run/odd\n\
ExecStartPre=-/bin/sh -c \"echo first > /run/odd/list; \\\n# in between\n  echo 'second; %p' >> /run/odd/list\"\n\
Environment=\"GREETING=a  b\" 'OTHER=\xc3\xa9'\n\
ExecStart=/bin/sh -c 'printf \"%%s;%%s\\\\n\" \"$GREETING\" \"$OTHER\" >> /run/odd/list'\n\
; the end\n[X-Fleet]\n  Global = true";

#[test]
fn unit_file_arrives_and_runs_as_written() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        one.write_file("/root/odd.service", ODD)?;
        fleetctl(one, "start --wait odd.service")?.ok()?;
        assert_files(lab, "odd.service", ODD)?;
        one.sh("fleetctl cat odd | cmp - /root/odd.service")?.ok()?;
        for host in lab.hosts() {
            assert_eq!(
                host.read_file("/run/odd/list")?,
                "first\nsecond; odd\na  b;é\n",
                "on {}",
                host.name()
            );
            assert_eq!(
                host.systemctl_show("odd.service", "Description")?,
                "Grüße; 100% \"quoted\""
            );
        }
        let listed = fleetctl(one, "list-unit-files --no-legend --fields=unit,desc")?.ok()?;
        ensure!(listed.contains("Grüße; 100%"), "{listed}");
        destroy_all(lab)
    });
}
