//! The values of single options, read from text. Each error is in lower case, and says what is
//! wrong and what to write.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::Uri;
use fleet_core::machine::{METADATA_MAX, Metadata, too_long};

/// The longest unix socket path that the kernel takes: `sun_path` with its closing zero is 108
/// bytes.
const SOCKET_PATH_MAX: usize = 107;

/// Reads a whole number of at least `least`.
pub(super) fn number(text: &str, least: u16) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|number| *number >= least)
        .ok_or_else(|| {
            format!(
                "\"{text}\" is not a whole number from {least} to {}",
                u16::MAX
            )
        })
}

/// Reads a boolean as fleet 1.0 did: Go's `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("\"{text}\" is neither true nor false")),
    }
}

/// Reads an absolute path.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err(format!("\"{text}\" is not an absolute path"))
    }
}

/// Reads the name of a group, or its number. Whether such a group exists is checked at each
/// request.
pub(super) fn group(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-$".contains(c);
    if text.len() <= 32 && !text.starts_with('-') && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" is no name of a group"))
    }
}

/// Reads an absolute path that a unix socket can have.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, String> {
    if text.len() > SOCKET_PATH_MAX {
        return Err(format!(
            "the path of a socket is at most {SOCKET_PATH_MAX} bytes, this one has {}",
            text.len()
        ));
    }
    absolute(text)
}

/// Reads an IPv4 or IPv6 address.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("\"{text}\" is not an IP address"))
}

/// Reads a duration in Go's form: `30s`, `1m30s`, `1.5h`, `200ms`. It has no sign, and always a
/// unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let malformed = || format!("\"{text}\" is not a duration; write it like 30s or 1m30s");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, tail) = rest.split_at(unit_at.ok_or_else(malformed)?);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, tail) = tail.split_at(unit_end.unwrap_or(tail.len()));
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(malformed()),
        };
        let number: f64 = number.parse().map_err(|_| malformed())?;
        let part = Duration::try_from_secs_f64(number * scale).map_err(|_| malformed())?;
        total = total.checked_add(part).ok_or_else(malformed)?;
        rest = tail;
    }
    if text.is_empty() {
        return Err(malformed());
    }
    Ok(total)
}

/// Reads a time to live: whole seconds, because leases count in seconds, and at least etcd's
/// minimum.
pub(super) fn time_to_live(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if ttl.subsec_nanos() != 0 {
        return Err(format!("\"{text}\" is not in whole seconds"));
    }
    if ttl < Duration::from_secs(2) {
        return Err(format!("\"{text}\" is too short: at least 2s"));
    }
    Ok(ttl)
}

/// Reads a timeout: seconds as in fleet 1.0 (`1.0`), or a duration (`1.5s`).
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let timeout = if plain {
        duration(&format!("{text}s"))
            .map_err(|_| format!("\"{text}\" is not a number of seconds"))?
    } else {
        duration(text)?
    };
    if timeout.is_zero() {
        return Err("nothing can answer in no time; write a time such as 1.0".to_owned());
    }
    Ok(timeout)
}

/// Reads metadata: `key=value` pairs separated by commas. Blanks around each part are dropped, and
/// the last pair of a key wins.
pub(super) fn metadata(text: &str) -> Result<Metadata, String> {
    let mut pairs = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match pair.split('=').map(str::trim).collect::<Vec<_>>()[..] {
            [key, value] if !key.is_empty() => match too_long(key, value) {
                None => pairs.insert(key.to_owned(), value.to_owned()),
                Some(what) => return Err(what),
            },
            _ => return Err(format!("\"{pair}\" is not of the form key=value")),
        };
    }
    if pairs.len() > METADATA_MAX {
        return Err(format!(
            "{} keys of metadata (max {METADATA_MAX})",
            pairs.len()
        ));
    }
    Ok(pairs)
}

/// Returns a key of metadata that has two values.
pub(super) fn repeated_key(text: &str) -> Option<&str> {
    let mut pairs = BTreeMap::new();
    text.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let (key, value) = (key.trim(), value.trim());
        let before = pairs.insert(key, value)?;
        (before != value).then_some(key)
    })
}

/// Reads etcd's URLs, without a closing slash: a comma list or a JSON array.
pub(super) fn servers(text: &str) -> Result<Vec<String>, String> {
    let urls: Vec<String> = if text.starts_with('[') {
        serde_json::from_str(text).map_err(|error| format!("not a JSON array of texts: {error}"))?
    } else {
        text.split(',').map(str::to_owned).collect()
    };
    let urls: Vec<&str> = urls
        .iter()
        .map(|url| url.trim())
        .filter(|url| !url.is_empty())
        .collect();
    if urls.is_empty() {
        return Err("names no server; write a URL such as http://127.0.0.1:2379".to_owned());
    }
    urls.into_iter().map(server).collect()
}

fn server(url: &str) -> Result<String, String> {
    // Checked first, and without quoting the URL: the part before the @ has a password.
    if url.contains('@') {
        return Err(
            "a URL cannot carry a user; set etcd_username and etcd_password instead".to_owned(),
        );
    }
    let malformed = |what| format!("\"{url}\" {what}; write it like http://127.0.0.1:2379");
    let uri: Uri = url.parse().map_err(|_| malformed("is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(malformed("does not start with http:// or https://"));
    }
    let Some(authority) = uri.authority().filter(|it| !it.host().is_empty()) else {
        return Err(malformed("names no host"));
    };
    if authority.as_str() != authority.host() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(malformed("has no valid port"));
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(malformed("has a path"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_go_writes_them() {
        for (text, seconds) in [
            ("30s", 30.0),
            ("1m30s", 90.0),
            ("1.5h", 5400.0),
            ("200ms", 0.2),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_secs_f64(seconds)),
                "{text}"
            );
        }
        for bad in [
            "",
            "30",
            "s",
            "1x",
            "-1s",
            "1..2s",
            "30 s",
            "99999999999999999999h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_lease_lives_for_whole_seconds_and_two_at_least() {
        assert_eq!(time_to_live("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(
            time_to_live("1s").expect_err("short"),
            "\"1s\" is too short: at least 2s"
        );
        assert!(time_to_live("2500ms").is_err());
    }

    #[test]
    fn a_timeout_is_seconds_or_a_duration_but_not_nothing() {
        assert_eq!(timeout("1.0"), Ok(Duration::from_secs(1)));
        assert_eq!(timeout("1.5s"), Ok(Duration::from_millis(1500)));
        for bad in ["0", "0s", "", ".", "soon"] {
            assert!(timeout(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metadata_drops_blanks_and_the_last_pair_wins() {
        let read = metadata(" region = us-west, az=1,az=2,").expect("valid");
        assert_eq!(
            read,
            Metadata::from([
                ("az".into(), "2".into()),
                ("region".into(), "us-west".into())
            ])
        );
        for bad in ["region", "a=b=c", "=x"] {
            let text = metadata(&format!("az=1,{bad}")).expect_err(bad);
            assert_eq!(text, format!("\"{bad}\" is not of the form key=value"));
        }
    }

    #[test]
    fn metadata_has_its_bounds() {
        let pairs = |count: usize| {
            let pairs: Vec<_> = (0..count).map(|n| format!("k{n}=v")).collect();
            metadata(&pairs.join(","))
        };
        assert_eq!(pairs(128).expect("the most").len(), 128);
        assert_eq!(pairs(129), Err("129 keys of metadata (max 128)".into()));
        let long = metadata(&format!("{}=v", "k".repeat(129)));
        assert_eq!(long, Err("metadata key is 129 bytes long (max 128)".into()));
    }

    #[test]
    fn a_group_is_a_name_or_a_number() {
        for fine in ["fleet", "fleet-admin", "991", "domain_users$"] {
            assert_eq!(group(fine), Ok(fine.to_owned()));
        }
        for bad in ["a b", "-x", "a:b", "a\nb"] {
            assert!(group(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn servers_are_a_comma_list_or_a_json_array_of_urls() {
        let both = ["http://a:2379".to_owned(), "https://[::1]:2379".to_owned()];
        assert_eq!(
            servers("http://a:2379/, https://[::1]:2379"),
            Ok(both.to_vec())
        );
        assert_eq!(
            servers(r#"["http://a:2379", "https://[::1]:2379"]"#),
            Ok(both.to_vec())
        );
        for bad in [
            "a:2379",
            "unix:///x",
            "http://",
            "http://a:0",
            "http://a:99999",
            "http://a/v3",
            "[1]",
            ",",
        ] {
            assert!(servers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_without_repeating_it() {
        let text = servers("http://root:hunter2@a:2379").expect_err("refused");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn booleans_read_as_go_reads_them() {
        assert_eq!(boolean("T"), Ok(true));
        assert_eq!(boolean("False"), Ok(false));
        assert!(boolean("yes").is_err());
    }

    #[test]
    fn a_socket_path_fits_the_kernel() {
        assert!(socket_path(&format!("/{}", "x".repeat(106))).is_ok());
        assert!(socket_path(&format!("/{}", "x".repeat(107))).is_err());
        assert!(socket_path("fleet.sock").is_err());
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,40}|[0-9.hmsun]{0,30}") {
            let _ = (duration(&text), timeout(&text), metadata(&text), servers(&text));
        }
    }
}
