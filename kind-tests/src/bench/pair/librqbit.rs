//! librqbit's way: its program twice, one with the blob and one without, which is told of the other and of no tracker.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Bed, Once};
use crate::foreign::librqbit;
use crate::program::{Program, free_port};
use crate::wait::until;

/// Longest wait for a check of the blob, and for a transfer.
const PATIENCE: Duration = Duration::from_mins(5);
/// Progress is looked at this often.
const LOOK: Duration = Duration::from_millis(20);

/// One transfer.
pub(super) async fn transfer(bed: &Bed, torrent: &Path) -> anyhow::Result<Once> {
    let folder = bed.blob.parent().unwrap_or(bed.directory.path());
    let (mut sender, address) = start(bed, torrent, folder, None)?;
    // It checks the blob first.
    complete(&mut sender).await?;
    let (sent, begun) = (sender.cpu_seconds()?, Instant::now());
    let (mut receiver, _) = start(bed, torrent, &bed.folder("librqbit")?, Some(address))?;
    complete(&mut receiver).await?;
    Ok(Once {
        seconds: begun.elapsed().as_secs_f64(),
        sender_cpu_s: sender.cpu_seconds()? - sent,
        receiver_cpu_s: receiver.cpu_seconds()?,
    })
}

/// The program, which gets what it lacks `from` there, and where it listens.
fn start(
    bed: &Bed,
    torrent: &Path,
    folder: &Path,
    from: Option<SocketAddr>,
) -> anyhow::Result<(Program, SocketAddr)> {
    let port = free_port()?;
    let mut command = Command::new(librqbit()?);
    command.arg(torrent).arg(folder).arg(port.to_string()).args(from.map(|from| from.to_string()));
    let name = if from.is_some() { "librqbit-receiver" } else { "librqbit-sender" };
    let program = Program::start(name, command, &bed.directory.path().join(format!("{name}.log")))?;
    Ok((program, (Ipv4Addr::LOCALHOST, port).into()))
}

/// Waits until it has all of the blob.
async fn complete(program: &mut Program) -> anyhow::Result<()> {
    until(PATIENCE, "librqbit to have the blob", LOOK, async || {
        program.check()?;
        Ok((program.said().lines().any(|line| line == "complete")).then_some(()))
    })
    .await
}
