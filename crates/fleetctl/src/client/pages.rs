//! Reads all pages of a collection.

use hyper::Method;

use super::payload::Payload;
use super::{Client, ClientError, encode};

/// The number of rows requested at once, for few requests of some megabytes each. fleetd returns no
/// more.
const ROWS: &str = "limit=10000";

/// The rows of a page, and the token of the next page.
pub(super) type Page<T> = (Vec<T>, Option<String>);

impl Client {
    /// Returns the rows of all pages. `open` reads one page.
    pub(super) async fn pages<T>(
        &mut self,
        collection: &str,
        parameter: Option<String>,
        open: impl Fn(&[u8]) -> serde_json::Result<Page<T>>,
    ) -> Result<Vec<T>, ClientError> {
        let mut all = Vec::new();
        let mut token = None;
        loop {
            let next = token.map(|token: String| format!("nextPageToken={}", encode(&token)));
            let query = [Some(ROWS.to_owned()), parameter.clone(), next];
            let query: Vec<String> = query.into_iter().flatten().collect();
            let path = format!("{collection}?{}", query.join("&"));
            let page = self
                .ask(Method::GET, &path, Payload::default(), self.timeout)
                .await?;
            let (items, next) = open(&page).map_err(|why| self.unreadable(&path, why))?;
            all.extend(items);
            token = next.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(all);
            }
        }
    }
}
