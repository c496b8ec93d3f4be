//! Owns every generated file of the API: the YAML beside this crate, the copy in the Helm chart, the reference page.
//! `UPDATE_EXPECT=1 cargo test -p eagle-crds --test generated` writes them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use eagle_crds::{definitions, reference};
use expect_test::expect_file;

const HEAD: &str = "# Generated from the types in crds/src. Do not edit.\n";

fn yaml(definition: &impl serde::Serialize) -> String {
    // Through JSON, so that the keys come in one order whatever the order of the fields.
    let value = serde_json::to_value(definition).unwrap();
    format!("{HEAD}{}", serde_saphyr::to_string(&value).unwrap())
}

#[test]
fn yaml_and_reference_are_up_to_date() {
    let [(_, cluster), (_, prefetch)] = definitions();
    expect_file!["../eaglecluster.yaml"].assert_eq(&yaml(&cluster));
    expect_file!["../imageprefetch.yaml"].assert_eq(&yaml(&prefetch));
    expect_file!["../../helm/eagle-crds/files/eaglecluster.yaml"].assert_eq(&yaml(&cluster));
    expect_file!["../../helm/eagle-crds/files/imageprefetch.yaml"].assert_eq(&yaml(&prefetch));
    expect_file!["../../docs/reference/crds.md"].assert_eq(&reference::markdown(&[&cluster, &prefetch]));
}

#[test]
fn the_yaml_means_what_the_types_say() {
    for (name, definition) in definitions() {
        let read: serde_json::Value = serde_saphyr::from_str(&yaml(&definition)).unwrap();
        assert_eq!(read, serde_json::to_value(&definition).unwrap(), "{name}");
    }
}
