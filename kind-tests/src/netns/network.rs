//! A switch and the namespaces behind it, each on a link whose rate is limited in both directions.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use eagle_core::size::Rate;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpListener, TcpStream};

use super::place::Place;

/// Bytes that may leave a link at once. At least what one timer tick at the fastest rate used here lets through.
const BURST: &str = "256kb";
/// How long a packet may wait for its turn before it is dropped: the buffer of a switch port.
const LATENCY: &str = "50ms";
/// The hardware address of nobody on the switch.
const NOBODY: &str = "02:00:00:00:00:fe";
/// Longest wait for a connection into a namespace.
const CONNECT: Duration = Duration::from_secs(5);

/// The switch.
#[derive(Debug)]
pub struct Network {
    switch: Namespace,
}

/// A machine's network.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    part: String,
    address: Ipv4Addr,
}

impl Network {
    /// A switch without links.
    pub fn new(place: &Place) -> anyhow::Result<Self> {
        allow_cubic()?;
        let switch = Namespace::new(place, "switch", Ipv4Addr::UNSPECIFIED)?;
        switch.ip("link add br0 type bridge")?;
        switch.ip("link set br0 up")?;
        Ok(Self { switch })
    }

    /// A namespace called `part` at 10.9.`address`, behind a link of `rate` each way.
    pub fn attach(
        &self,
        place: &Place,
        part: &str,
        address: [u8; 2],
        rate: Rate,
    ) -> anyhow::Result<Namespace> {
        let namespace = Namespace::new(place, part, Ipv4Addr::new(10, 9, address[0], address[1]))?;
        let (port, switch) = (port(part), &self.switch.name);
        namespace.ip(&format!("link add eth0 type veth peer name {port} netns {switch}"))?;
        namespace.ip(&format!("addr add {}/16 dev eth0", namespace.address))?;
        namespace.ip("link set eth0 up")?;
        self.switch.ip(&format!("link set {port} master br0 up"))?;
        self.limit(&namespace, rate)?;
        Ok(namespace)
    }

    /// Changes the rate of a link, both ways.
    pub fn limit(&self, namespace: &Namespace, rate: Rate) -> anyhow::Result<()> {
        let Some(bytes) = rate.0 else { return Ok(()) };
        let rate = format!("rate {}bit burst {BURST} latency {LATENCY}", bytes.get().saturating_mul(8));
        namespace.tool("tc", &format!("qdisc replace dev eth0 root tbf {rate}"))?;
        self.switch.tool("tc", &format!("qdisc replace dev {} root tbf {rate}", port(&namespace.part)))
    }
}

fn port(part: &str) -> String {
    format!("v-{part}")
}

impl Namespace {
    fn new(place: &Place, part: &str, address: Ipv4Addr) -> anyhow::Result<Self> {
        let namespace = Self { name: place.namespace(part), part: part.to_owned(), address };
        run(Command::new("ip").args(["netns", "add", &namespace.name]))?;
        namespace.ip("link set lo up")?;
        // What servers run; this machine's own choice may differ.
        namespace.inside(|| std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "cubic"))?;
        Ok(namespace)
    }

    /// Its address on the switch.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its name within the fleet.
    pub fn part(&self) -> &str {
        &self.part
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A connection made from within this namespace.
    pub async fn connect(&self, to: SocketAddr) -> anyhow::Result<TcpStream> {
        let namespace = self.clone();
        let connect = move || namespace.inside(|| std::net::TcpStream::connect_timeout(&to, CONNECT));
        let stream = tokio::task::spawn_blocking(connect).await??;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(TcpStream::from_std(stream)?)
    }

    /// A listener within this namespace, at its address.
    pub fn listen(&self, port: u16) -> anyhow::Result<TcpListener> {
        let listener = self.inside(|| std::net::TcpListener::bind((self.address, port)))?;
        listener.set_nonblocking(true)?;
        Ok(TcpListener::from_std(listener)?)
    }

    /// From now on nothing that it sends to `others` arrives, so that no connection between them goes on or is made. To
    /// both sides it looks as if the other were not there: nobody says so.
    pub fn cut_off(&self, others: &[Self]) -> anyhow::Result<()> {
        others.iter().try_for_each(|other| {
            self.ip(&format!("neigh replace {} lladdr {NOBODY} nud permanent dev eth0", other.address))
        })
    }

    /// What it sends to `others` arrives again.
    pub fn join(&self, others: &[Self]) -> anyhow::Result<()> {
        others.iter().try_for_each(|other| self.ip(&format!("neigh del {} dev eth0", other.address)))
    }

    /// Runs `line`, a program and its arguments separated by blanks, within this namespace.
    pub fn run(&self, line: &str) -> anyhow::Result<()> {
        run(super::process::enter(self).args(line.split(' ')))
    }

    /// Sets a setting of this namespace's network, such as `ipv4/ip_forward`.
    pub fn set(&self, setting: &str, value: &str) -> anyhow::Result<()> {
        let file = Path::new("/proc/sys/net").join(setting);
        self.inside(|| std::fs::write(&file, value)).with_context(|| format!("cannot set {setting}"))
    }

    /// Bytes received and sent on its link so far, all headers included.
    pub fn traffic(&self) -> anyhow::Result<(u64, u64)> {
        let text = self.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix("eth0:"));
        let fields: Vec<u64> = line.unwrap_or_default().split_whitespace().flat_map(str::parse).collect();
        match fields.as_slice() {
            [received, .., sent, _, _, _, _, _, _, _] => Ok((*received, *sent)),
            _ => anyhow::bail!("no counters of eth0 in {}", self.part),
        }
    }

    /// Does `work` on a thread of its own that has moved into this namespace. A socket made there stays there.
    fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> anyhow::Result<T> {
        let file = File::open(self.path()).with_context(|| format!("no namespace {}", self.name))?;
        let moved = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        let done = std::thread::scope(|scope| scope.spawn(moved).join());
        let done = done.map_err(|_| anyhow::anyhow!("panicked inside {}", self.part))?;
        done.with_context(|| format!("inside {}", self.part))
    }

    fn ip(&self, arguments: &str) -> anyhow::Result<()> {
        self.tool("ip", arguments)
    }

    fn tool(&self, tool: &str, arguments: &str) -> anyhow::Result<()> {
        run(Command::new(tool).args(["-n", &self.name]).args(arguments.split(' ')))
    }
}

/// Cubic may be chosen inside namespaces only if the machine allows it to everybody.
fn allow_cubic() -> anyhow::Result<()> {
    const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
    let allowed = std::fs::read_to_string(ALLOWED).context("cannot read the allowed congestion controls")?;
    if !allowed.split_whitespace().any(|name| name == "cubic") {
        std::fs::write(ALLOWED, format!("{} cubic", allowed.trim())).context("cannot allow cubic")?;
    }
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    ensure!(output.status.success(), "{shown}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
