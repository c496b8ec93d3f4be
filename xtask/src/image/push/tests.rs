//! Pushes to a real registry, open and behind a login.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::executable::Executable;
use super::super::executable::tests::elf;
use super::super::{TAG, layout};
use super::*;

const USER: &str = "eagle";
const PASSWORD: &str = "only-for-tests";

/// A real registry on this machine's loopback.
struct Registry {
    process: Child,
    host: String,
    directory: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// One that asks for a login, or for nothing. `None` if this machine cannot run it.
    fn start(has_login: bool) -> Option<Self> {
        if ["docker-registry", "htpasswd", "skopeo"].iter().any(|program| !has(program)) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        // Free a moment ago; the registry says so if it no longer is.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let mut config = json!({
            "version": "0.1", "log": { "level": "warn", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": directory.path().join("data") } },
            "http": { "addr": free.to_string(), "secret": "for uploads" },
        });
        if has_login {
            let made = Command::new("htpasswd").args(["-nbB", USER, PASSWORD]).output().unwrap();
            let path = directory.path().join("htpasswd");
            std::fs::write(&path, successful(made).stdout).unwrap();
            config["auth"] = json!({ "htpasswd": { "realm": "tests", "path": path } });
        }
        let file = directory.path().join("config.yml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).env_remove("AWS_CA_BUNDLE");
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while TcpStream::connect(free).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "the registry has ended");
            assert!(Instant::now() < deadline, "the registry does not answer");
            std::thread::yield_now();
        }
        Some(Self { process, host: free.to_string(), directory })
    }

    /// A login file, as `skopeo login` makes it.
    fn log_in(&self) -> PathBuf {
        let file = self.directory.path().join("auth.json");
        let mut command = Command::new("skopeo");
        command.args(["login", "--tls-verify=false", "--username", USER, "--password-stdin", "--authfile"]);
        command
            .arg(&file)
            .arg(&self.host)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut login = command.spawn().unwrap();
        login.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
        successful(login.wait_with_output().unwrap());
        file
    }

    /// The digest of what `name` is in it.
    fn digest(&self, name: &str, authfile: Option<&Path>) -> String {
        let mut command = Command::new("skopeo");
        command.args(["inspect", "--raw", "--tls-verify=false"]);
        if let Some(file) = authfile {
            command.arg("--authfile").arg(file);
        }
        let raw = successful(command.arg(format!("docker://{}/{name}", self.host)).output().unwrap()).stdout;
        layout::digest(&raw)
    }
}

fn successful(output: Output) -> Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// An image for two architectures; its digest.
fn image(directory: &Path) -> String {
    let executable = |machine, architecture| Executable { bytes: elf(machine, 1), architecture };
    let executables = [executable(62, "amd64"), executable(183, "arm64")];
    layout::write(directory, TAG, &executables, b"authorities").unwrap()
}

#[test]
fn all_architectures_arrive_with_the_digest_that_was_told() {
    let Some(registry) = Registry::start(false) else { return };
    let layout = registry.directory.path().join("image");
    let digest = image(&layout);
    let push = Push { layout: &layout, plain_http: true, authfile: None };
    push.to(&format!("{}/team/eagle:0.1.0", registry.host)).unwrap();
    assert_eq!(registry.digest("team/eagle:0.1.0", None), digest);
}

#[test]
fn a_registry_that_asks_for_a_login_gets_that_of_the_file() {
    let Some(registry) = Registry::start(true) else { return };
    let layout = registry.directory.path().join("image");
    let digest = image(&layout);
    let nobody = registry.directory.path().join("nobody.json");
    std::fs::write(&nobody, "{}").unwrap();
    let reference = format!("{}/eagle:0.1.0", registry.host);
    let without = Push { layout: &layout, plain_http: true, authfile: Some(&nobody) };
    let refused = without.to(&reference).unwrap_err().to_string();
    assert!(refused.contains(&format!("skopeo login {}", registry.host)), "{refused}");
    let login = registry.log_in();
    Push { authfile: Some(&login), ..without }.to(&reference).unwrap();
    assert_eq!(registry.digest("eagle:0.1.0", Some(&login)), digest);
}
