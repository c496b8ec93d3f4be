//! kubectl and Helm, as a person uses them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::tools;
use crate::netns::network::Namespace;
use crate::netns::process::enter;

/// A cluster as its administrator.
#[derive(Clone, Debug)]
pub struct Kubectl {
    from: Option<Namespace>,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// Talks to the cluster of `kubeconfig`, from within a namespace if it is only reached from there. `home`: an
    /// existing directory for what kubectl and Helm keep.
    pub fn new(from: Option<Namespace>, kubeconfig: &Path, home: &Path) -> Self {
        Self { from, kubeconfig: kubeconfig.to_owned(), home: home.to_owned() }
    }

    /// The file that says where the cluster is.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl; what it says.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.tool("kubectl", arguments, None).await
    }

    /// Runs Helm; what it says.
    pub async fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.tool("helm", arguments, None).await
    }

    /// Applies an object.
    pub async fn apply(&self, object: &Value) -> anyhow::Result<()> {
        let shown = format!("{} {}", object["kind"], object["metadata"]["name"]);
        self.tool("kubectl", &["apply", "-f", "-"], Some(object.to_string())).await.context(shown)?;
        Ok(())
    }

    /// What the API server answers to a GET of `path`.
    pub async fn raw(&self, path: &str) -> anyhow::Result<String> {
        self.run(&["get", "--raw", path]).await
    }

    /// An object, or a list of them.
    pub async fn get(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.run(&[&["get", "-o", "json"], arguments].concat()).await?;
        serde_json::from_str(&text).context("kubectl said no JSON")
    }

    async fn tool(&self, tool: &str, arguments: &[&str], input: Option<String>) -> anyhow::Result<String> {
        let program = tools::client(tool);
        let mut command = match &self.from {
            Some(namespace) => {
                let mut command = enter(namespace);
                command.arg(program);
                command
            }
            None => std::process::Command::new(program),
        };
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home);
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.home.join("helm"));
        }
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let shown = || format!("{tool} {}", arguments.join(" "));
        let mut child = command.spawn().with_context(shown)?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        // Objects are small enough for the pipe's buffer of 64 KiB, or are read as they come.
        stdin.write_all(input.unwrap_or_default().as_bytes()).await.with_context(shown)?;
        drop(stdin);
        let output = child.wait_with_output().await.with_context(shown)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}", shown(), errors.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Whether an object's controller says that it is ready, for its present generation.
pub fn is_ready(object: &Value) -> bool {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|each| each["type"] == "Ready" && each["status"] == "True")
        && object["status"]["observedGeneration"] == object["metadata"]["generation"]
}
