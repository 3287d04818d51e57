//! Hosts that run containers: the plain root file system, and podman with docker's command line.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::exec::run;
use crate::{images, rootfs};

/// podman, what it needs for published ports, and what images are made of and served with.
/// runc because crun sets a limit that a machine without CAP_SYS_RESOURCE refuses.
const PACKAGES: &str = "podman crun runc netavark aardvark-dns podman-docker iptables nftables \
    busybox-static curl docker-registry";

/// Units of these packages that would run, or write, at moments no test chose.
const MASKED: &str = "podman.service podman.socket podman-restart.service \
    podman-auto-update.service podman-auto-update.timer docker-registry.service";

/// Files of every host. Limits of the kernel are left out, because a container that holds a lab may
/// have no right to set them; overlay refuses to lie on the overlay that a host is.
const FILES: &[(&str, &str)] = &[
    (
        "etc/containers/containers.conf",
        "[containers]\npids_limit = 0\nkeyring = false\n\n[engine]\nruntime = \"runc\"\n",
    ),
    (
        "etc/containers/storage.conf",
        "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/containers/storage\"\ngraphroot = \"/var/lib/containers/storage\"\n",
    ),
    // Silences the note of docker's command that it is podman.
    ("etc/containers/nodocker", ""),
    // podman has no daemon; units that name docker's still have to start.
    (
        "etc/systemd/system/docker.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    ),
    // The network of a host outlives its power, with the rules of containers that are gone.
    (
        "etc/systemd/system/lab-network.service",
        "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n\n[Service]\nType=oneshot\n\
         ExecStart=nft flush ruleset\nExecStart=-ip link delete podman0\n",
    ),
    (
        "etc/systemd/system/sysinit.target.d/lab-network.conf",
        "[Unit]\nWants=lab-network.service\n",
    ),
];

/// Run in a mount namespace of its own, so that nothing stays mounted when it is killed.
const INSTALL: &str = r#"
set -eu
root=$1
cp /etc/resolv.conf "$root/etc/resolv.conf"
mount -t tmpfs tmpfs "$root/run"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
export DEBIAN_FRONTEND=noninteractive
chroot "$root" apt-get --quiet update
chroot "$root" apt-get --quiet --yes --no-install-recommends \
    --option=Dpkg::Options::=--force-unsafe-io install $2
chroot "$root" apt-get clean
chroot "$root" systemctl mask $3
chroot "$root" sh -c "$4"
rm -r "$root"/var/lib/apt/lists/*
: > "$root/etc/resolv.conf"
"#;

const IMAGES: &str = include_str!("images.sh");

/// Returns the finished root file system of hosts with podman, made now if it is missing. It builds
/// on the one of plain hosts: half a minute more, and about 350 MB.
pub(crate) fn provide(suite: &str) -> Result<PathBuf> {
    let plain = rootfs::provide(suite)?;
    let generated = [images::config(), images::registries_conf()];
    let mut recipe = DefaultHasher::new();
    (&plain, PACKAGES, MASKED, FILES).hash(&mut recipe);
    (INSTALL, IMAGES, &generated).hash(&mut recipe);
    rootfs::once(recipe.finish(), |root| make(suite, &plain, root))
}

fn make(suite: &str, plain: &Path, root: &Path) -> Result<()> {
    eprintln!("lab: making the root file system of {suite} hosts with podman, once");
    let text = root
        .to_str()
        .context("the target directory's path is not UTF-8")?;
    run(&["cp", "--archive", &plain.display().to_string(), text])?.ok()?;
    let install = [
        "unshare", "--mount", "sh", "-c", INSTALL, "sh", text, PACKAGES, MASKED, IMAGES,
    ];
    run(&install)?.ok()?;
    for (path, content) in FILES {
        write(root, path, content)?;
    }
    write(root, images::CONFIG_PATH, &images::config())?;
    write(
        root,
        "etc/containers/registries.conf",
        &images::registries_conf(),
    )
}

fn write(root: &Path, path: &str, content: &str) -> Result<()> {
    let file = root.join(path.trim_start_matches('/'));
    file.parent().map(fs::create_dir_all).transpose()?;
    fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))
}
