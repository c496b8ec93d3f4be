//! Keeps the channel's certificates: in a Secret, which all replicas share, and in use, without a restart when they are
//! renewed.
//!
//! The leader alone writes. What is deleted or broken by hand is put back from memory, so that agents go on believing.
//! What certificates there must be is decided by [`crate::authority`].

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use eagle_control::tls::{Certificate, TlsError};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::authority::{AuthorityError, Material, renew};
use crate::clock::Clock;

/// The Secret's name.
pub const SECRET: &str = "eagle-operator-tls";
/// Its field manager.
const MANAGER: &str = "eagle-operator/control";
/// The Deployment of the chart, which the Secret goes with.
const DEPLOYMENT: &str = "eagle-operator";
/// The Secret is looked at this often: no watch tells of it, because watching takes the right to read all of them.
const LOOK: Duration = Duration::from_mins(5);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(5);

/// Why the certificates are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The Secret cannot be read.
    #[error("cannot get Secret {SECRET}")]
    Get(#[source] Box<kube::Error>),
    /// Who the Secret belongs to cannot be found out.
    #[error("cannot get Deployment {DEPLOYMENT}")]
    Owner(#[source] Box<kube::Error>),
    /// The Secret cannot be written.
    #[error("cannot write Secret {SECRET}")]
    Write(#[source] Box<kube::Error>),
    /// There is no certificate to write.
    #[error("cannot renew the certificates")]
    Renew(#[source] AuthorityError),
    /// What was made or found cannot be shown.
    #[error("cannot use the certificate")]
    Show(#[source] TlsError),
}

/// Where the Secret is, and for which names.
pub struct Place {
    secrets: Api<Secret>,
    deployments: Api<Deployment>,
    names: BTreeSet<String>,
    clock: Clock,
}

/// The certificates, in use.
pub struct Keys {
    place: Place,
    material: Material,
    certificate: Certificate,
    bundle: watch::Sender<Arc<str>>,
}

impl Place {
    /// In `namespace`; agents reach the operator by `names`.
    pub fn new(client: Client, namespace: &str, names: BTreeSet<String>, clock: Clock) -> Self {
        let secrets = Api::namespaced(client.clone(), namespace);
        Self { secrets, deployments: Api::namespaced(client, namespace), names, clock }
    }

    /// One look: what is there, or made, or put back. `known` is what there was.
    async fn round(&self, known: Option<&Material>) -> Result<Material, KeysError> {
        let found = self.secrets.get_opt(SECRET).await.map_err(|error| KeysError::Get(Box::new(error)))?;
        let kept = found.as_ref().and_then(|secret| {
            let data = secret.data.clone().unwrap_or_default();
            let read = Material::from_data(&data);
            read.inspect_err(
                |error| tracing::warn!(%error, "Secret {SECRET} is of no use and is written anew"),
            )
            .ok()
        });
        let base = kept.as_ref().or(known);
        match renew(base, &self.names, self.clock.now()).map_err(KeysError::Renew)? {
            Some(renewed) => {
                self.write(found.as_ref(), &renewed).await?;
                tracing::info!(
                    authorities = renewed.authorities.len(),
                    "the control channel has a new certificate"
                );
                Ok(renewed)
            }
            None => match (kept, known) {
                (None, Some(known)) => {
                    self.write(found.as_ref(), known).await?;
                    tracing::info!("Secret {SECRET} is put back");
                    Ok(known.clone())
                }
                (Some(kept), _) => Ok(kept),
                // Without anything to begin with something is always made.
                (None, None) => Err(KeysError::Renew(AuthorityError::Clock)),
            },
        }
    }

    async fn write(&self, found: Option<&Secret>, material: &Material) -> Result<(), KeysError> {
        let owner = self.deployments.get_opt(DEPLOYMENT).await;
        let owner = owner.map_err(|error| KeysError::Owner(Box::new(error)))?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                labels: Some([("app.kubernetes.io/name".to_owned(), "eagle".to_owned())].into()),
                // Whoever changed it since it was read is not overwritten.
                resource_version: found.and_then(ResourceExt::resource_version),
                owner_references: owner.as_ref().map(|deployment| vec![reference(deployment)]),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(material.to_data()),
            ..Secret::default()
        };
        let parameters = PatchParams::apply(MANAGER).force();
        let written = self.secrets.patch(SECRET, &parameters, &Patch::Apply(&secret)).await;
        written.map(|_| ()).map_err(|error| KeysError::Write(Box::new(error)))
    }
}

/// It goes when the operator is uninstalled.
fn reference(deployment: &Deployment) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: deployment.name_any(),
        uid: deployment.uid().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

impl Keys {
    /// Tries until there are certificates.
    pub async fn begin(place: Place) -> Self {
        loop {
            match Self::once(&place).await {
                Ok((material, certificate)) => {
                    let bundle = watch::Sender::new(Arc::from(material.bundle()));
                    return Self { place, material, certificate, bundle };
                }
                Err(error) => warn(&error),
            }
            sleep(AGAIN).await;
        }
    }

    async fn once(place: &Place) -> Result<(Material, Certificate), KeysError> {
        let material = place.round(None).await?;
        let shown = Certificate::new(&material.shown.certificate, &material.shown.key);
        Ok((material, shown.map_err(KeysError::Show)?))
    }

    /// What the operator shows: it changes by itself.
    pub fn certificate(&self) -> Certificate {
        self.certificate.clone()
    }

    /// The authorities that agents are to trust, PEM, as they change.
    pub fn bundle(&self) -> watch::Receiver<Arc<str>> {
        self.bundle.subscribe()
    }

    /// Renews in time, until the future is dropped.
    pub async fn keep(mut self) -> Infallible {
        let mut pause = LOOK;
        loop {
            sleep(pause).await;
            pause = match self.look().await {
                Ok(()) => LOOK,
                Err(error) => {
                    warn(&error);
                    AGAIN
                }
            };
        }
    }

    async fn look(&mut self) -> Result<(), KeysError> {
        let material = self.place.round(Some(&self.material)).await?;
        if material == self.material {
            return Ok(());
        }
        // Agents hear of an authority before anything that it has signed is shown: it signs only later.
        self.bundle.send_if_modified(|bundle| {
            let new: Arc<str> = Arc::from(material.bundle());
            let changed = *bundle != new;
            *bundle = new;
            changed
        });
        self.certificate
            .replace(&material.shown.certificate, &material.shown.key)
            .map_err(KeysError::Show)?;
        self.material = material;
        Ok(())
    }
}

fn warn(error: &KeysError) {
    tracing::warn!(error = %crate::report::text(error), "the control channel's certificates are looked at again");
}
