//! What the operator is told on its command line, or by the environment its chart sets.

use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Agents send their tokens there: never in the clear.
const SCHEME: &str = "https://";

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
    /// How agents reach that, as a base URL, https://HOST:PORT; default: the chart's Service in the namespace
    #[arg(long, env = "EAGLE_CONTROL_URL", value_parser = base_url)]
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
        let service = format!("https://{}:{}", self.service(), self.control_listen.port());
        self.control_url.clone().unwrap_or(service)
    }

    /// The host names and addresses for which the control channel's certificate is.
    pub fn control_names(&self) -> BTreeSet<String> {
        let url = self.control_url();
        let host = url.trim_start_matches(SCHEME).trim_end_matches('/');
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        BTreeSet::from([self.service(), host.trim_matches(['[', ']']).to_owned()])
    }

    fn service(&self) -> String {
        format!("eagle-operator.{}.svc", self.namespace)
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

fn base_url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix(SCHEME).map(|rest| rest.trim_end_matches('/'));
    let port = host.and_then(|host| host.rsplit_once(':')).and_then(|(_, port)| port.parse::<u16>().ok());
    let is_one = host.is_some_and(|host| !host.contains(['/', '?', '#', '@', ' '])) && port.is_some();
    is_one.then(|| text.to_owned()).ok_or_else(|| format!("{text:?} is not https://HOST:PORT"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(url: &str) -> Result<Args, clap::Error> {
        Command::try_parse_from(["eagle", "--control-url", url]).map(|command| command.args)
    }

    #[test]
    fn the_certificate_is_for_where_agents_connect() {
        let names = |url: &str| parse(url).unwrap().control_names().into_iter().collect::<Vec<_>>();
        let service = "eagle-operator.eagle-system.svc";
        assert_eq!(names("https://10.0.0.7:7090"), ["10.0.0.7", service]);
        assert_eq!(names("https://[fd00::7]:7090/"), [service, "fd00::7"]);
        let default = Command::try_parse_from(["eagle"]).unwrap().args;
        assert_eq!(default.control_url(), format!("https://{service}:7090"));
        assert_eq!(default.control_names().into_iter().collect::<Vec<_>>(), [service]);
    }

    #[test]
    fn tokens_are_not_sent_in_the_clear() {
        for wrong in ["http://10.0.0.7:7090", "10.0.0.7:7090", "https://10.0.0.7", "https://a:1/b"] {
            assert!(
                parse(wrong).is_err_and(|error| error.to_string().contains("https://HOST:PORT")),
                "{wrong}"
            );
        }
    }
}
