//! Follows the pages of a collection to its end, each read while fleetd makes the next one.

use std::panic;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde_json::Deserializer;
use tokio::task::spawn_blocking;

use super::{Client, ClientError, encode};

/// How many rows of a listing are asked for at once: few requests, of some megabytes each. fleetd answers no more.
const ROWS: &str = "limit=10000";

/// How often a listing is begun anew because the registry has forgotten what it was of.
const LISTINGS: usize = 3;

/// How fleetd begins a page that is not the last.
const NEXT: &[u8] = br#"{"nextPageToken":"#;

/// What a page holds, and what asks for the next one.
pub(super) type Page<T> = (Vec<T>, Option<String>);

impl Client {
    /// All that the pages of a collection hold; `open` reads one.
    pub(super) async fn pages<T, O>(
        &mut self,
        collection: &str,
        parameter: Option<String>,
        mut open: O,
    ) -> Result<Vec<T>, ClientError>
    where
        T: Send + 'static,
        O: FnMut(&[u8]) -> serde_json::Result<Page<T>> + Send + 'static,
    {
        let path = |token: Option<&str>| {
            let token = token.map(|token| format!("nextPageToken={}", encode(token)));
            let query = [Some(ROWS.to_owned()), parameter.clone(), token];
            let query: Vec<String> = query.into_iter().flatten().collect();
            format!("{collection}?{}", query.join("&"))
        };
        let mut all = Vec::new();
        let mut begun = 1;
        let mut asked = path(None);
        let mut body = self.page(&asked).await?;
        loop {
            let early = next(&body).map(|token| path(Some(&token)));
            let reading = spawn_blocking(move || {
                let page = open(&body);
                (open, page)
            });
            let ahead = match &early {
                Some(next) => Some(self.page(next).await),
                None => None,
            };
            let (reader, page) = reading
                .await
                .unwrap_or_else(|error| panic::resume_unwind(error.into_panic()));
            open = reader;
            let (items, token) = page.map_err(|why| self.unreadable(&asked, why))?;
            all.extend(items);

            let token = token.filter(|token| !token.is_empty());
            let Some(next) = early.or_else(|| token.map(|token| path(Some(&token)))) else {
                return Ok(all);
            };
            asked = next;
            let answer = match ahead {
                Some(answer) => answer,
                None => self.page(&asked).await,
            };
            body = match answer {
                Err(ClientError::Refused {
                    code: StatusCode::GONE,
                    ..
                }) if begun < LISTINGS => {
                    begun += 1;
                    all.clear();
                    asked = path(None);
                    self.page(&asked).await?
                }
                answer => answer?,
            };
        }
    }

    async fn page(&mut self, path: &str) -> Result<Bytes, ClientError> {
        self.ask(Method::GET, path, None, self.timeout).await
    }
}

/// What asks for the page after this one, if that can be told without reading all of it.
fn next(page: &[u8]) -> Option<String> {
    let token = page.strip_prefix(NEXT)?;
    let mut tokens = Deserializer::from_slice(token).into_iter();
    tokens
        .next()?
        .ok()
        .filter(|token: &String| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use fleet_core::api::StatePage;

    use super::*;

    #[test]
    fn the_next_page_is_told_by_how_fleetd_begins_one() {
        let page = |token: Option<&str>| {
            let page = StatePage {
                next_page_token: token.map(str::to_owned),
                ..StatePage::default()
            };
            serde_json::to_vec(&page).expect("a page")
        };
        assert_eq!(next(&page(Some("MTAgeA=="))).as_deref(), Some("MTAgeA=="));
        for none in [
            &page(None)[..],
            &page(Some("")),
            b"{\"nextPageToken\":\"x",
            b"<html>",
        ] {
            assert_eq!(next(none), None);
        }
    }
}
