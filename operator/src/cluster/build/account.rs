//! Service accounts: an identity for each part, without any right, without an API token.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::cluster::validate::ValidatedCluster;
use crate::meta::Part;

/// The ServiceAccount of `part`.
pub(super) fn build(cluster: &ValidatedCluster, part: Part) -> ServiceAccount {
    ServiceAccount {
        metadata: cluster.owner.meta(cluster.owner.name_of(part), Some(part)),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
