//! The plain way: nginx sends a file, curl writes it to another.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use http::StatusCode;

use super::eagle::get;
use super::{Bed, Once};
use crate::program::{Program, free_port};
use crate::wait::until;

/// Longest wait for nginx to listen, and for a transfer.
const PATIENCE: Duration = Duration::from_mins(5);
const LOOK: Duration = Duration::from_millis(20);

/// One transfer.
pub(super) async fn transfer(bed: &Bed) -> anyhow::Result<Once> {
    let (folder, port) = (bed.folder("nginx")?, free_port()?);
    let config = folder.join("nginx.conf");
    std::fs::write(&config, configuration(&folder, bed.blob.parent().unwrap_or(&folder), port))?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&folder).arg("-c").arg(&config).arg("-e").arg(folder.join("error.log"));
    let mut sender = Program::start("nginx", command, &folder.join("log"))?;
    until(PATIENCE, "nginx to listen", LOOK, async || {
        sender.check()?;
        let answer = get(([127, 0, 0, 1], port).into(), "/", None).await;
        Ok(answer.is_ok_and(|answer| answer.status != StatusCode::BAD_GATEWAY).then_some(()))
    })
    .await?;
    let sent = sender.cpu_seconds()?;
    let (received, begun) = (folder.join("received"), Instant::now());
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--output"]).arg(&received);
    command.arg(format!("http://127.0.0.1:{port}/{}", bed.digest.hex()));
    let receiver_cpu_s = Program::start("curl", command, &folder.join("curl.log"))?.end(PATIENCE).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let length = std::fs::metadata(&received)?.len();
    ensure!(length == bed.size, "curl has {length} of {} bytes", bed.size);
    Ok(Once { seconds, sender_cpu_s: sender.cpu_seconds()? - sent, receiver_cpu_s })
}

/// One process that sends files of `root` and writes nothing but its errors.
fn configuration(folder: &Path, root: &Path, port: u16) -> String {
    let (folder, root) = (folder.display(), root.display());
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nevents {{}}\nhttp {{\n  access_log off;\n  sendfile on;\n\
         {temporary}  server {{ listen 127.0.0.1:{port}; root {root}; }}\n}}\n"
    )
}
