//! API v1: the original's, and a `status` of our own, as JSON over HTTP.
//!
//! Every answer is read from the registry when it is asked for, at one revision; nothing is cached, so there is
//! nothing to be stale and nothing to keep up while nobody asks.

mod body;
mod error;
mod events;
mod explain;
mod machines;
mod news;
mod page;
mod plan;
mod rollouts;
mod scheduling;
mod state;
mod status;
mod units;
mod view;

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request};
use axum::http::header::SERVER;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use fleet_core::api::V1;
use fleet_core::record::CONTENT_MAX;

use self::error::ApiError;
use crate::registry::Registry;

/// The largest request: a unit file in base64, and the rest of its JSON.
const BODY_MAX: usize = CONTENT_MAX * 2;

/// How long an answer may take. fleetctl waits three seconds, as the original's did: a sentence in time is worth more
/// than what a registry with a hanging member may still answer.
const ANSWER: Duration = Duration::from_millis(2500);

/// Who orders what is ordered here, in reasons and in the journal: nobody says who they are yet.
const BY: &str = "the API";

/// What the handlers share.
#[derive(Clone)]
struct Api {
    registry: Registry,
    page_limit: u16,
}

/// The API over that registry. `page_limit`: rows of a page (`token_limit`).
pub fn router(registry: Registry, page_limit: u16) -> Router {
    let api = Api {
        registry,
        page_limit,
    };
    let only = |routes: MethodRouter<Api>, methods: &'static str| {
        routes.fallback(move || async move {
            let text = format!("only {methods} supported against this resource");
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text)
        })
    };
    let v1 = Router::new()
        .route(
            "/machines",
            only(get(machines::list).patch(machines::patch), "GET and PATCH"),
        )
        .route("/machines/{id}", only(post(scheduling::post), "POST"))
        .route("/units", only(get(units::list), "GET"))
        .route(
            "/units/{name}",
            only(
                get(units::get).put(units::put).delete(units::delete),
                "GET, PUT and DELETE",
            ),
        )
        .route("/state", only(get(state::list), "GET"))
        .route("/state/{name}", only(get(state::get), "GET"))
        .route("/status", only(get(status::cluster), "GET"))
        .route("/status/{name}", only(get(status::unit), "GET"))
        .route("/rollouts", only(get(rollouts::list), "GET"))
        .route(
            "/rollouts/{name}",
            only(get(rollouts::get).post(rollouts::order), "GET and POST"),
        )
        .route(
            "/rollouts/{name}/history",
            only(get(rollouts::history), "GET"),
        )
        .route(
            "/rollouts/{name}/history/{number}",
            only(get(rollouts::revision), "GET"),
        )
        .route("/plan", only(post(plan::post), "POST"))
        .route("/explain/{name}", only(get(explain::get), "GET"))
        .route("/events", only(get(events::list), "GET"));
    Router::new()
        .nest(V1, v1)
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "") })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn(in_time))
        .layer(map_response(finish))
        .with_state(api)
}

/// Answers 503 where the registry does not answer in time. Whoever waits for news (`after`) has said so.
async fn in_time(request: Request, next: Next) -> Response {
    let waits = Query::of(request.uri()).is_ok_and(|query| query.after.is_some());
    if waits {
        return next.run(request).await;
    }
    let answer = tokio::time::timeout(ANSWER, next.run(request)).await;
    answer.unwrap_or_else(|_| {
        let text = "the registry does not answer; a change may have been made all the same. \
                    The status line of fleetd says more: systemctl status fleet";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    })
}

/// Says who answers, and gives refusals that the framework made the body of every error.
async fn finish(response: Response) -> Response {
    let json = response
        .headers()
        .get(axum::http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/json");
    let mut response = match response.status() {
        status if (status.is_client_error() || status.is_server_error()) && !json => {
            ApiError::new(status, status.canonical_reason().unwrap_or("")).into_response()
        }
        _ => response,
    };
    let server = HeaderValue::from_static(concat!("fleetd/v", env!("CARGO_PKG_VERSION")));
    response.headers_mut().insert(SERVER, server);
    response
}

/// The parts of a query that any handler reads. What nobody reads (`alt=json`) is ignored.
#[derive(Debug, Default)]
struct Query {
    page_tokens: Vec<String>,
    machine_id: Option<String>,
    unit_name: Option<String>,
    content: bool,
    after: Option<u64>,
    unit: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::of(&parts.uri)
    }
}

impl Query {
    fn of(uri: &Uri) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| ApiError::bad(error.to_string()))?;
        let mut query = Self::default();
        for (key, value) in pairs.0 {
            match key.as_str() {
                "nextPageToken" => query.page_tokens.push(value),
                "machineID" => query.machine_id = Some(value),
                "unitName" => query.unit_name = Some(value),
                "unit" => query.unit = Some(value),
                "content" => query.content = value == "true",
                "after" => {
                    let number = value.parse().map_err(|_| {
                        ApiError::bad(format!("after={value:?} is not a registry revision"))
                    })?;
                    query.after = Some(number);
                }
                _ => {}
            }
        }
        Ok(query)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use axum::body::{Body, to_bytes};
    use tower::ServiceExt as _;

    use super::*;
    use crate::store::{Guard, LeaseId, Result, Snapshot, Store, Watch, Write};

    /// A store that never answers.
    struct Silent;

    #[async_trait]
    impl Store for Silent {
        async fn list(&self, _: &[&str]) -> Result<Snapshot> {
            std::future::pending().await
        }

        async fn commit(&self, _: Vec<Guard>, _: Vec<Write>) -> Result<u64> {
            std::future::pending().await
        }

        async fn watch(&self, _: &[&str], _: u64) -> Result<Box<dyn Watch>> {
            std::future::pending().await
        }

        async fn grant(&self, _: Duration) -> Result<LeaseId> {
            std::future::pending().await
        }

        async fn renew(&self, _: LeaseId) -> Result<()> {
            std::future::pending().await
        }

        async fn revoke(&self, _: LeaseId) -> Result<()> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_hangs_is_told_before_fleetctl_gives_up() {
        let router = router(Registry::new(Arc::new(Silent)), 100);
        let began = tokio::time::Instant::now();
        let request = Request::get("/fleet/v1/units").body(Body::empty());
        let response = router.oneshot(request.expect("a request")).await;
        let response = response.expect("an answer");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(began.elapsed() < Duration::from_secs(3));
        let body = to_bytes(response.into_body(), 1000).await.expect("a body");
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("the registry does not answer"), "{text}");
    }
}
