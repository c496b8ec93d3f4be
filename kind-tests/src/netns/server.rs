//! An HTTP server, reached from within a namespace.

use std::net::SocketAddr;

use anyhow::Context as _;
use http::{Method, Request, header};

use super::network::Namespace;
use crate::http::{Answer, Body, exchange, nothing};

/// A server, reached from within a namespace.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where requests are sent from.
    pub from: Namespace,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Sends one request; the whole answer.
    pub async fn send(&self, mut request: Request<Body>) -> anyhow::Result<Answer> {
        let shown = format!("{} http://{}{}", request.method(), self.address, request.uri());
        request.headers_mut().insert(header::HOST, self.address.to_string().parse()?);
        let answer = async {
            let stream = self.from.connect(self.address).await?;
            exchange(stream, request).await
        };
        answer.await.context(shown)
    }

    /// GET of `path`.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Request::builder().method(Method::GET).uri(path).body(nothing())?).await
    }
}
