//! The bytes of a unit file, unchanged.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The unchanged bytes of a unit file. Cheap to clone.
///
/// In JSON they are a string if they are UTF-8, so that a person can read a registry value. They
/// are `{"base64": "..."}` if they are not, or if escapes would make the string longer than base64.
/// A record of two of the largest files therefore fits into one request of etcd, whatever they
/// contain.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content(Arc<[u8]>);

impl Content {
    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the bytes as text, with U+FFFD for invalid UTF-8. For display only.
    pub fn to_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_text())
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

/// The length up to which texts stay readable, whatever they contain.
const SLACK: usize = 1024;

/// Returns the length of a text as JSON, without its quotes.
fn escaped(text: &str) -> usize {
    let bytes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    });
    bytes.sum()
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Wire<'a> {
    Text(std::borrow::Cow<'a, str>),
    Bytes { base64: String },
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) if escaped(text) <= self.0.len() / 3 * 4 + SLACK => Wire::Text(text.into()),
            _ => Wire::Bytes {
                base64: STANDARD.encode(&self.0),
            },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Wire::deserialize(deserializer)? {
            Wire::Text(text) => Ok(Self::from(&*text)),
            Wire::Bytes { base64 } => STANDARD
                .decode(&base64)
                .map(Self::from)
                .map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_stays_readable_in_json() {
        let content = Content::from("[Service]\n");
        assert_eq!(
            serde_json::to_string(&content).expect("serialises"),
            "\"[Service]\\n\""
        );
    }

    #[test]
    fn escapes_never_make_content_much_longer() {
        for text in [
            "\n".repeat(300_000),
            "\u{1}".repeat(300_000),
            "x".repeat(300_000),
        ] {
            let content = Content::from(text.as_str());
            let json = serde_json::to_string(&content).expect("serialises");
            assert!(json.len() < 300_000 / 3 * 4 + 2 * SLACK, "{}", json.len());
            assert_eq!(
                serde_json::from_str::<Content>(&json).expect("parses"),
                content
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive_json(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let content = Content::from(bytes);
            let json = serde_json::to_string(&content).expect("serialises");
            prop_assert_eq!(serde_json::from_str::<Content>(&json).expect("parses"), content);
        }
    }
}
