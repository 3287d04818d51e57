//! `discovery`: describes the API to programs that generate clients from a description.

use axum::http::header::CONTENT_TYPE;
use axum::routing::{MethodRouter, get};

use super::error::ApiError;
use super::{Api, body};

/// The document of fleet 1.0, with `$ENDPOINT` for the reader to replace. Additions to fleet 1.0
/// are marked in it.
const DOCUMENT: &str = include_str!("discovery.json");

/// Returns the resource itself. It is the only one where fleet 1.0 refused other methods with 400.
pub(super) fn document() -> MethodRouter<Api> {
    get(([(CONTENT_TYPE, body::JSON)], DOCUMENT))
        .fallback(|| async { ApiError::bad("only HTTP GET supported against this resource") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::super::{resources, router};
    use super::*;
    use crate::registry::Registry;
    use crate::store::Embedded;

    fn described() -> Value {
        serde_json::from_str(DOCUMENT).expect("the document is JSON")
    }

    fn members(value: &Value) -> Vec<&Value> {
        value
            .as_object()
            .map(|members| members.values().collect())
            .unwrap_or_default()
    }

    fn methods(document: &Value) -> Vec<&Value> {
        let resources = members(&document["resources"]).into_iter();
        resources
            .flat_map(|resource| members(&resource["methods"]))
            .collect()
    }

    fn text(value: &Value) -> &str {
        value.as_str().expect("a text")
    }

    #[test]
    fn every_resource_is_described_and_nothing_else() {
        let document = described();
        let described: BTreeSet<String> = methods(&document)
            .into_iter()
            .map(|method| format!("{} /{}", text(&method["httpMethod"]), text(&method["path"])))
            .collect();
        let served: BTreeSet<String> = resources()
            .into_iter()
            .flat_map(|(path, methods, _)| {
                let methods = methods
                    .split([',', ' '])
                    .filter(|word| !matches!(*word, "" | "and"));
                methods
                    .map(move |method| format!("{method} {path}"))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(described, served);
    }

    #[tokio::test]
    async fn every_described_method_answers() {
        let router = router(Registry::new(Arc::new(Embedded::in_memory())), 100);
        for method in methods(&described()) {
            let mut path = text(&method["path"]).to_owned();
            for parameter in method["parameterOrder"].as_array().into_iter().flatten() {
                path = path.replace(&format!("{{{}}}", text(parameter)), "a.service");
            }
            let request = Request::builder()
                .method(text(&method["httpMethod"]))
                .uri(format!("/fleet/v1/{path}"))
                .header(CONTENT_TYPE, body::JSON);
            let request = request.body(Body::from("[]")).expect("a request");
            let Ok(answer) = router.clone().oneshot(request).await;
            let status = answer.status();
            let answer = to_bytes(answer.into_body(), usize::MAX).await;
            let answer = String::from_utf8_lossy(&answer.expect("a body")).into_owned();
            // The unit does not exist, and the message says so. An unknown path has an empty
            // message.
            let refused = status.is_client_error()
                && status != StatusCode::METHOD_NOT_ALLOWED
                && !answer.contains(r#""message":"""#);
            assert!(
                status.is_success() || refused,
                "{}: {status} {answer}",
                method["id"]
            );
        }
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        let document = described();
        let mut left = vec![&document];
        let mut seen = 0;
        while let Some(value) = left.pop() {
            if let Some(Value::String(name)) = value.get("$ref") {
                assert_eq!(document["schemas"][name]["id"], **name);
                seen += 1;
            }
            match value {
                Value::Array(items) => left.extend(items),
                value => left.extend(members(value)),
            }
        }
        assert!(seen > 10, "only {seen} references were found");
    }
}
