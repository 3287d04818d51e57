//! Names of container images.

/// A name that podman finds without a list of registries.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) name: String,
    /// Whether the same name may stand for another image tomorrow.
    pub(super) floats: bool,
}

/// Completes a name as Kubernetes does: `nginx` is `docker.io/library/nginx:latest`.
///
/// podman refuses short names on machines without a list of registries.
pub(super) fn complete(name: &str) -> Result<Image, &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(allowed) {
        return Err("this is no name of an image");
    }
    let (path, digest) = match name.split_once('@') {
        Some((path, digest)) => (path, Some(digest)),
        None => (name, None),
    };
    let first = path.split_once('/').map(|(first, _)| first);
    let has_registry = first.is_some_and(|it| it.contains(['.', ':']) || it == "localhost");
    let mut full = match (has_registry, first) {
        (true, _) => path.to_owned(),
        (false, Some(_)) => format!("docker.io/{path}"),
        (false, None) => format!("docker.io/library/{path}"),
    };
    let tag = full
        .rsplit('/')
        .next()
        .and_then(|last| last.split_once(':'));
    let tag = tag.map(|(_, tag)| tag.to_owned());
    if let (None, None) = (&tag, digest) {
        full.push_str(":latest");
    }
    if let (Some(tag), Some(_)) = (&tag, digest) {
        // podman refuses a name with both, and the digest decides.
        full.truncate(full.len() - tag.len() - 1);
    }
    if let Some(digest) = digest {
        full = format!("{full}@{digest}");
    }
    Ok(Image {
        floats: digest.is_none() && tag.is_none_or(|tag| tag == "latest"),
        name: full,
    })
}

/// Parts of Kubernetes itself, which have no meaning without it, and what they are.
const OF_KUBERNETES: [(&str, &str); 12] = [
    (
        "kube-proxy",
        "kube-proxy serves Services, which do not exist here",
    ),
    (
        "flannel",
        "flannel is the network of pods; containers here use the machine's",
    ),
    (
        "calico",
        "calico is the network of pods; containers here use the machine's",
    ),
    (
        "cilium",
        "cilium is the network of pods; containers here use the machine's",
    ),
    (
        "weave-kube",
        "weave is the network of pods; containers here use the machine's",
    ),
    (
        "kured",
        "kured drains nodes by the Kubernetes API; see `fleetctl drain`",
    ),
    (
        "k8s-dns-node-cache",
        "node-local DNS serves the DNS of a cluster, which does not exist here",
    ),
    (
        "k8s-device-plugin",
        "a device plugin serves the kubelet; give the container a device with podman's --device",
    ),
    (
        "csi-node-driver-registrar",
        "a CSI driver serves the kubelet; mount the storage on the machine",
    ),
    (
        "nfsplugin",
        "a CSI driver serves the kubelet; mount the storage on the machine",
    ),
    (
        "livenessprobe",
        "this sidecar serves a CSI driver, which serves the kubelet",
    ),
    (
        "aws-ebs-csi-driver",
        "a CSI driver serves the kubelet; mount the storage on the machine",
    ),
];

/// Returns why an image cannot work without Kubernetes, if that is known.
pub(super) fn of_kubernetes(name: &str) -> Option<&'static str> {
    let path = name.split('@').next().unwrap_or(name);
    let last = path.rsplit('/').next().unwrap_or(path);
    let last = last.split(':').next().unwrap_or(last);
    let known = OF_KUBERNETES.iter().find(|(image, _)| {
        last == *image
            || last
                .strip_prefix(image)
                .is_some_and(|rest| rest.starts_with('-'))
    });
    known.map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        for (name, full, floats) in [
            ("nginx", "docker.io/library/nginx:latest", true),
            ("nginx:1.27", "docker.io/library/nginx:1.27", false),
            (
                "fluent/fluent-bit:3",
                "docker.io/fluent/fluent-bit:3",
                false,
            ),
            ("quay.io/a/b", "quay.io/a/b:latest", true),
            ("localhost/a", "localhost/a:latest", true),
            ("n1:5000/a:latest", "n1:5000/a:latest", true),
            (
                "nginx@sha256:ab",
                "docker.io/library/nginx@sha256:ab",
                false,
            ),
            ("a.io/b:1@sha256:ab", "a.io/b@sha256:ab", false),
        ] {
            let image = complete(name).expect(name);
            assert_eq!((image.name.as_str(), image.floats), (full, floats));
        }
        for name in ["", "-d", "a b", "a%n", "$(x)", "/a", "a\nb"] {
            assert!(complete(name).is_err(), "{name}");
        }
    }

    #[test]
    fn parts_of_kubernetes_are_known_by_their_image() {
        for (name, known) in [
            ("registry.k8s.io/kube-proxy:v1.30.0", true),
            ("docker.io/flannel/flannel:v0.25", true),
            ("docker.io/flannel/flannel-cni-plugin:v1", true),
            ("docker.io/library/nginx:1", false),
            ("docker.io/me/flannelette:1", false),
        ] {
            assert_eq!(of_kubernetes(name).is_some(), known, "{name}");
        }
    }
}
