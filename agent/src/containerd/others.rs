//! What a person adds for runtimes whose configuration Eagle does not edit: Docker Engine, CRI-O and Podman.
//!
//! Text only. Their files have no place for an entry that can be told from a person's own, and need a restart or a reload.

use crate::containerd::hosts::Mirror;

/// Where Docker Engine is configured.
pub const DOCKER_FILE: &str = "/etc/docker/daemon.json";

/// A drop-in of CRI-O and Podman (containers-registries.conf.d(5)).
pub const CRIO_FILE: &str = "/etc/containers/registries.conf.d/50-eagle.conf";

/// What goes into [`DOCKER_FILE`], followed by `systemctl reload docker`. Docker Engine asks mirrors for Docker Hub only.
pub fn docker(mirror: &Mirror) -> String {
    format!("{{\n  \"registry-mirrors\": [\"{mirror}\"]\n}}\n")
}

/// What goes into [`CRIO_FILE`] for these registries, followed by `systemctl reload crio` (Podman reads it at each pull).
///
/// There is no entry for all registries, and the runtime does not say which one it means: it is the first part of the
/// path at the mirror.
pub fn crio(mirror: &Mirror, registries: &[String]) -> String {
    let (scheme, place) = mirror.as_str().split_once("://").unwrap_or(("http", mirror.as_str()));
    let insecure = if scheme == "http" { "insecure = true\n" } else { "" };
    let entry = |registry: &String| {
        format!(
            "[[registry]]\nlocation = \"{registry}\"\n[[registry.mirror]]\nlocation = \"{place}/{registry}\"\n{insecure}"
        )
    };
    registries.iter().map(entry).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_the_runtimes_parse() {
        let mirror = Mirror::parse("http://127.0.0.1:5000").unwrap();
        assert_eq!(docker(&mirror), "{\n  \"registry-mirrors\": [\"http://127.0.0.1:5000\"]\n}\n");
        let text = crio(&mirror, &["docker.io".to_owned(), "quay.io:8443".to_owned()]);
        let parsed: toml::Table = text.parse().unwrap();
        let registries = parsed["registry"].as_array().unwrap();
        assert_eq!(registries.len(), 2);
        assert_eq!(registries[1]["location"].as_str(), Some("quay.io:8443"));
        assert_eq!(registries[1]["mirror"][0]["location"].as_str(), Some("127.0.0.1:5000/quay.io:8443"));
        assert_eq!(registries[1]["mirror"][0]["insecure"].as_bool(), Some(true));
        let safe = crio(&Mirror::parse("https://mirror").unwrap(), &["docker.io".to_owned()]);
        assert!(!safe.contains("insecure"));
    }
}
