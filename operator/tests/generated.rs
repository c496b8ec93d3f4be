//! Owns the files that are made from the operator's own tables: the chart's rules, the reference page of its rights.
//! `UPDATE_EXPECT=1 cargo test -p eagle-operator --test generated` writes them.

use eagle_operator::rbac::{self, Scope};
use expect_test::expect_file;

#[test]
fn rights_are_up_to_date() {
    expect_file!["../../helm/eagle/files/operator-rules.yaml"].assert_eq(&rbac::helm_rules(Scope::Cluster));
    expect_file!["../../helm/eagle/files/operator-own-rules.yaml"].assert_eq(&rbac::helm_rules(Scope::Own));
    expect_file!["../../helm/eagle/files/uninstall-rules.yaml"]
        .assert_eq(&rbac::helm_rules(Scope::Uninstall));
    expect_file!["../../helm/eagle/files/uninstall-own-rules.yaml"]
        .assert_eq(&rbac::helm_rules(Scope::UninstallOwn));
    expect_file!["../../docs/reference/rbac.md"].assert_eq(&rbac::markdown());
}
