//! A cluster that somebody else has made, as far as a test of Eagle has to do with it: its API, the image to install, and
//! images that its nodes can pull. Nothing here looks at a node.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cluster::Cluster;
use super::eagle as installed;
use super::kubectl::Kubectl;
use super::workload::publish;

/// The kubeconfig. It has a name of its own: nobody is to get Eagle because a test was started where `KUBECONFIG` is set.
const KUBECONFIG: &str = "EAGLE_KUBECONFIG";
/// The image of Eagle.
const IMAGE: &str = "EAGLE_IMAGE";
/// The images that are pulled, separated by commas.
const PULLED: &str = "EAGLE_TEST_IMAGES";
/// More of the EagleCluster's spec, as JSON.
const SPEC: &str = "EAGLE_CLUSTER_SPEC";
/// Images of Kubernetes' own tests: some 50 MB each, and all they do is to wait.
const PUBLIC: &str = "registry.k8s.io/e2e-test-images/agnhost:2.43,registry.k8s.io/e2e-test-images/agnhost:2.45,\
                      registry.k8s.io/e2e-test-images/agnhost:2.47";

/// See the module.
#[derive(Debug)]
pub struct Given {
    /// Its administrator.
    pub kubectl: Kubectl,
    /// Eagle's image, `REPOSITORY:TAG`, which its nodes can pull or have.
    pub image: String,
    /// Three images that its nodes can pull and do not have. Each runs until it is stopped.
    pub images: [String; 3],
    /// What the EagleCluster says of its own accord.
    pub spec: Value,
    _home: Option<TempDir>,
}

impl Given {
    /// The one that the environment names, if it names one.
    pub fn by_environment() -> anyhow::Result<Option<Self>> {
        Self::of(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Self>> {
        let Some(kubeconfig) = variable(KUBECONFIG) else { return Ok(None) };
        let image = variable(IMAGE).with_context(|| {
            format!(
                "{KUBECONFIG} is set, but not {IMAGE}: the image of Eagle that the cluster's nodes can pull"
            )
        })?;
        let images = variable(PULLED).unwrap_or_else(|| PUBLIC.to_owned());
        let images: Vec<String> = images.split(',').map(|image| image.trim().to_owned()).collect();
        let images: Result<[String; 3], _> = images.try_into();
        let images = images.map_err(|given: Vec<_>| {
            anyhow::anyhow!("{PULLED} names {} images, not three, separated by commas", given.len())
        })?;
        let spec = variable(SPEC).unwrap_or_else(|| "{}".to_owned());
        let spec: Value = serde_json::from_str(&spec).with_context(|| format!("{SPEC} is no JSON"))?;
        ensure!(spec.is_object(), "{SPEC} is no JSON object");
        let home = tempfile::tempdir()?;
        let kubectl = Kubectl::new(None, Path::new(&kubeconfig), home.path());
        Ok(Some(Self { kubectl, image, images, spec, _home: Some(home) }))
    }

    /// `cluster`, as if it were somebody else's.
    pub async fn lent(cluster: &Cluster) -> anyhow::Result<Self> {
        installed::push_image(cluster, "given").await?;
        let mut images = Vec::new();
        for (seed, name) in (100..).zip(["given/one", "given/two", "given/three"]) {
            images.push(publish(&cluster.site, name, 2, 4 << 20, seed).await?.reference);
        }
        let spec = json!({ "registries": installed::registries(cluster) });
        Ok(Self {
            kubectl: cluster.kubectl().clone(),
            image: installed::image("given"),
            images: images.try_into().map_err(|_: Vec<_>| anyhow::anyhow!("not three images"))?,
            spec,
            _home: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> anyhow::Result<Option<Given>> {
        let value = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Given::of(value)
    }

    #[test]
    fn a_cluster_is_given_by_a_name_that_nobody_sets_by_chance() {
        assert!(of(&[("KUBECONFIG", "/production")]).unwrap().is_none());
        let cluster = [(KUBECONFIG, "/some/file"), (IMAGE, "registry.example/eagle:1")];
        let given = of(&cluster).unwrap().unwrap();
        assert_eq!((given.images.len(), given.spec), (3, json!({})));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let refused = |variables: &[(&str, &str)]| format!("{:#}", of(variables).unwrap_err());
        let (cluster, image) = ((KUBECONFIG, "/some/file"), (IMAGE, "registry.example/eagle:1"));
        assert!(refused(&[cluster]).contains("not EAGLE_IMAGE"));
        assert!(refused(&[cluster, image, (PULLED, "a, b")]).contains("names 2 images"));
        assert!(refused(&[cluster, image, (SPEC, "{")]).contains("EAGLE_CLUSTER_SPEC is no JSON"));
        assert!(refused(&[cluster, image, (SPEC, "[]")]).contains("no JSON object"));
    }
}
