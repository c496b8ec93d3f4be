//! Images that Pods can run, and the objects that run them.

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::fleet::{Image, REGISTRY};
use crate::netns::site::Site;
use ::eagle::demo::image::{ImageSpec, Program};

/// The image of what holds a Pod's namespaces.
pub const SANDBOX: &str = "registry.test/sandbox:v1";

/// Makes an image that can be run and waits for ever, with `count` layers of `size` bytes besides, and pushes it as
/// `name`:v1.
pub async fn publish(site: &Site, name: &str, count: u16, size: u64, seed: u64) -> anyhow::Result<Image> {
    let program = Program {
        file: busybox()?,
        // As the first process of a container it ends at once when it is told to.
        entrypoint: ["/bin/busybox", "sh", "-c", "trap exit TERM; while :; do sleep 1000 & wait; done"]
            .map(str::to_owned)
            .to_vec(),
    };
    let spec = ImageSpec { program: Some(program), ..ImageSpec::layers(count, size, seed) };
    site.publish(&spec, name).await
}

/// Makes and pushes [`SANDBOX`].
pub async fn publish_sandbox(site: &Site) -> anyhow::Result<()> {
    let image = publish(site, "sandbox", 0, 0, 0).await?;
    debug_assert_eq!(image.reference, SANDBOX, "{REGISTRY}");
    Ok(())
}

/// A DaemonSet called `name` that runs `image` on every node.
pub fn daemon_set(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": name, "namespace": "default" },
        "spec": { "selector": { "matchLabels": { "app": name } }, "template": template(name, image) },
    })
}

/// A Deployment called `name` of `replicas` Pods that run `image`.
pub fn deployment(name: &str, image: &str, replicas: u8) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": name } }, "template": template(name, image),
        },
    })
}

fn template(name: &str, image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": name } },
        "spec": { "terminationGracePeriodSeconds": 1, "containers": [{ "name": "main", "image": image }] },
    })
}

fn busybox() -> anyhow::Result<std::path::PathBuf> {
    let folders = ["/bin", "/usr/bin"].map(std::path::PathBuf::from);
    let found = folders.iter().map(|folder| folder.join("busybox")).find(|path| path.is_file());
    found.context("no busybox: run `cargo xtask test --only install`")
}
