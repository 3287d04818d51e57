//! Whether a service is expected to keep running, which decides when it counts as ready.

use super::UnitFile;

/// The settings of a `[Service]` section that define success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceType {
    /// Whether it runs to its end (`Type=oneshot`). Every other service is meant to keep running.
    pub oneshot: bool,
    /// Whether it counts as active after its end (`RemainAfterExit=`).
    pub remain_after_exit: bool,
    /// Whether systemd calls it active only after the program itself has shown that it is up or,
    /// for oneshot, done. For `simple`, `exec` and `idle` systemd cannot tell.
    pub proves_readiness: bool,
}

/// Reads the settings as systemd does. An unknown value keeps the previous one, and a service
/// without `Type=`, `BusName=` and `ExecStart=` is oneshot.
pub fn service_type(file: &UnitFile) -> ServiceType {
    const TYPES: [&str; 8] = [
        "simple",
        "exec",
        "forking",
        "oneshot",
        "dbus",
        "notify",
        "notify-reload",
        "idle",
    ];
    let named = file
        .assigned("Service", "Type")
        .rfind(|name| TYPES.contains(name));
    let implied = || {
        if file.last("Service", "BusName").is_some() {
            "dbus"
        } else if file.values("Service", "ExecStart").is_empty() {
            "oneshot"
        } else {
            "simple"
        }
    };
    let named = named.unwrap_or_else(implied);
    ServiceType {
        oneshot: named == "oneshot",
        proves_readiness: !matches!(named, "simple" | "exec" | "idle"),
        remain_after_exit: file
            .assigned("Service", "RemainAfterExit")
            .filter_map(truth)
            .next_back()
            .unwrap_or(false),
    }
}

/// Reads a boolean in systemd's spellings.
pub(crate) fn truth(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_is_oneshot_as_in_systemd() {
        for (section, oneshot, remain_after_exit) in [
            ("ExecStart=/a", false, false),
            ("Type=oneshot\nExecStart=/a", true, false),
            (
                "Type=oneshot\nExecStart=/a\nRemainAfterExit=Yes",
                true,
                true,
            ),
            ("Type=oneshot\nType=bogus\nType=\nExecStart=/a", true, false),
            ("Type=oneshot\nType=exec\nExecStart=/a", false, false),
            (
                "ExecStop=/a\nRemainAfterExit=1\nRemainAfterExit=maybe",
                true,
                true,
            ),
            (
                "ExecStart=/a\nRemainAfterExit=1\nRemainAfterExit=no",
                false,
                false,
            ),
            ("BusName=a.b", false, false),
        ] {
            let file = UnitFile::parse(format!("[Service]\n{section}\n").as_bytes());
            let service = service_type(&file);
            assert_eq!(
                (service.oneshot, service.remain_after_exit),
                (oneshot, remain_after_exit),
                "{section}"
            );
        }
    }

    #[test]
    fn only_some_types_prove_their_readiness() {
        for (section, proves_readiness) in [
            ("ExecStart=/a", false),
            ("Type=exec\nExecStart=/a", false),
            ("Type=idle\nExecStart=/a", false),
            ("Type=notify\nExecStart=/a", true),
            ("Type=forking\nExecStart=/a", true),
            ("Type=oneshot\nExecStart=/a", true),
            ("BusName=a.b\nExecStart=/a", true),
        ] {
            let file = UnitFile::parse(format!("[Service]\n{section}\n").as_bytes());
            assert_eq!(
                service_type(&file).proves_readiness,
                proves_readiness,
                "{section}"
            );
        }
    }
}
