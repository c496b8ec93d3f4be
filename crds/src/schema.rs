//! What the schemas need besides what their types say: rules about an object's name, and no number format that the API
//! server does not know.
//!
//! An `EagleCluster`'s name becomes part of the names of Services, Pods and labels, which Kubernetes limits.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, ValidationRule,
};

/// The longest name of an `EagleCluster`: a label value and a DNS label hold 63 characters, and the longest name made
/// from it is `NAME-tracker-NN` with a StatefulSet's 11 characters of revision behind it: 63 − 11 − 11 = 41.
pub const MAX_CLUSTER_NAME: usize = 40;

/// `definition`, its objects' names limited to what can be part of a Service's name.
pub fn with_short_name(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let rule = ValidationRule {
        rule: format!(
            "self.metadata.name.size() <= {MAX_CLUSTER_NAME} && self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')"
        ),
        message: Some(format!(
            "metadata.name becomes part of Services' names: at most {MAX_CLUSTER_NAME} lower-case letters, digits and -, a letter first"
        )),
        ..ValidationRule::default()
    };
    for schema in schemas(&mut definition) {
        schema.x_kubernetes_validations.get_or_insert_default().push(rule.clone());
    }
    definition
}

/// `definition` without Rust's unsigned formats, about which the API server warns whoever installs it. The bounds say
/// the same.
pub fn with_known_formats(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    schemas(&mut definition).for_each(drop_unsigned);
    definition
}

fn schemas(definition: &mut CustomResourceDefinition) -> impl Iterator<Item = &mut JSONSchemaProps> {
    let versions = definition.spec.versions.iter_mut();
    versions.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut())
}

fn drop_unsigned(schema: &mut JSONSchemaProps) {
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = None;
    }
    schema.properties.iter_mut().flatten().for_each(|(_, field)| drop_unsigned(field));
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        drop_unsigned(item);
    }
}
