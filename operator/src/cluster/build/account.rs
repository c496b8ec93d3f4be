//! Service accounts: an identity for each part, without any right, without an API token. That of the seeders may stand for
//! a role in a cloud, which lets them use their bucket.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::cluster::validate::ValidatedCluster;
use crate::meta::Part;

/// The ServiceAccount of `part`.
pub(super) fn build(cluster: &ValidatedCluster, part: Part) -> ServiceAccount {
    let mut metadata = cluster.owner.meta(cluster.owner.name_of(part), Some(part));
    if part == Part::Seeder && !cluster.bucket.annotations.is_empty() {
        metadata.annotations.get_or_insert_default().extend(cluster.bucket.annotations.clone());
    }
    ServiceAccount { metadata, automount_service_account_token: Some(false), ..ServiceAccount::default() }
}
