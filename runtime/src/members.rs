//! The members of a group of servers, by base URLs whose names stand for one address or for many.
//!
//! A name that stands for one address is that member's name for good, whatever its address becomes: so a StatefulSet's Pod
//! keeps what it owns when it is started anew. A name that stands for several, as a headless Service's does, means one
//! member an address. Everybody who resolves a name to the same addresses has the same members by the same names, and thus
//! the same owners (`core::ring`), without asking anyone; while two disagree for a moment, they do so about what the
//! members that have come or gone own, and about nothing else.
//!
//! Deliberately not here: whether a member is well, and who owns what.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

/// Most members of one group; more addresses than that are not used. Every one costs its users a connection.
const MOST: usize = 256;
/// The names are looked up again after so long: 10,000 nodes with three names each ask 1,000 times a second.
const REFRESH: Duration = Duration::from_secs(30);
/// And so soon after a look that told nothing of one of them.
const RETRY: Duration = Duration::from_secs(5);
/// Longest wait for one look at all of them.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nobody who starts waits longer than this for the first look.
const FIRST: Duration = Duration::from_secs(2);

/// The members' base URLs, as they change.
pub type Members = watch::Receiver<Arc<[String]>>;

/// One base URL of the configuration, and what its name stood for last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    url: String,
    // What is to be looked up; `None`: an address, or a name that means one server whatever it resolves to.
    name: Option<(String, u16)>,
    addresses: Vec<IpAddr>,
}

impl Source {
    fn new(url: &str) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        let name = url.parse::<hyper::Uri>().ok().and_then(|uri| {
            let host = uri.host()?;
            let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
            // A certificate is for a name, not for the addresses behind it.
            let is_plain = uri.scheme_str() == Some("http");
            (is_plain && !is_address).then(|| (host.to_owned(), uri.port_u16().unwrap_or(80)))
        });
        Self { url, name, addresses: Vec::new() }
    }

    /// The members that it stands for.
    fn members(&self) -> Vec<String> {
        // One server may have an address of each family: a member is counted once, by IPv4 where there is any.
        let has_v4 = self.addresses.iter().any(IpAddr::is_ipv4);
        let mut addresses: Vec<_> = self.addresses.iter().filter(|at| at.is_ipv4() == has_v4).collect();
        addresses.sort_unstable();
        addresses.dedup();
        match &self.name {
            Some((_, port)) if addresses.len() > 1 => {
                addresses.into_iter().map(|address| base_url(address, *port)).collect()
            }
            _ => vec![self.url.clone()],
        }
    }
}

fn base_url(address: &IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("http://{address}:{port}"),
        IpAddr::V6(address) => format!("http://[{address}]:{port}"),
    }
}

/// All members, each once.
fn all(sources: &[Source]) -> Arc<[String]> {
    let mut members: Vec<String> = Vec::new();
    for member in sources.iter().flat_map(Source::members) {
        if !members.contains(&member) {
            members.push(member);
        }
    }
    if members.len() > MOST {
        tracing::warn!(members = members.len(), "more than {MOST} members: the rest are not used");
        members.truncate(MOST);
    }
    members.into()
}

/// The members that are just these.
pub fn fixed(urls: &[String]) -> Members {
    watch::channel(all(&urls.iter().map(|url| Source::new(url)).collect::<Vec<_>>())).1
}

/// The members that `urls` (of the form `http://HOST:PORT`) stand for, looked up now and again and again until `shutdown`.
///
/// Guarantees: never empty unless `urls` is; a name that cannot be looked up stands for what it last stood for, at first for
/// itself. Waits for the first look, but not long.
pub async fn follow(urls: &[String], shutdown: CancellationToken) -> Members {
    follow_with(look_up, urls, shutdown).await
}

async fn look_up(name: String) -> std::io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
}

async fn follow_with<L, F>(look_up: L, urls: &[String], shutdown: CancellationToken) -> Members
where
    L: Fn(String) -> F + Send + Sync + 'static,
    F: Future<Output = std::io::Result<Vec<IpAddr>>> + Send + 'static,
{
    let mut sources: Vec<_> = urls.iter().map(|url| Source::new(url)).collect();
    if sources.iter().all(|source| source.name.is_none()) {
        return fixed(urls);
    }
    let mut is_known = refresh(&look_up, &mut sources, FIRST).await;
    let (tell, members) = watch::channel(all(&sources));
    tokio::spawn(shutdown.run_until_cancelled_owned(async move {
        loop {
            sleep(if is_known { REFRESH } else { RETRY }).await;
            is_known = refresh(&look_up, &mut sources, PATIENCE).await;
            let now = all(&sources);
            tell.send_if_modified(|known| {
                let is_new = *known != now;
                if is_new {
                    tracing::info!(members = ?now, "members have changed");
                    *known = now;
                }
                is_new
            });
        }
    }));
    members
}

/// Looks all names up at once; whether all could be.
async fn refresh<L, F>(look_up: &L, sources: &mut [Source], patience: Duration) -> bool
where
    L: Fn(String) -> F,
    F: Future<Output = std::io::Result<Vec<IpAddr>>> + Send + 'static,
{
    let mut looks = JoinSet::new();
    for (index, source) in sources.iter().enumerate() {
        if let Some((name, _)) = &source.name {
            let look = look_up(name.clone());
            looks.spawn(async move { (index, look.await) });
        }
    }
    let (deadline, mut missing) = (Instant::now() + patience, looks.len());
    while let Ok(Some(looked)) = timeout_at(deadline, looks.join_next()).await {
        match looked {
            Ok((index, Ok(addresses))) if !addresses.is_empty() => {
                sources[index].addresses = addresses;
                missing -= 1;
            }
            Ok((index, Ok(_))) => tracing::debug!(url = sources[index].url, "the name has no addresses"),
            Ok((index, Err(error))) => {
                tracing::debug!(url = sources[index].url, %error, "the name cannot be looked up");
            }
            Err(error) => tracing::error!(%error, "a look at a name ended abnormally"),
        }
    }
    missing == 0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use super::*;

    fn members(url: &str, addresses: &[&str]) -> Vec<String> {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Source { addresses, ..Source::new(url) }.members()
    }

    #[test]
    fn a_name_of_one_address_stays_and_one_of_many_means_each() {
        let pod = "http://eagle-seeder-0.eagle-seeder.eagle.svc:7050";
        assert_eq!(members(pod, &[]), [pod]);
        assert_eq!(members(pod, &["10.0.0.1"]), [pod]);
        assert_eq!(
            members("http://s:7050/", &["10.0.0.1", "fd00::1"]),
            ["http://s:7050"],
            "one in two families"
        );
        let both = ["http://10.0.0.1:7050", "http://10.0.0.2:7050"];
        assert_eq!(
            members("http://s:7050", &["10.0.0.2", "fd00::1", "10.0.0.1", "10.0.0.2", "fd00::2"]),
            both
        );
        assert_eq!(
            members("http://s", &["fd00::2", "fd00::1"]),
            ["http://[fd00::1]:80", "http://[fd00::2]:80"]
        );
        assert_eq!(members("https://s:1", &["10.0.0.1", "10.0.0.2"]), ["https://s:1"]);
    }

    #[test]
    fn addresses_are_not_looked_up() {
        for url in ["http://10.0.0.1:7050", "http://[fd00::1]:7050", "https://name:1"] {
            assert_eq!(Source::new(url).name, None, "{url}");
        }
        assert_eq!(Source::new("http://s:7050/").name, Some(("s".to_owned(), 7050)));
    }

    /// What names stand for.
    #[derive(Clone, Default)]
    struct Names(Arc<Mutex<HashMap<String, Vec<IpAddr>>>>);

    impl Names {
        fn set(&self, name: &str, addresses: &[&str]) {
            let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
            self.0.lock().unwrap().insert(name.to_owned(), addresses);
        }

        async fn follow(&self, urls: &[&str]) -> Members {
            let names = self.clone();
            let look_up = move |name: String| {
                let found = names.0.lock().unwrap().get(&name).cloned();
                async move { found.ok_or_else(|| std::io::Error::other("no such name")) }
            };
            let urls: Vec<_> = urls.iter().map(|url| (*url).to_owned()).collect();
            follow_with(look_up, &urls, CancellationToken::new()).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn members_come_and_go_and_a_name_that_is_lost_keeps_its_own() {
        let names = Names::default();
        names.set("s", &["10.0.0.1", "10.0.0.2"]);
        let mut members = names.follow(&["http://s:7", "http://other:7"]).await;
        assert_eq!(members.borrow().to_vec(), ["http://10.0.0.1:7", "http://10.0.0.2:7", "http://other:7"]);
        names.set("s", &["10.0.0.2", "10.0.0.3"]);
        members.changed().await.unwrap();
        assert_eq!(members.borrow().to_vec(), ["http://10.0.0.2:7", "http://10.0.0.3:7", "http://other:7"]);
        names.0.lock().unwrap().clear();
        let changed = tokio::time::timeout(REFRESH * 10, members.changed()).await;
        assert!(changed.is_err(), "{:?}", members.borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_service_that_hangs_holds_nobody_up() {
        let urls = ["http://s:7".to_owned()];
        let start = Instant::now();
        let hang = |_| std::future::pending();
        let members = follow_with(hang, &urls, CancellationToken::new()).await;
        assert_eq!((start.elapsed(), members.borrow().to_vec()), (FIRST, urls.to_vec()));
    }

    #[tokio::test]
    async fn what_needs_no_look_never_changes() {
        let urls = ["http://10.0.0.1:7/".to_owned(), "http://10.0.0.1:7".to_owned()];
        let mut members = follow(&urls, CancellationToken::new()).await;
        assert_eq!(members.borrow().to_vec(), ["http://10.0.0.1:7"]);
        assert!(members.changed().await.is_err());
    }
}
