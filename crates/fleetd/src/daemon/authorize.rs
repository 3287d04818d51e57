//! The client behind a connection, and its rights.

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use fleet_core::access::{self, Peer, Rules};
use tower::ServiceExt as _;

use crate::api;

/// The client at the other end of a connection, for as long as it lasts.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// A process of this machine, and the rules at the time when it connected.
    Local(Rules, Peer),
    /// A client that may do everything: it has a certificate, or the socket asks for none.
    Trusted,
    /// A client whose every request is refused with this sentence.
    Refused(String),
}

impl Caller {
    /// Returns why the client may not make this request. `None` if it may.
    fn refusal(&self, request: &Request) -> Option<String> {
        match self {
            Self::Trusted => None,
            Self::Refused(why) => Some(why.clone()),
            Self::Local(rules, peer) => access::decide(rules, peer, api::right_of(request))
                .err()
                .map(|denied| denied.to_string()),
        }
    }

    /// Answers a request, or refuses it.
    pub(super) async fn answer(self, router: Router, request: Request) -> Response {
        match self.refusal(&request) {
            Some(why) => {
                tracing::debug!("refused {} {}: {why}", request.method(), request.uri());
                api::refuse(request, why).await
            }
            None => match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::Body;
    use axum::http::StatusCode;
    use fleet_core::access::Group;

    use super::*;

    fn reader() -> Caller {
        let group = |name: &str, id| Group {
            name: name.to_owned(),
            id: Some(id),
        };
        let rules = Rules {
            own_user: 0,
            read: group("readers", 10),
            change: group("changers", 20),
        };
        let peer = Peer {
            user: 1000,
            name: None,
            groups: BTreeSet::from([10]),
        };
        Caller::Local(rules, peer)
    }

    #[tokio::test]
    async fn reader_may_read_and_plan_but_change_nothing() {
        let router = Router::new().fallback(|| async { "done" });
        for (method, path, status) in [
            ("GET", "/fleet/v1/units", StatusCode::OK),
            ("HEAD", "/fleet/v1/units", StatusCode::OK),
            ("POST", "/fleet/v1/plan", StatusCode::OK),
            ("POST", "/v1-alpha/plan", StatusCode::OK),
            ("POST", "/fleet/v1/machines/plan", StatusCode::FORBIDDEN),
            ("POST", "/fleet/v1/rollouts/plan", StatusCode::FORBIDDEN),
            ("PUT", "/fleet/v1/plan", StatusCode::FORBIDDEN),
            ("PUT", "/fleet/v1/units/a.service", StatusCode::FORBIDDEN),
            ("DELETE", "/fleet/v1/units/a.service", StatusCode::FORBIDDEN),
            ("PATCH", "/fleet/v1/machines", StatusCode::FORBIDDEN),
            ("BREW", "/", StatusCode::FORBIDDEN),
        ] {
            let request = Request::builder().method(method).uri(path);
            let request = request.body(Body::empty()).expect("a request");
            let response = reader().answer(router.clone(), request).await;
            assert_eq!(response.status(), status, "{method} {path}");
        }
    }
}
