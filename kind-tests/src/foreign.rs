//! BitTorrent clients that are not Eagle, as the programs that they are: each is given a `.torrent` file and a directory,
//! and downloads into it, or seeds what it finds there, until it is dropped.
//!
//! They have one network address among them and with Eagle's parts, and a port each. Not 127.0.0.1: Transmission takes no
//! peer there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

use crate::program::{Program, free_port, release};

/// libtorrent is a library: this makes it a program.
const LIBTORRENT: &str = include_str!("foreign/libtorrent.py");

/// A client by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// transmission-daemon, of Debian.
    Transmission,
    /// aria2c, of Debian.
    Aria2,
    /// libtorrent-rasterbar, by its Python binding, of Debian.
    Libtorrent,
    /// librqbit, by the example of `eagle-swarm`.
    Librqbit,
}

impl Client {
    /// Starts it with `torrent` in `directory`, where its own files are kept as well.
    pub fn start(self, torrent: &Path, directory: &Path) -> anyhow::Result<Program> {
        let own = directory.join("client");
        fs::create_dir_all(&own)?;
        let mut command = self.command(torrent, directory, &own)?;
        command.env("HOME", &own);
        Program::start(&format!("{self:?}"), command, &own.join("log"))
    }

    fn command(self, torrent: &Path, directory: &Path, own: &Path) -> anyhow::Result<Command> {
        let port = free_port()?;
        let command = match self {
            Self::Transmission => {
                let (watched, rpc) = (own.join("watched"), free_port()?);
                fs::create_dir_all(&watched)?;
                fs::copy(torrent, watched.join("a.torrent"))?;
                let mut command = Command::new("transmission-daemon");
                command.args(["--foreground", "--no-dht", "--no-lpd", "--no-utp", "--no-portmap"]);
                command.args(["--no-auth", "--no-incomplete-dir", "--no-global-seedratio"]);
                command.arg("--config-dir").arg(own.join("config"));
                command.arg("--watch-dir").arg(watched).arg("--download-dir").arg(directory);
                command.args(["--port", &rpc.to_string(), "--peerport", &port.to_string()]);
                command
            }
            Self::Aria2 => {
                let mut command = Command::new("aria2c");
                command.args(["--no-conf", "--enable-dht=false", "--bt-enable-lpd=false"]);
                command.args(["--enable-peer-exchange=false", "--file-allocation=none", "--seed-ratio=0"]);
                // What is there is checked, and seeded if it is whole.
                command.args(["--check-integrity=true", "--allow-overwrite=true", "--summary-interval=1"]);
                command.arg(format!("--listen-port={port}"));
                command.arg("--dir").arg(directory).arg(torrent);
                command
            }
            Self::Libtorrent => {
                let script = own.join("client.py");
                fs::write(&script, LIBTORRENT)?;
                // Debian's own interpreter, for which Debian's package is.
                let mut command = Command::new("/usr/bin/python3");
                command.arg(script).arg(torrent).arg(directory).arg(port.to_string());
                command
            }
            Self::Librqbit => {
                let mut command = Command::new(librqbit()?);
                command.arg(torrent).arg(directory).arg(port.to_string());
                command
            }
        };
        Ok(command)
    }
}

/// Where librqbit's program is: in the release build of the target directory that this very program is in.
pub fn librqbit() -> anyhow::Result<PathBuf> {
    let path = release()?.join("examples").join("librqbit");
    let build = "cargo build --release -p eagle-swarm --example librqbit";
    ensure!(path.is_file(), "no {}: run `{build}`", path.display());
    Ok(path)
}
