//! The reference page of the API, made from the same schemas that the API server gets.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};

/// All kinds as one Markdown page.
pub fn markdown(definitions: &[&CustomResourceDefinition]) -> String {
    let mut page = String::from(
        "# Kubernetes API\n\n\
         Generated from the types in `crds/`. On a cluster, `kubectl explain eaglecluster.spec --recursive` shows the \
         same.\n",
    );
    for definition in definitions {
        kind(&mut page, definition);
    }
    page
}

fn kind(page: &mut String, definition: &CustomResourceDefinition) {
    let spec = &definition.spec;
    let Some(version) = spec.versions.first() else { return };
    let Some(schema) = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()) else {
        return;
    };
    line(page, &format!("\n## {}\n", spec.names.kind));
    line(page, schema.description.as_deref().unwrap_or_default());
    let short = spec.names.short_names.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ");
    line(page, &format!("\n`{}/{}`, {}, short name `{short}`.", spec.group, version.name, spec.scope));
    for part in ["spec", "status"] {
        let Some(schema) = schema.properties.as_ref().and_then(|properties| properties.get(part)) else {
            continue;
        };
        line(page, &format!("\n### {} {part}\n", spec.names.kind));
        line(page, "| field | type | default | meaning |\n|---|---|---|---|");
        fields(page, schema, "", 0);
        rules(page, schema);
    }
}

// Kubernetes' own types are known to the reader and documented elsewhere.
const FOREIGN: [&str; 2] = ["tolerations[]", "conditions[]"];

fn fields(page: &mut String, schema: &JSONSchemaProps, path: &str, depth: usize) {
    // The API has no recursive type; the bound only keeps a mistake in it from running away.
    if depth > 8 || FOREIGN.iter().any(|foreign| path.ends_with(foreign)) {
        return;
    }
    for (name, field) in schema.properties.iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let required = schema.required.iter().flatten().any(|required| required == name);
        row(page, &path, field, required);
        fields(page, field, &path, depth + 1);
        if let Some(item) = item(field) {
            fields(page, item, &format!("{path}[]"), depth + 1);
        }
    }
}

fn row(page: &mut String, path: &str, field: &JSONSchemaProps, required: bool) {
    let has_fields = field.properties.is_some();
    let default = match &field.default {
        Some(value) if !has_fields => format!("`{}`", serde_json::to_string(&value.0).unwrap_or_default()),
        None if required => "required".to_owned(),
        _ => String::new(),
    };
    let text = field.description.as_deref().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
    line(page, &format!("| `{path}` | {} | {default} | {text} |", type_name(field)));
}

fn type_name(field: &JSONSchemaProps) -> String {
    if let Some(values) = &field.enum_ {
        let names =
            values.iter().map(|value| value.0.as_str().unwrap_or("null")).filter(|name| *name != "null");
        return names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ");
    }
    if field.x_kubernetes_int_or_string == Some(true) {
        return "number or text".to_owned();
    }
    match (field.type_.as_deref(), item(field)) {
        (Some("array"), Some(item)) => format!("list of {}", type_name(item)),
        (Some("object"), _) if field.properties.is_none() => "map".to_owned(),
        (Some(name), _) => name.to_owned(),
        (None, _) => String::new(),
    }
}

fn item(field: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match field.items.as_ref()? {
        JSONSchemaPropsOrArray::Schema(schema) => Some(schema),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

fn rules(page: &mut String, schema: &JSONSchemaProps) {
    let rules = schema.x_kubernetes_validations.iter().flatten().filter_map(|rule| rule.message.as_deref());
    let rules: Vec<_> = rules.map(|message| format!("- {message}")).collect();
    if !rules.is_empty() {
        line(page, &format!("\nRefused at once, with these messages:\n\n{}", rules.join("\n")));
    }
}

fn line(page: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{text}");
}
