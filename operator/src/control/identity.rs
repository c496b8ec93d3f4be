//! Which node a token belongs to: the API server says, by `TokenReview`.
//!
//! The kubelet asks for the agent's token on behalf of its Pod, so the API server puts the Pod's node into it
//! (Kubernetes 1.30). Whoever holds an agent's token can speak for that agent's node and for no other.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::Semaphore;

use super::AUDIENCE;

/// Reviews under way at once: ten thousand agents that come back together are some seconds of work for the API server,
/// not one blow.
const REVIEWS: usize = 64;
/// The claim with the node's name.
const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: String,
    /// The agent's ServiceAccount, without its namespace.
    pub account: String,
}

/// Why nobody is let in.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The API server could not be asked.
    #[error("cannot review a token")]
    Ask(#[source] Box<kube::Error>),
    /// The token is none of this cluster's, has expired, or is for somebody else.
    #[error("the token is not valid: {0}")]
    Invalid(String),
    /// A valid token, but not of an agent in the operator's namespace.
    #[error("{0} is no agent of this operator")]
    Stranger(String),
    /// The token does not say which node its Pod is on.
    #[error("the token names no node: agents need Kubernetes 1.30 or newer")]
    NoNode,
}

/// Asks whose a token is.
pub trait Reviewer: Send + Sync + 'static {
    /// Whose `token` is.
    fn review(&self, token: String) -> impl Future<Output = Result<Identity, ReviewError>> + Send;
}

/// Asks the API server.
pub struct ApiReviewer {
    client: Client,
    namespace: String,
    places: Semaphore,
}

impl ApiReviewer {
    /// For agents in `namespace`.
    pub fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace, places: Semaphore::new(REVIEWS) }
    }
}

impl Reviewer for ApiReviewer {
    async fn review(&self, token: String) -> Result<Identity, ReviewError> {
        // Never closed, so never an error; and if it were, the bound alone would be lost.
        let _place = self.places.acquire().await.ok();
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token), audiences: Some(vec![AUDIENCE.to_owned()]) },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let reviewed = api.create(&PostParams::default(), &review).await;
        let reviewed = reviewed.map_err(|error| ReviewError::Ask(Box::new(error)))?;
        identify(&reviewed.status.unwrap_or_default(), &self.namespace)
    }
}

/// What the API server's answer means.
pub fn identify(status: &TokenReviewStatus, namespace: &str) -> Result<Identity, ReviewError> {
    let for_us = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
    if status.authenticated != Some(true) || !for_us {
        let reason = status.error.clone().unwrap_or_else(|| "not for this audience".to_owned());
        return Err(ReviewError::Invalid(reason));
    }
    let user = status.user.clone().unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.strip_prefix(namespace));
    let account =
        account.and_then(|rest| rest.strip_prefix(':')).filter(|account| account.ends_with("-agent"));
    let Some(account) = account else { return Err(ReviewError::Stranger(name)) };
    let node = user.extra.as_ref().and_then(|extra| extra.get(NODE_CLAIM)?.first().cloned());
    let node = node.filter(|node| !node.is_empty()).ok_or(ReviewError::NoNode)?;
    Ok(Identity { node, account: account.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(user: &str, audience: &str, node: Option<&str>) -> TokenReviewStatus {
        let extra = node.map(|node| serde_json::json!({ NODE_CLAIM: [node] }));
        serde_json::from_value(serde_json::json!({
            "authenticated": true, "audiences": [audience], "user": { "username": user, "extra": extra },
        }))
        .unwrap()
    }

    #[test]
    fn an_agent_speaks_for_its_node() {
        let agent = status("system:serviceaccount:eagle-system:main-agent", AUDIENCE, Some("n1"));
        let identity = identify(&agent, "eagle-system").unwrap();
        assert_eq!(identity, Identity { node: "n1".into(), account: "main-agent".into() });
    }

    #[test]
    fn everybody_else_is_refused() {
        let refusal = |user, audience, node| {
            identify(&status(user, audience, node), "eagle-system").unwrap_err().to_string()
        };
        let agent = "system:serviceaccount:eagle-system:main-agent";
        assert!(refusal(agent, "https://kubernetes.default.svc", Some("n1")).contains("not valid"));
        assert!(refusal(agent, AUDIENCE, None).contains("1.30"));
        for stranger in [
            "system:serviceaccount:default:main-agent",
            "system:serviceaccount:eagle-system:main-seeder",
            "system:serviceaccount:eagle-systemx:main-agent",
            "admin",
        ] {
            assert!(refusal(stranger, AUDIENCE, Some("n1")).contains("no agent"), "{stranger}");
        }
        let error = identify(&TokenReviewStatus::default(), "eagle-system").unwrap_err();
        assert!(matches!(error, ReviewError::Invalid(_)));
    }
}
