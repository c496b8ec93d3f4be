//! Server-side apply and pruning, for any kind.
//!
//! One field manager per controller: what it applied before and omits now is removed by the API server, so one manager
//! must never have two writers.

use std::collections::BTreeSet;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why an object is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused it or could not be reached.
    #[error("cannot apply {kind} {name}")]
    Apply {
        /// The object's kind.
        kind: String,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// What is left over cannot be found.
    #[error("cannot list {kind}s")]
    List {
        /// The kind.
        kind: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// What is left over cannot be removed.
    #[error("cannot delete {kind} {name}")]
    Delete {
        /// The object's kind.
        kind: String,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Applies objects of one namespace as one manager.
#[derive(Clone)]
pub struct Applier<'a> {
    /// The API server.
    pub client: &'a Client,
    /// The field manager.
    pub manager: &'static str,
    /// The namespace.
    pub namespace: &'a str,
}

/// A namespaced kind known at compile time.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

impl Applier<'_> {
    /// Makes `object` be as it says; answers it as it then is.
    pub async fn apply<K: Object>(&self, object: &K) -> Result<K, ApplyError> {
        let name = object.name_any();
        let parameters = PatchParams::apply(self.manager).force();
        let patched = self.api::<K>().patch(&name, &parameters, &Patch::Apply(object)).await;
        patched.map_err(|source| ApplyError::Apply { kind: kind::<K>(), name, source: Box::new(source) })
    }

    /// [`Applier::apply`] for each of `objects`, in their order.
    pub async fn apply_all<K: Object>(&self, objects: Vec<K>) -> Result<Vec<K>, ApplyError> {
        let mut applied = Vec::with_capacity(objects.len());
        for object in &objects {
            applied.push(self.apply(object).await?);
        }
        Ok(applied)
    }

    /// Deletes what `query` finds, `owner` owns, and is not among `kept`.
    pub async fn prune<K: Object>(&self, query: &str, owner: &str, kept: &[K]) -> Result<(), ApplyError> {
        let list = self.api::<K>().list(&ListParams::default().labels(query)).await;
        let list = list.map_err(|source| ApplyError::List { kind: kind::<K>(), source: Box::new(source) })?;
        let kept: BTreeSet<String> = kept.iter().map(ResourceExt::name_any).collect();
        for object in list {
            let ours = object.owner_references().iter().any(|reference| reference.uid == owner);
            let name = object.name_any();
            if !ours || kept.contains(&name) || object.meta().deletion_timestamp.is_some() {
                continue;
            }
            self.delete::<K>(&name).await?;
            tracing::info!(kind = kind::<K>(), name, "deleted what is no longer wanted");
        }
        Ok(())
    }

    async fn delete<K: Object>(&self, name: &str) -> Result<(), ApplyError> {
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match self.api::<K>().delete(name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(source) => {
                Err(ApplyError::Delete { kind: kind::<K>(), name: name.to_owned(), source: Box::new(source) })
            }
        }
    }

    fn api<K: Object>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), self.namespace)
    }
}

fn kind<K: Resource<DynamicType = ()>>() -> String {
    K::kind(&()).into_owned()
}
