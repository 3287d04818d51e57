//! The parts of a request beside its method and path.

/// The body of a request, and its precondition.
#[derive(Default)]
pub(super) struct Payload {
    /// The JSON body; `None` if the request has none.
    pub(super) json: Option<Vec<u8>>,
    /// The revision that a changed unit must still have, sent as `If-Match`. `None` if any will do.
    pub(super) replaces: Option<u64>,
}

impl From<Option<Vec<u8>>> for Payload {
    fn from(json: Option<Vec<u8>>) -> Self {
        Self {
            json,
            replaces: None,
        }
    }
}
