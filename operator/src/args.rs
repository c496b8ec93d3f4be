//! What the operator is told on its command line, or by the environment its chart sets.

use std::net::SocketAddr;

/// The operator's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The namespace the operator runs in; everything it makes for EagleClusters is made there
    #[arg(long, env = "EAGLE_NAMESPACE", default_value = "eagle-system")]
    pub namespace: String,
    /// The image of Eagle's parts where an EagleCluster names none: the operator's own
    #[arg(long, env = "EAGLE_IMAGE", default_value = "ghcr.io/eagle-p2p/eagle:latest")]
    pub image: String,
    /// This replica's name in leader election and events
    #[arg(long, env = "EAGLE_POD", default_value = "eagle-operator")]
    pub identity: String,
    /// Where agents connect
    #[arg(long, env = "EAGLE_CONTROL_LISTEN", default_value = "0.0.0.0:7090")]
    pub control_listen: SocketAddr,
    /// How agents reach that, as a base URL; default: the chart's Service in the namespace
    #[arg(long, env = "EAGLE_CONTROL_URL")]
    pub control_url: Option<String>,
    /// Where /live, /ready and /metrics are served
    #[arg(long, env = "EAGLE_ADMIN_LISTEN", default_value = "0.0.0.0:7073")]
    pub admin_listen: SocketAddr,
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,kube=debug
    #[arg(long, env = "EAGLE_LOG", default_value = "info")]
    pub log: String,
    /// Run without leader election; for a single replica outside a cluster
    #[arg(long, env = "EAGLE_NO_LEADER_ELECTION")]
    pub no_leader_election: bool,
    /// Instead of running: delete every EagleCluster, wait so long for agents to leave their nodes, and end
    #[arg(long, value_name = "SECONDS")]
    pub uninstall: Option<u64>,
}

impl Args {
    /// How agents reach the control channel.
    pub fn control_url(&self) -> String {
        let service = format!("http://eagle-operator.{}.svc:{}", self.namespace, self.control_listen.port());
        self.control_url.clone().unwrap_or(service)
    }

    /// All of it as TOML, for `/config`. There is no secret among it.
    pub fn shown(&self) -> String {
        let lines: [(&str, toml::Value); 8] = [
            ("namespace", self.namespace.clone().into()),
            ("image", self.image.clone().into()),
            ("identity", self.identity.clone().into()),
            ("control_listen", self.control_listen.to_string().into()),
            ("control_url", self.control_url().into()),
            ("admin_listen", self.admin_listen.to_string().into()),
            ("log", self.log.clone().into()),
            ("leader_election", (!self.no_leader_election).into()),
        ];
        let table: toml::Table = lines.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        table.to_string()
    }
}
