//! librqbit's way: its program twice, one with the blob and one without, told of each other.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde::Deserialize;

use super::eagle::get;
use super::{Bed, Once};
use crate::foreign::rqbit;
use crate::program::{Program, free_port};
use crate::wait::until;

/// Longest wait for a check of the blob, and for a transfer.
const PATIENCE: Duration = Duration::from_secs(300);
/// Progress is looked at this often.
const LOOK: Duration = Duration::from_millis(20);

/// What its HTTP API says of a torrent.
#[derive(Deserialize)]
struct Stats {
    state: String,
    finished: bool,
}

struct Session {
    program: Program,
    peer: SocketAddr,
    api: SocketAddr,
}

/// One transfer from session to session, each a process; all of a process on one thread if `single`.
pub(super) async fn transfer(bed: &Bed, torrent: &Path, single: bool) -> anyhow::Result<Once> {
    let folder = bed.blob.parent().unwrap_or(bed.directory.path());
    let sender = Session::start(bed, torrent, folder, &Given { single, from: None })?;
    // It checks the blob first.
    sender.finished().await?;
    let (sent, begun) = (sender.program.cpu_seconds()?, Instant::now());
    let given = Given { single, from: Some(sender.peer) };
    let receiver = Session::start(bed, torrent, &bed.folder("rqbit-received")?, &given)?;
    receiver.finished().await?;
    Ok(Once {
        seconds: begun.elapsed().as_secs_f64(),
        sender_cpu_s: sender.program.cpu_seconds()? - sent,
        receiver_cpu_s: receiver.program.cpu_seconds()?,
    })
}

/// What differs between two sessions.
struct Given {
    single: bool,
    from: Option<SocketAddr>,
}

impl Session {
    fn start(bed: &Bed, torrent: &Path, folder: &Path, given: &Given) -> anyhow::Result<Self> {
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (peer, api) = (local(free_port()?), local(free_port()?));
        let mut command = Command::new(rqbit()?);
        command.args(["-v", "error", "--disable-dht", "--disable-lsd", "--disable-upnp-port-forward"]);
        command.args(["--disable-trackers", "--ipv4-only", "--listen-ip", "127.0.0.1"]);
        command.args(["--listen-port", &peer.port().to_string()]);
        command.args(["--http-api-listen-addr", &api.to_string()]);
        if given.single {
            command.arg("--single-thread-runtime");
        }
        command.args(["download", "--overwrite", "--output-folder"]).arg(folder);
        if let Some(from) = given.from {
            command.args(["--initial-peers", &from.to_string()]);
        }
        command.arg(torrent).env("HOME", bed.directory.path());
        let name = if given.from.is_some() { "rqbit-receiver" } else { "rqbit-sender" };
        let program = Program::start(name, command, &bed.directory.path().join(format!("{name}.log")))?;
        Ok(Self { program, peer, api })
    }

    /// Waits until it has all of the blob and takes part.
    async fn finished(&self) -> anyhow::Result<()> {
        until(PATIENCE, "rqbit to have the blob", LOOK, async || {
            self.program.cpu_seconds()?;
            // It listens a little after it has started.
            let Ok(answer) = get(self.api, "/torrents/0/stats/v1", None).await else { return Ok(None) };
            if answer.status != StatusCode::OK {
                return Ok(None);
            }
            let stats: Stats = serde_json::from_slice(&answer.body)?;
            anyhow::ensure!(stats.state != "error", "rqbit says: {}", self.program.said());
            Ok((stats.finished && stats.state == "live").then_some(()))
        })
        .await
    }
}
