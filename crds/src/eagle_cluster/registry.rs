//! The registries: where they are and how to log in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{Rate, SecretName};

/// Which repositories Eagle serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Access {
    /// Those that their registry shows to anybody.
    #[default]
    Anonymous,
    /// Those too that the configured logins can read.
    Open,
}

/// One registry that needs more than its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registry {
    /// The registry as image references name it: `docker.io`, `registry.example.com:5000`.
    #[schemars(
        length(min = 1, max = 261),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(:[0-9]{1,5})?$")
    )]
    pub host: String,
    /// Where it is really reached, such as `http://10.0.0.7:5000` or a pull-through cache. Default: https on its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^/?#@\s]+/?$"))]
    pub endpoint: Option<String>,
    /// Where it is asked first, in this order, without a login; what none of them has or can give now is asked of the
    /// registry itself. They are trusted with what tags mean, and what they show is shown to every Pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        inner(length(max = 512), regex(pattern = r"^https?://[^/?#@\s]+/?$")),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub mirrors: Vec<String>,
    /// Most requests that one seeder, or one agent, has under way to it and its mirrors at once. Default: as many as to all
    /// registries together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1024))]
    pub max_requests: Option<u32>,
    /// Most bytes of blobs a second that one seeder, or one agent, takes from it and its mirrors. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<Rate>,
    /// A Secret in the operator's namespace whose key `ca.crt` holds, as PEM, the certificate authority of the
    /// registry's certificate, besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<SecretName>,
    /// A Secret of type kubernetes.io/basic-auth in the operator's namespace: the login seeders pull with. Needs
    /// `access: Open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<SecretName>,
}
