//! Page tokens. A token of fleet 1.0 is the limit and the page number, little-endian, in URL-safe
//! base64. A cursor is a token with a key and the registry revision of all pages.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

use super::error::{ApiError, Result};

/// The largest number of rows on a page, for any `limit`. They take some megabytes.
pub(super) const ROWS_MAX: u16 = 10_000;

/// The place where a listing continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The registry revision of the whole listing.
    pub(super) revision: u64,
    /// The last key that was listed.
    pub(super) after: String,
}

impl Cursor {
    /// Reads the cursor from the tokens of a query. `None` at the beginning.
    pub(super) fn of(tokens: &[String]) -> Result<Option<Self>> {
        let token = match tokens {
            [] => return Ok(None),
            [token] => token,
            _ => return Err(ApiError::bad("too many values for page token")),
        };
        let cursor = || {
            let text = String::from_utf8(URL_SAFE.decode(token).ok()?).ok()?;
            let (revision, after) = text.split_once(' ')?;
            Some(Self {
                revision: revision.parse().ok()?,
                after: after.to_owned(),
            })
        };
        let bad = || ApiError::bad("the page token is not from a listing with limit");
        cursor().map(Some).ok_or_else(bad)
    }

    pub(super) fn token(&self) -> String {
        URL_SAFE.encode(format!("{} {}", self.revision, self.after))
    }
}

/// Cuts a page out of all items, and returns it with the token of the next page. `tokens` has every
/// `nextPageToken` of the query.
pub(super) fn page<T>(
    items: Vec<T>,
    tokens: &[String],
    limit: u16,
) -> Result<(Vec<T>, Option<String>)> {
    let page = match tokens {
        [] => 1,
        [token] => decode(token, limit)?,
        _ => return Err(ApiError::bad("too many values for page token")),
    };
    let size = usize::from(limit);
    let start = size * usize::from(page - 1);
    let more = items.len() > start + size;
    let next = (more && page < u16::MAX).then(|| encode(limit, page + 1));
    Ok((items.into_iter().skip(start).take(size).collect(), next))
}

fn encode(limit: u16, page: u16) -> String {
    let ([a, b], [c, d]) = (limit.to_le_bytes(), page.to_le_bytes());
    URL_SAFE.encode([a, b, c, d])
}

fn decode(token: &str, limit: u16) -> Result<u16> {
    let bytes = URL_SAFE.decode(token).map_err(|error| match error {
        base64::DecodeError::InvalidByte(at, _) => {
            ApiError::bad(format!("illegal base64 data at input byte {at}"))
        }
        // Go stops at the first incomplete group of four.
        _ => ApiError::bad(format!(
            "illegal base64 data at input byte {}",
            token.len().saturating_sub(1) / 4 * 4
        )),
    })?;
    let [a, b, c, d] = bytes[..] else {
        return Err(ApiError::bad("page token must hold four bytes"));
    };
    if u16::from_le_bytes([a, b]) != limit {
        return Err(ApiError::bad(format!("token limit must be {limit}")));
    }
    match u16::from_le_bytes([c, d]) {
        0 => Err(ApiError::bad("token page must be greater than zero")),
        page => Ok(page),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn following_the_tokens_yields_everything_once() {
        let all: Vec<u32> = (0..250).collect();
        let mut got = Vec::new();
        let mut tokens = Vec::new();
        loop {
            let (mut items, next) = page(all.clone(), &tokens, 100).expect("a page");
            got.append(&mut items);
            match next {
                Some(token) => tokens = vec![token],
                None => break,
            }
        }
        assert_eq!(got, all);
    }

    #[test]
    fn cursor_is_read_from_its_token_and_from_nothing_else() {
        let cursor = Cursor {
            revision: 42,
            after: "reports/ab".to_owned(),
        };
        assert_eq!(Cursor::of(&[cursor.token()]), Ok(Some(cursor)));
        assert_eq!(Cursor::of(&[]), Ok(None));
        for bad in ["", "xx", "ZAABAA==", &URL_SAFE.encode("x reports/ab")] {
            Cursor::of(&[bad.to_owned()]).expect_err(bad);
        }
    }

    #[test]
    fn a_token_needs_no_escaping_in_a_url() {
        let plain = |token: &str| {
            token
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_=".contains(c))
        };
        for number in 1..=u16::MAX {
            let token = encode(100, number);
            assert!(plain(&token), "{token}");
            assert_eq!(decode(&token, 100), Ok(number));
        }
    }

    #[test]
    fn bad_tokens_are_refused_in_the_words_of_fleet_1() {
        for (token, message) in [
            ("EwBMLg==", "token limit must be 100"),
            ("xx", "illegal base64 data at input byte 0"),
            ("ZAA*AA==", "illegal base64 data at input byte 3"),
            ("ZAABx", "illegal base64 data at input byte 4"),
            ("", "page token must hold four bytes"),
            ("ZAABAAEA", "page token must hold four bytes"),
            ("ZAAAAA==", "token page must be greater than zero"),
        ] {
            let error = page(vec![1], &[token.to_owned()], 100).expect_err(token);
            assert_eq!(error.message, message);
        }
        let two = ["ZAABAA==".to_owned(), "ZAABAA==".to_owned()];
        let error = page(vec![1], &two, 100).expect_err("two");
        assert_eq!(error.message, "too many values for page token");
        assert_eq!(
            page(vec![1], &["ZAAJAA==".to_owned()], 100).expect("beyond the end"),
            (vec![], None)
        );
    }
}
