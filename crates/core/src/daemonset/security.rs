//! Security contexts: the options of `podman run` that they stand for.

use super::fields::{Fate, Field, Fields, Rule};
use super::quote::Text;
use super::remark::Remarks;

/// What a pod's security context gives to containers that do not say otherwise.
#[derive(Clone, Debug, Default)]
pub(super) struct Security {
    user: Option<u64>,
    group: Option<u64>,
    non_root: bool,
    seccomp: Option<&'static str>,
    apparmor: Option<&'static str>,
    labels: Vec<Text>,
    options: Vec<Text>,
}

const POD: &[Rule] = &[
    (
        "fsGroup",
        Fate::Refused,
        "the owner of files is not changed; set it on the machines, or use runAsGroup",
    ),
    (
        "fsGroupChangePolicy",
        Fate::Noted,
        "nothing changes the owner of files here",
    ),
    (
        "supplementalGroupsPolicy",
        Fate::Refused,
        "podman merges the groups of the image",
    ),
    ("windowsOptions", Fate::Refused, "every machine runs Linux"),
    (
        "seLinuxChangePolicy",
        Fate::Refused,
        "podman labels as its own options say",
    ),
];

const CONTAINER: &[Rule] = &[("windowsOptions", Fate::Refused, "every machine runs Linux")];

impl Security {
    /// Reads the part of a security context that pods and containers share.
    fn shared(&mut self, fields: &mut Fields<'_>, remarks: &mut Remarks) {
        self.user = fields.number("runAsUser", remarks).or(self.user);
        self.group = fields.number("runAsGroup", remarks).or(self.group);
        let non_root = fields.take("runAsNonRoot");
        if let Some(field) = non_root
            && let Some(value) = field.boolean(remarks)
        {
            self.non_root = value;
            match (value, self.user) {
                (true, Some(0)) => field.refuse(remarks, "runAsUser is 0, which is root"),
                (true, None) => field.refuse(
                    remarks,
                    "podman does not check the user of an image; write runAsUser, which must not be 0",
                ),
                _ => {}
            }
        }
        if let Some(field) = fields.take("seccompProfile") {
            self.seccomp = profile(&field, "seccomp=unconfined", remarks);
        }
        if let Some(field) = fields.take("appArmorProfile") {
            self.apparmor = profile(&field, "apparmor=unconfined", remarks);
        }
        if let Some(mut options) = fields.map("seLinuxOptions", remarks) {
            self.labels.clear();
            for key in ["user", "role", "type", "level"] {
                if let Some(text) = options.text(key, remarks) {
                    let label = format!("--security-opt=label={key}:{text}");
                    self.labels.push(Text::plain(label));
                }
            }
            options.finish(&[], remarks);
        }
    }

    /// Reads a pod's security context.
    pub(super) fn of_pod(pod: &mut Fields<'_>, remarks: &mut Remarks) -> Self {
        let mut security = Self::default();
        let Some(mut fields) = pod.map("securityContext", remarks) else {
            return security;
        };
        security.shared(&mut fields, remarks);
        for group in fields.list("supplementalGroups", remarks) {
            if let Some(number) = group.number(remarks) {
                security
                    .options
                    .push(Text::plain(format!("--group-add={number}")));
            }
        }
        for sysctl in fields.list("sysctls", remarks) {
            if let Some(mut fields) = sysctl.fields(remarks) {
                let name = fields.text("name", remarks);
                let value = fields.text("value", remarks);
                fields.finish(&[], remarks);
                match (name, value) {
                    (Some(name), Some(value)) => {
                        let option = format!("--sysctl={name}={value}");
                        security.options.push(Text::plain(option));
                    }
                    _ => sysctl.refuse(remarks, "a sysctl needs a name and a value"),
                }
            }
        }
        fields.finish(POD, remarks);
        security
    }

    /// Reads a container's security context. Returns whether it is privileged, and options.
    pub(super) fn of_container(
        &self,
        container: &mut Fields<'_>,
        remarks: &mut Remarks,
    ) -> (bool, Vec<Text>) {
        let mut security = self.clone();
        let mut options = Vec::new();
        let mut privileged = false;
        if let Some(mut fields) = container.map("securityContext", remarks) {
            security.shared(&mut fields, remarks);
            privileged = fields.flag("privileged", remarks);
            if privileged {
                options.push(Text::plain("--privileged"));
            }
            if let Some(mut capabilities) = fields.map("capabilities", remarks) {
                // podman drops first, whatever the order.
                for (key, option) in [("drop", "--cap-drop="), ("add", "--cap-add=")] {
                    for item in capabilities.list(key, remarks) {
                        if let Some(text) = item.text(remarks) {
                            options.push(capability(&item, option, &text, remarks));
                        }
                    }
                }
                capabilities.finish(&[], remarks);
            }
            if fields.flag("readOnlyRootFilesystem", remarks) {
                // podman would lay writable directories over it.
                options.push(Text::plain("--read-only"));
                options.push(Text::plain("--read-only-tmpfs=false"));
            }
            if let Some(field) = fields.take("allowPrivilegeEscalation")
                && field.boolean(remarks) == Some(false)
            {
                match privileged {
                    true => field.refuse(remarks, "a privileged container can gain privileges"),
                    false => options.push(Text::plain("--security-opt=no-new-privileges")),
                }
            }
            if let Some(field) = fields.take("procMount")
                && let Some(text) = field.text(remarks)
                && text != "Default"
            {
                match text.as_str() {
                    "Unmasked" => options.push(Text::plain("--security-opt=unmask=ALL")),
                    _ => field.refuse(remarks, "write Default or Unmasked"),
                }
            }
            fields.finish(CONTAINER, remarks);
        }
        options.extend(self.options.iter().cloned());
        options.extend(security.labels.iter().cloned());
        let profiles = [security.seccomp, security.apparmor].into_iter().flatten();
        options.extend(profiles.map(|it| Text::plain(format!("--security-opt={it}"))));
        options.extend(user(security.user, security.group));
        (privileged, options)
    }
}

fn user(user: Option<u64>, group: Option<u64>) -> Option<Text> {
    let text = match (user, group) {
        (None, None) => return None,
        (Some(user), None) => format!("--user={user}"),
        (Some(user), Some(group)) => format!("--user={user}:{group}"),
        (None, Some(group)) => format!("--user=:{group}"),
    };
    Some(Text::plain(text))
}

fn capability(item: &Field<'_>, option: &str, name: &str, remarks: &mut Remarks) -> Text {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(allowed) {
        item.refuse(
            remarks,
            "write the name of a capability, such as NET_ADMIN, or ALL",
        );
    }
    Text::plain(format!("{option}{name}"))
}

/// Reads a profile: `None` for that of the runtime, which podman uses anyway.
fn profile(
    field: &Field<'_>,
    unconfined: &'static str,
    remarks: &mut Remarks,
) -> Option<&'static str> {
    let mut fields = field.fields(remarks)?;
    let kind = fields.take("type");
    let localhost = fields.take("localhostProfile");
    fields.finish(&[], remarks);
    let word = kind.as_ref().and_then(|kind| kind.text(remarks));
    match (word.as_deref(), localhost) {
        (Some("RuntimeDefault"), None) => None,
        (Some("Unconfined"), None) => Some(unconfined),
        (Some("Localhost"), _) => {
            field.refuse(
                remarks,
                "profiles of the kubelet's directory do not exist here",
            );
            None
        }
        _ => {
            field.refuse(remarks, "write type: RuntimeDefault or Unconfined");
            None
        }
    }
}
