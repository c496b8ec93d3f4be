//! A runtime behind its socket.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use eagle_control::message::Login;
use eagle_core::digest::Digest;
use eagle_core::name::Reference;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_prost::ProstCodec;

use super::message::{
    AuthConfig, FieldMask, Image, ImageSpec, ImageStatusRequest, ImageStatusResponse, ListImagesRequest,
    ListImagesResponse, NamedImage, PullImageRequest, PullImageResponse, RemoveImageRequest,
    RemoveImageResponse, Target, UpdateImageRequest, UpdateImageResponse, VersionRequest, VersionResponse,
};
use super::{ANSWER, CriError, Runtime, Version};

/// Where the images of Kubernetes are in containerd, whose own API has namespaces.
const NAMESPACE: &str = "k8s.io";
/// The label that keeps an image in containerd's CRI plugin, and its value.
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");
/// The label that says who pinned it: what others pin is theirs.
const OURS: (&str, &str) = ("eagle-p2p.io/pinned", "true");

/// Longest wait for containerd's own event about a pin.
const NOTICE: Duration = Duration::from_secs(1);

/// A client of one runtime. It connects when it is asked something, and again after the runtime was restarted.
#[derive(Clone, Debug)]
pub struct CriClient {
    channel: Channel,
}

impl CriClient {
    /// A client of the runtime at `socket`. To be called within a tokio runtime.
    pub fn new(socket: &Path) -> Self {
        let socket = socket.to_owned();
        let connect = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The address is not used: the connector knows where to go.
        let endpoint = Endpoint::from_static("http://runtime").connect_timeout(ANSWER);
        Self { channel: endpoint.connect_with_connector_lazy(connect) }
    }

    /// An answer that needs no network.
    async fn ask<Q, A>(&self, what: &'static str, method: &'static str, question: Q) -> Result<A, CriError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.call(what, method, question, Some(ANSWER)).await
    }

    async fn status(&self, image: &str) -> Result<Option<Image>, CriError> {
        let question = ImageStatusRequest { image: Some(ImageSpec { image: image.to_owned() }) };
        let method = "/runtime.v1.ImageService/ImageStatus";
        let answer: ImageStatusResponse = self.ask("say whether it has an image", method, question).await?;
        Ok(answer.image)
    }

    /// Whether the runtime's CRI side takes notice of a pin, which comes to it as an event. Seen of containerd 2.3, and
    /// not of 1.6.
    async fn shows_pin(&self, image: &str) -> Result<bool, CriError> {
        let mut tick = tokio::time::interval(NOTICE / 10);
        for _ in 0..10 {
            tick.tick().await;
            if self.status(image).await?.is_none_or(|image| image.pinned) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn call<Q, A>(
        &self,
        what: &'static str,
        method: &'static str,
        question: Q,
        patience: Option<Duration>,
    ) -> Result<A, CriError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let call = async {
            let mut client = tonic::client::Grpc::new(self.channel.clone());
            client.ready().await.map_err(CriError::Unreachable)?;
            let mut request = Request::new(question);
            request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
            let path = PathAndQuery::from_static(method);
            let answer = client.unary(request, path, ProstCodec::<Q, A>::default()).await;
            let refused = |status: tonic::Status| {
                let message = status.message().to_owned();
                CriError::Refused { what, code: status.code(), message }
            };
            answer.map(tonic::Response::into_inner).map_err(refused)
        };
        match patience {
            Some(patience) => tokio::time::timeout(patience, call).await.map_err(|_| CriError::Silent)?,
            None => call.await,
        }
    }
}

fn spec(image: &Reference) -> ImageSpec {
    ImageSpec { image: image.to_string() }
}

#[async_trait]
impl Runtime for CriClient {
    async fn version(&self) -> Result<Version, CriError> {
        let method = "/runtime.v1.RuntimeService/Version";
        let answer: VersionResponse = self.ask("say its version", method, VersionRequest {}).await?;
        Ok(Version { name: answer.runtime_name, version: answer.runtime_version })
    }

    async fn pull(&self, image: &Reference, login: Option<&Login>) -> Result<(), CriError> {
        // As the kubelet does it: without a server's address, so that a mirror may be offered the login, too.
        let auth = login
            .map(|login| AuthConfig { username: login.username.clone(), password: login.password.clone() });
        let question = PullImageRequest { image: Some(spec(image)), auth };
        let method = "/runtime.v1.ImageService/PullImage";
        self.call("pull the image", method, question, None).await.map(|_: PullImageResponse| ())
    }

    async fn digests(&self, image: &Reference) -> Result<Option<Vec<Digest>>, CriError> {
        Ok(self.status(&image.to_string()).await?.map(|image| {
            let digests = image.repo_digests.iter().filter_map(|name| name.split_once('@'));
            digests.filter_map(|(_, digest)| digest.parse().ok()).collect()
        }))
    }

    async fn remove(&self, image: &Reference) -> Result<(), CriError> {
        let question = RemoveImageRequest { image: Some(spec(image)) };
        let method = "/runtime.v1.ImageService/RemoveImage";
        self.ask("remove an image", method, question).await.map(|_: RemoveImageResponse| ())
    }

    async fn pinned(&self) -> Result<Vec<String>, CriError> {
        let question = ListImagesRequest { filters: vec![format!("labels.{:?}=={}", OURS.0, OURS.1)] };
        let method = "/containerd.services.images.v1.Images/List";
        let answer: ListImagesResponse = self.ask("list pinned images", method, question).await?;
        Ok(answer.images.into_iter().map(|image| image.name).collect())
    }

    async fn set_pinned(&self, image: &str, pinned: bool) -> Result<(), CriError> {
        // An empty value takes a label away.
        let value = |(key, value): (&str, &str)| {
            (key.to_owned(), if pinned { value.to_owned() } else { String::new() })
        };
        let paths = [PINNED, OURS].map(|(key, _)| format!("labels.{key}"));
        let labels = [PINNED, OURS].map(value).into();
        let named = NamedImage { name: image.to_owned(), labels, target: Some(Target {}) };
        let question =
            UpdateImageRequest { image: Some(named), update_mask: Some(FieldMask { paths: paths.into() }) };
        let method = "/containerd.services.images.v1.Images/Update";
        let _: UpdateImageResponse = self.ask("pin an image", method, question).await?;
        if pinned && !self.shows_pin(image).await? {
            tracing::warn!(
                image,
                "the runtime does not tell the kubelet that the image is pinned: it may be collected"
            );
        }
        Ok(())
    }
}
