//! Step 4: makes the cluster be what was built, then removes what is left over.

use std::marker::PhantomData;
use std::slice;

use kube::Client;

use super::validate::ValidatedCluster;
use super::{Applied, MANAGER, Prepared, Resources};
use crate::apply::{Applier, ApplyError};

/// Applies all of it.
pub(super) async fn apply(
    client: &Client,
    cluster: &ValidatedCluster,
    resources: Resources<Prepared>,
) -> Result<Resources<Applied>, ApplyError> {
    let applier = Applier { client, manager: MANAGER, namespace: &cluster.owner.namespace };
    // Without `..`: a new kind of resource does not compile until it is applied here.
    let Resources {
        service_accounts,
        secrets,
        config_maps,
        services,
        network_policies,
        disruption_budgets,
        trackers,
        seeders,
        agents,
        state: _,
    } = resources;
    // What Pods need to start comes before what makes Pods; what seeders ask comes before seeders, and what agents ask
    // before agents, so that on the first day nobody looks for somebody who is not there yet.
    let applied = Resources {
        service_accounts: applier.apply_all(service_accounts).await?,
        secrets: applier.apply_all(secrets).await?,
        config_maps: applier.apply_all(config_maps).await?,
        services: applier.apply_all(services).await?,
        network_policies: applier.apply_all(network_policies).await?,
        disruption_budgets: applier.apply_all(disruption_budgets).await?,
        trackers: applier.apply(&trackers).await?,
        seeders: applier.apply(&seeders).await?,
        agents: applier.apply(&agents).await?,
        state: PhantomData,
    };
    prune(&applier, cluster, &applied).await?;
    Ok(applied)
}

/// Removes what an earlier spec, or an earlier version of the operator, made and this one does not. Exactly the kinds
/// that build makes, but for Secrets: their names do not depend on the spec, and finding others would take the right to
/// list every Secret there is.
async fn prune(
    applier: &Applier<'_>,
    cluster: &ValidatedCluster,
    applied: &Resources<Applied>,
) -> Result<(), ApplyError> {
    let (query, owner) = (&cluster.owner.query(), cluster.owner.uid.as_str());
    let stateful_sets = [applied.trackers.clone(), applied.seeders.clone()];
    applier.prune(query, owner, slice::from_ref(&applied.agents)).await?;
    applier.prune(query, owner, &stateful_sets).await?;
    applier.prune(query, owner, &applied.disruption_budgets).await?;
    applier.prune(query, owner, &applied.network_policies).await?;
    applier.prune(query, owner, &applied.services).await?;
    applier.prune(query, owner, &applied.config_maps).await?;
    applier.prune(query, owner, &applied.service_accounts).await
}
