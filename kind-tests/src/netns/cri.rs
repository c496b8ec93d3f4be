//! The image half of the Container Runtime Interface (`runtime.v1.ImageService` of `cri-api`), as the kubelet asks it.
//!
//! The few messages used here are written out with the field numbers of its proto file: bindings generated at build
//! time would make `protoc` a condition of building these tests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_prost::ProstCodec;

/// Longest wait for one call. A pull over the slowest link used here takes half of it.
const CALL: Duration = Duration::from_mins(4);

/// A client of one runtime.
#[derive(Clone, Debug)]
pub struct Cri {
    channel: Channel,
}

/// A registry login, as a pull secret carries it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Login {
    /// The user.
    #[prost(string, tag = "1")]
    pub username: String,
    /// The password.
    #[prost(string, tag = "2")]
    pub password: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PullImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
    #[prost(message, optional, tag = "2")]
    auth: Option<Login>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PullImageResponse {
    #[prost(string, tag = "1")]
    image_ref: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageStatusRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageStatusResponse {
    #[prost(message, optional, tag = "1")]
    image: Option<Present>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Present {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RemoveImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RemoveImageResponse {}

impl Cri {
    /// Connects to the runtime at `socket`.
    pub async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let socket: PathBuf = socket.to_owned();
        let connect = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The address is not used: the connector knows where to go.
        let endpoint = Endpoint::from_static("http://runtime").timeout(CALL);
        Ok(Self { channel: endpoint.connect_with_connector(connect).await? })
    }

    /// The connection to the runtime, which has other services besides.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Pulls `image`; the id that the runtime gave it.
    pub async fn pull(&self, image: &str, login: Option<Login>) -> anyhow::Result<String> {
        let request = PullImageRequest { image: spec(image), auth: login };
        let response: PullImageResponse = self.call("PullImage", request).await?;
        Ok(response.image_ref)
    }

    /// Whether `image` is there, unpacked.
    pub async fn has(&self, image: &str) -> anyhow::Result<bool> {
        let response: ImageStatusResponse =
            self.call("ImageStatus", ImageStatusRequest { image: spec(image) }).await?;
        Ok(response.image.is_some_and(|image| !image.id.is_empty()))
    }

    /// Removes `image` and everything that only it needed.
    pub async fn remove(&self, image: &str) -> anyhow::Result<()> {
        let _: RemoveImageResponse =
            self.call("RemoveImage", RemoveImageRequest { image: spec(image) }).await?;
        Ok(())
    }

    async fn call<Q, A>(&self, method: &str, request: Q) -> anyhow::Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.context("the runtime is gone")?;
        let path = PathAndQuery::try_from(format!("/runtime.v1.ImageService/{method}"))?;
        let answer = client.unary(tonic::Request::new(request), path, ProstCodec::<Q, A>::default()).await;
        Ok(answer.map_err(|status| anyhow::anyhow!("{method}: {}", status.message()))?.into_inner())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "message fields are optional in protobuf")]
fn spec(image: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: image.to_owned() })
}
