//! Times as people read them.

use std::time::{Duration, SystemTime};

/// The first millisecond of the year 10000, which has no text.
pub(crate) const BEYOND: u64 = 253_402_300_800_000;

/// Returns a time, given in milliseconds since 1970, as `2026-11-22 06:40:41 UTC`.
pub fn timestamp(at: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at));
    match time.filter(|_| at < BEYOND) {
        Some(time) => humantime::format_rfc3339_seconds(time)
            .to_string()
            .replace('T', " ")
            .replace('Z', " UTC"),
        None => "an unknown time".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_has_a_text() {
        assert_eq!(timestamp(1_700_000_000_999), "2023-11-14 22:13:20 UTC");
        assert_eq!(timestamp(BEYOND - 1), "9999-12-31 23:59:59 UTC");
        assert_eq!(timestamp(BEYOND), "an unknown time");
        assert_eq!(timestamp(u64::MAX), "an unknown time");
    }
}
