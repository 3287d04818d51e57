//! Reads a response line by line, while fleetd makes the next line.

use std::panic::resume_unwind;

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::{Client, ClientError, ErrorBody, V1};

/// How often a listing starts again because the registry no longer keeps its revision.
const LISTINGS: usize = 3;

impl Client {
    /// Returns the rows of all lines of a response. `open` reads one line, on a thread of its own.
    pub(super) async fn stream<T, O>(&mut self, path: &str, open: O) -> Result<Vec<T>, ClientError>
    where
        T: Send + 'static,
        O: FnMut(&[u8]) -> serde_json::Result<Vec<T>> + Clone + Send + 'static,
    {
        let mut begun = 1;
        loop {
            match self.lines(path, open.clone()).await {
                Err(ClientError::Refused {
                    code: StatusCode::GONE,
                    ..
                }) if begun < LISTINGS => begun += 1,
                answer => return answer,
            }
        }
    }

    async fn lines<T, O>(&mut self, path: &str, mut open: O) -> Result<Vec<T>, ClientError>
    where
        T: Send + 'static,
        O: FnMut(&[u8]) -> serde_json::Result<Vec<T>> + Send + 'static,
    {
        let begun = self
            .connection
            .begin(&format!("{V1}/{path}"), self.timeout)
            .await;
        let (parts, mut answer) = begun?;
        self.heed(&parts)?;
        if !parts.status.is_success() {
            let body = self.connection.end(answer, self.timeout).await?;
            return Err(self.refusal(parts.status, &body));
        }
        // One line waits, beside the one being read and the one being received. There are never
        // more.
        let (lines, mut read) = mpsc::channel::<Bytes>(1);
        let reading = spawn_blocking(move || {
            let mut all = Vec::new();
            while let Some(line) = read.blocking_recv() {
                all.extend(open(&line)?);
            }
            Ok(all)
        });
        while let Some(line) = self.connection.line(&mut answer, self.timeout).await? {
            if let Some(refusal) = refused(&line) {
                return Err(refusal);
            }
            if lines.send(line).await.is_err() {
                // `open` failed, and its result has the reason.
                break;
            }
        }
        drop(lines);
        let read = reading.await;
        let read = read.unwrap_or_else(|error| resume_unwind(error.into_panic()));
        read.map_err(|why| self.unreadable(path, why))
    }
}

/// The beginning of a last line that says why fleetd cannot read the rest.
const ERROR: &[u8] = br#"{"error":"#;

fn refused(line: &[u8]) -> Option<ClientError> {
    let body: ErrorBody = line
        .starts_with(ERROR)
        .then(|| serde_json::from_slice(line).ok())??;
    let code = StatusCode::from_u16(body.error.code).ok()?;
    super::refusal(code, line)
}
