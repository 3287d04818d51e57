//! Amounts as Kubernetes writes them: `100m` of a processor, `64Mi` of memory.

/// Reads an amount, in thousandths; rounded up.
fn thousandths(text: &str) -> Option<u128> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = text.split_at(digits.unwrap_or(text.len()));
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() || part.len() > 9 || whole.len() > 15 {
        return None;
    }
    let billionths = format!("{whole}{part:0<9}").parse::<u128>().ok()?;
    let binary = |exponent: u32| billionths.checked_mul(1000 << (10 * exponent));
    let decimal = |exponent: u32| billionths.checked_mul(10_u128.pow(exponent));
    let scaled = match suffix {
        "n" => Some(billionths / 1_000_000),
        "u" => Some(billionths / 1000),
        "m" => Some(billionths),
        "" => decimal(3),
        "k" => decimal(6),
        "M" => decimal(9),
        "G" => decimal(12),
        "T" => decimal(15),
        "P" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        _ => exponent(suffix).and_then(|exponent| decimal(3 + exponent)),
    };
    Some(scaled?.div_ceil(1_000_000_000))
}

/// Reads the exponent of `1e3`.
fn exponent(suffix: &str) -> Option<u32> {
    let digits = suffix.strip_prefix(['e', 'E'])?;
    let exponent = digits.strip_prefix('+').unwrap_or(digits).parse().ok()?;
    (exponent <= 15).then_some(exponent)
}

/// Reads an amount of processors, in thousandths of one.
pub(super) fn millicores(text: &str) -> Option<u64> {
    thousandths(text).and_then(|amount| u64::try_from(amount).ok())
}

/// Reads an amount of memory, in bytes.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let bytes = thousandths(text)?.div_ceil(1000);
    u64::try_from(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them() {
        for (text, amount) in [
            ("100m", Some(100)),
            ("1", Some(1000)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("1.0005", Some(1001)),
            ("2k", Some(2_000_000)),
            ("1e3", Some(1_000_000)),
            ("250000u", Some(250)),
            ("", None),
            ("m", None),
            (".", None),
            ("-1", None),
            ("1.2.3", None),
            ("1 Mi", None),
            ("1mi", None),
            ("99999999999999999", None),
        ] {
            assert_eq!(millicores(text), amount, "{text}");
        }
        for (text, amount) in [
            ("64Mi", Some(64 << 20)),
            ("1.5Gi", Some(3 << 29)),
            ("180M", Some(180_000_000)),
            ("128974848", Some(128_974_848)),
            ("129e6", Some(129_000_000)),
            ("1m", Some(1)),
            ("64MiB", None),
        ] {
            assert_eq!(bytes(text), amount, "{text}");
        }
    }
}
