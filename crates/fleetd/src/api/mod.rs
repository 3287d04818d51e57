//! API v1 as JSON over HTTP: the resources of fleet 1.0, and additions that `discovery.json` marks.
//!
//! Each answer is read from the registry for its request, at one revision. Nothing is cached, so
//! nothing becomes stale, and an idle API costs nothing.

mod body;
mod discovery;
mod error;
mod events;
mod explain;
mod long_poll;
mod machines;
mod page;
mod plan;
mod registry;
mod reports;
mod rollouts;
mod scheduling;
mod state;
mod status;
mod units;
mod view;

use std::panic::resume_unwind;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, SERVER};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_request, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use fleet_core::access::Right;
use fleet_core::api::V1;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use self::error::ApiError;
use crate::registry::Registry;

/// The prefix of the same API for the oldest clients.
const V1_ALPHA: &str = "/v1-alpha";

/// The time limit of an answer. fleetctl waits three seconds, as in fleet 1.0. An error in time is
/// worth more than a late answer from a registry with a hanging member.
const ANSWER: Duration = Duration::from_millis(2500);

/// The name of the API in reasons and in the journal. Requests do not name their user yet.
const BY: &str = "the API";

/// The state that the handlers share.
#[derive(Clone)]
struct Api {
    registry: Registry,
    page_limit: u16,
}

/// A resource: its path below the prefix, its methods in the words of a refusal, and its handler.
type Resource = (&'static str, &'static str, MethodRouter<Api>);

/// Returns all resources. `discovery.json` describes each of them.
fn resources() -> Vec<Resource> {
    vec![
        (
            "/machines",
            "GET and PATCH",
            get(machines::list).patch(machines::patch),
        ),
        ("/machines/{machineID}", "POST", post(scheduling::post)),
        ("/units", "GET", get(units::list)),
        (
            "/units/{unitName}",
            "GET, PUT and DELETE",
            get(units::get).put(units::put).delete(units::delete),
        ),
        ("/state", "GET", get(state::list)),
        ("/state/{unitName}", "GET", get(state::get)),
        ("/status", "GET", get(status::cluster)),
        ("/status/{unitName}", "GET", get(status::unit)),
        ("/rollouts", "GET", get(rollouts::list)),
        (
            "/rollouts/{unitName}",
            "GET and POST",
            get(rollouts::get).post(rollouts::order),
        ),
        (
            "/rollouts/{unitName}/history",
            "GET",
            get(rollouts::history),
        ),
        (
            "/rollouts/{unitName}/history/{number}",
            "GET",
            get(rollouts::revision),
        ),
        ("/plan", "POST", post(plan::post)),
        ("/explain/{unitName}", "GET", get(explain::get)),
        ("/events", "GET", get(events::list)),
        (
            "/registry",
            "GET and POST",
            get(registry::get).post(registry::accept),
        ),
    ]
}

/// Returns the API of that registry. `page_limit` is the number of rows on a page (`token_limit`).
pub fn router(registry: Registry, page_limit: u16) -> Router {
    let api = Api {
        registry,
        page_limit,
    };
    let warn = from_fn_with_state(api.clone(), warn_of_held);
    let mut v1 = Router::new().route("/discovery", discovery::document());
    for (path, methods, answers) in resources() {
        let refused = move || async move {
            let text = format!("only {methods} supported against this resource");
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text)
        };
        v1 = v1.route(path, answers.fallback(refused));
    }
    let nothing_here = any(|| async { ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "") });
    Router::new()
        .route("/", nothing_here.clone())
        .route(V1, nothing_here.clone())
        .route(V1_ALPHA, nothing_here)
        .nest(V1, v1.clone())
        .nest(V1_ALPHA, v1)
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "") })
        .layer(from_fn(in_time))
        .layer(warn)
        .layer(map_request(body::receive))
        .layer(DefaultBodyLimit::max(body::MAX))
        .layer(map_response(finish))
        .with_state(api)
}

/// Returns the right that a request needs.
pub fn right_of(request: &Request) -> Right {
    // A plan changes nothing. It is a POST because it has a body.
    let path = request.uri().path();
    let resource = [V1, V1_ALPHA].iter().find_map(|v1| path.strip_prefix(v1));
    let plans = resource == Some("/plan") && request.method() == Method::POST;
    if plans || request.method() == Method::GET || request.method() == Method::HEAD {
        Right::Read
    } else {
        Right::Change
    }
}

/// Returns 403 with that sentence, after the body has arrived. A client that is still sending may
/// not read the answer. The body is not kept.
pub async fn refuse(request: Request, why: String) -> Response {
    body::pass_over(request).await;
    let mut response = ApiError::new(StatusCode::FORBIDDEN, why).into_response();
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    finish(response).await
}

/// Runs work of some milliseconds on a thread of its own, so that other tasks of this thread need
/// not wait for it.
async fn apart<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> T {
    let made = spawn_blocking(make).await;
    made.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// The number of answers computed at once that place every unit on every machine. In a large fleet,
/// each of them occupies a core for a while.
static HEAVY: Semaphore = Semaphore::const_new(2);

/// Runs work of some seconds like [`apart`], but only a few at once. The work keeps its place even
/// if the client disconnects.
async fn heavy<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> T {
    let turn = HEAVY.acquire().await;
    apart(move || {
        let _turn = turn;
        make()
    })
    .await
}

/// Returns 503 if the registry does not answer in time. A request that waits for news (`after`) has
/// no such limit.
async fn in_time(request: Request, next: Next) -> Response {
    let waits = Query::of(request.uri()).is_ok_and(|query| query.after.is_some());
    if waits {
        return next.run(request).await;
    }
    let answer = tokio::time::timeout(ANSWER, next.run(request)).await;
    answer.unwrap_or_else(|_| {
        let text = "the registry does not answer; a change may have been made anyway. \
                    The status line of fleetd says more: systemctl status fleet";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    })
}

/// Warns readers if this machine does not follow what the answer shows.
async fn warn_of_held(State(api): State<Api>, request: Request, next: Next) -> Response {
    let reads = request.method() == Method::GET && !request.uri().path().ends_with("/registry");
    let mut response = next.run(request).await;
    let warning = registry::warning(&api.registry.trust());
    // The text may contain words from the registry.
    let warning = warning.and_then(|text| HeaderValue::from_str(&units::shown(&text)).ok());
    if let Some(warning) = warning.filter(|_| reads) {
        response.headers_mut().append(units::WARNING, warning);
    }
    response
}

/// Names the server in the answer, and gives errors of the framework the usual error body.
async fn finish(response: Response) -> Response {
    let json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == body::JSON);
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

/// The parts of a query that handlers read. Parameters without a reader (`alt=json`) are ignored.
#[derive(Debug, Default)]
struct Query {
    page_tokens: Vec<String>,
    /// The largest number of rows on a page. An addition to fleet 1.0.
    limit: Option<u16>,
    machine_id: Option<String>,
    unit_name: Option<String>,
    content: bool,
    details: bool,
    /// Whether one answer has all rows, line by line. An addition to fleet 1.0.
    stream: bool,
    /// Whether units are listed without their current states. An addition to fleet 1.0.
    stateless: bool,
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
                "limit" => {
                    let number = value.parse().ok().filter(|limit| *limit > 0);
                    let number: u16 = number.ok_or_else(|| {
                        ApiError::bad(format!("limit={value:?} is not a number of rows"))
                    })?;
                    query.limit = Some(number.min(page::ROWS_MAX));
                }
                "machineID" => query.machine_id = Some(value),
                "unitName" => query.unit_name = Some(value),
                "unit" => query.unit = Some(value),
                "content" => query.content = value == "true",
                "details" => query.details = value == "true",
                "stream" => query.stream = value == "true",
                "currentState" => query.stateless = value == "false",
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

        async fn create_lease(&self, _: Duration) -> Result<LeaseId> {
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
    async fn hanging_registry_is_reported_before_fleetctl_gives_up() {
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
