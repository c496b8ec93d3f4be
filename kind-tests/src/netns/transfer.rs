//! containerd's transfer service (`containerd.services.transfer.v1`, since 1.7), which its CRI pulls by, too: the way to
//! have the daemon itself fetch an image and not unpack it.
//!
//! `ctr content fetch` is another: there the command line's process fetches and hands every byte to the daemon, and
//! asks ten times a second how far it is, which no node of a cluster does.
//!
//! The few messages used here are written out with the field numbers of its proto files, as those of [`super::cri`].

use std::path::Path;

use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

/// The containerd namespace of CRI's images.
const NAMESPACE: &str = "k8s.io";

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TransferRequest {
    #[prost(message, optional, tag = "1")]
    source: Option<Any>,
    #[prost(message, optional, tag = "2")]
    destination: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct OciRegistry {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(message, optional, tag = "2")]
    resolver: Option<RegistryResolver>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RegistryResolver {
    #[prost(string, tag = "3")]
    host_dir: String,
}

/// Nothing in it says that the image is to be unpacked.
#[derive(Clone, PartialEq, prost::Message)]
struct ImageStore {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    platforms: Vec<Platform>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Platform {
    #[prost(string, tag = "1")]
    os: String,
    #[prost(string, tag = "2")]
    architecture: String,
}

/// Has the containerd behind `channel` fetch `image` by the hosts in `hosts`.
pub(super) async fn fetch(channel: Channel, image: &str, hosts: &Path) -> anyhow::Result<()> {
    let resolver = RegistryResolver { host_dir: hosts.display().to_string() };
    let registry = OciRegistry { reference: image.to_owned(), resolver: Some(resolver) };
    let platforms = vec![Platform { os: "linux".to_owned(), architecture: "amd64".to_owned() }];
    let store = ImageStore { name: image.to_owned(), platforms };
    let any = |name: &str, value| Some(Any { type_url: format!("containerd.types.transfer.{name}"), value });
    let message = TransferRequest {
        source: any("OCIRegistry", registry.encode_to_vec()),
        destination: any("ImageStore", store.encode_to_vec()),
    };
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let path = PathAndQuery::from_static("/containerd.services.transfer.v1.Transfer/Transfer");
    let answer = client.unary(request, path, ProstCodec::<TransferRequest, Empty>::default()).await;
    answer.map(drop).map_err(|status| anyhow::anyhow!("Transfer: {}", status.message()))
}
