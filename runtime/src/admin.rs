//! The admin endpoints of one component: `/live`, `/ready`, `/metrics`, `/config`.
//!
//! Small and bounded, because whoever can reach the port can ask. They say what is, and change nothing; what else a
//! component tells or lets change at run time it merges in as routes of its own, within the same bounds.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::context::Context;
use crate::metrics::CONTENT_TYPE;

mod serve;

/// The effective configuration as `/config` shows it: TOML in which every secret is already replaced. Cheap to clone;
/// every clone shows the same.
#[derive(Clone, Debug)]
pub struct ShownConfig {
    text: Arc<Mutex<Arc<str>>>,
}

#[derive(Clone)]
struct Admin {
    context: Context,
    config: ShownConfig,
}

impl ShownConfig {
    /// Shows `text`.
    pub fn new(text: &str) -> Self {
        Self { text: Arc::new(Mutex::new(text.into())) }
    }

    /// Shows `text` from now on: the configuration was read again.
    pub fn set(&self, text: &str) {
        *self.text.lock() = text.into();
    }
}

/// The routes, with a configuration that does not change. A component's own routes are merged into what this returns.
pub fn router(context: Context, config: &str) -> Router {
    router_showing(context, ShownConfig::new(config))
}

/// The routes, with a configuration that may be read again.
pub fn router_showing(context: Context, config: ShownConfig) -> Router {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/config", get(show_config))
        .with_state(Admin { context, config })
}

/// Serves `router` until `context` shuts down; answers under way are finished. At most 32 connections at once, each
/// with five seconds for a request's head and 64 KiB for its body; one without a request for so long is closed.
pub async fn serve(listener: TcpListener, router: Router, context: Context) -> std::io::Result<()> {
    serve::serve(listener, router, context.shutdown.token()).await;
    Ok(())
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
    let text = admin.config.text.lock().to_string();
    ([(header::CONTENT_TYPE, "application/toml")], text).into_response()
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
        let config = ShownConfig::new("zone = \"a\"\n");
        let router = router_showing(context.clone(), config.clone());
        assert_eq!(get(&router, "/live").await, (200, "live\n".into()));
        assert_eq!(get(&router, "/ready").await, (503, "starting\n".into()));
        context.readiness.set("mirror", true, "");
        assert_eq!(get(&router, "/ready").await, (200, "ready\n".into()));
        assert_eq!(get(&router, "/config").await, (200, "zone = \"a\"\n".into()));
        config.set("zone = \"b\"\n");
        assert_eq!(get(&router, "/config").await, (200, "zone = \"b\"\n".into()));
        let (status, text) = get(&router, "/metrics").await;
        assert!(status == 200 && text.ends_with("# EOF\n"), "{text}");
    }
}
