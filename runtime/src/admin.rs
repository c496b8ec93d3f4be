//! The admin endpoints of one component: `/live`, `/ready`, `/metrics`, `/config`.
//!
//! Small and bounded: a few requests at once, no bodies. They say what is, and change nothing; a component adds what
//! may be changed at run time as routes of its own.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tower::limit::ConcurrencyLimitLayer;

use crate::context::Context;
use crate::metrics::CONTENT_TYPE;

/// Requests answered at once; further ones wait. A probe and a few scrapers need no more.
const AT_ONCE: usize = 16;

#[derive(Clone)]
struct Admin {
    context: Context,
    config: Arc<str>,
}

/// The routes; `config` is the effective configuration with every secret already replaced.
pub fn router(context: Context, config: &str) -> Router {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/config", get(show_config))
        .with_state(Admin { context, config: config.into() })
        .layer(ConcurrencyLimitLayer::new(AT_ONCE))
}

/// Serves `router` until `context` shuts down.
pub async fn serve(listener: TcpListener, router: Router, context: Context) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(context.shutdown.token().cancelled_owned()).await
}

async fn ready(State(admin): State<Admin>) -> Response {
    let problems = admin.context.readiness.problems();
    if problems.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n").into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.context.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn show_config(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, "application/toml")], admin.config.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt as _;

    async fn get(router: &Router, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn says_what_is() {
        let context = Context::new();
        let router = router(context.clone(), "zone = \"a\"\n");
        assert_eq!(get(&router, "/live").await, (200, "live\n".into()));
        assert_eq!(get(&router, "/ready").await, (503, "starting\n".into()));
        context.readiness.set("mirror", true, "");
        assert_eq!(get(&router, "/ready").await, (200, "ready\n".into()));
        assert_eq!(get(&router, "/config").await, (200, "zone = \"a\"\n".into()));
        let (status, text) = get(&router, "/metrics").await;
        assert!(status == 200 && text.ends_with("# EOF\n"), "{text}");
    }
}
