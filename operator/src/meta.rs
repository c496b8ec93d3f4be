//! Names, labels, owners: what every object that the operator makes has in common.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

/// The value of `app.kubernetes.io/managed-by`, by which the operator finds what it has made.
pub const MANAGED_BY: &str = "eagle-operator";
/// The prefix of Eagle's own annotations.
pub const HASH_ANNOTATION: &str = "eagle-p2p.io/config-hash";

/// One part of an EagleCluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// On every node.
    Agent,
    /// Pulls from registries.
    Seeder,
    /// Knows who has what.
    Tracker,
}

impl Part {
    /// As in names and labels, and the subcommand of `eagle` that runs it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Seeder => "seeder",
            Self::Tracker => "tracker",
        }
    }
}

/// Who an object is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The EagleCluster's name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Where its objects are.
    pub namespace: String,
}

impl Owner {
    /// The name of the objects of `part`.
    pub fn name_of(&self, part: Part) -> String {
        format!("{}-{}", self.name, part.as_str())
    }

    /// Metadata of an object called `name`; `part` is for objects that belong to one part.
    pub fn meta(&self, name: String, part: Option<Part>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels(part)),
            owner_references: Some(vec![self.reference()]),
            ..ObjectMeta::default()
        }
    }

    /// The labels of an object.
    pub fn labels(&self, part: Option<Part>) -> BTreeMap<String, String> {
        let mut labels = self.selector_labels(part);
        labels.insert("app.kubernetes.io/managed-by".to_owned(), MANAGED_BY.to_owned());
        labels
    }

    /// The labels that Pods of `part` are selected by. They can never change.
    pub fn selector_labels(&self, part: Option<Part>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            ("app.kubernetes.io/name".to_owned(), "eagle".to_owned()),
            ("app.kubernetes.io/instance".to_owned(), self.name.clone()),
        ]);
        if let Some(part) = part {
            labels.insert("app.kubernetes.io/component".to_owned(), part.as_str().to_owned());
        }
        labels
    }

    /// Selects the Pods of `part`.
    pub fn selector(&self, part: Part) -> LabelSelector {
        LabelSelector { match_labels: Some(self.selector_labels(Some(part))), ..LabelSelector::default() }
    }

    /// Finds everything made for this EagleCluster.
    pub fn query(&self) -> String {
        format!("app.kubernetes.io/managed-by={MANAGED_BY},app.kubernetes.io/instance={}", self.name)
    }

    fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: format!("{}/{}", eagle_crds::GROUP, eagle_crds::VERSION),
            kind: "EagleCluster".to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }
}
