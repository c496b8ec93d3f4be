//! What other runtimes than containerd are to be told: Docker Engine, CRI-O and Podman.
//!
//! Text only, for a person, or for the agent's own file. Docker Engine's file has no place for an entry that can be told
//! from a person's own, so it is never edited.

use eagle_core::route::in_path;

use crate::containerd::hosts::Mirror;

/// Where Docker Engine is configured.
pub const DOCKER_FILE: &str = "/etc/docker/daemon.json";

/// A drop-in of CRI-O and Podman (containers-registries.conf.d(5)).
pub const CRIO_FILE: &str = "/etc/containers/registries.conf.d/50-eagle.conf";

/// What goes into [`DOCKER_FILE`], followed by `systemctl reload docker`. Docker Engine asks mirrors for Docker Hub only.
pub fn docker(mirror: &Mirror) -> String {
    format!("{{\n  \"registry-mirrors\": [\"{mirror}\"]\n}}\n")
}

/// What goes into [`CRIO_FILE`] for these registries, followed by `systemctl reload crio` unless it has
/// `auto_reload_registries` (Podman reads it at each pull). Registries that cannot be named to a mirror are left out.
///
/// There is no entry for all registries, and the runtime does not say which one it means: it is the first part of the
/// path at the mirror.
pub fn crio(mirror: &Mirror, registries: &[String]) -> String {
    let entry = |registry: &String| {
        let mirror = crio_mirror(mirror, registry)?;
        Some(format!("[[registry]]\nlocation = \"{registry}\"\n{mirror}"))
    };
    registries.iter().filter_map(entry).collect::<Vec<_>>().join("\n")
}

/// The mirror in the entry of `registry`, if that can be named to one.
pub fn crio_mirror(mirror: &Mirror, registry: &str) -> Option<String> {
    let location = crio_location(mirror, registry)?;
    let insecure = if mirror.as_str().starts_with("https://") { "" } else { "insecure = true\n" };
    Some(format!("[[registry.mirror]]\nlocation = \"{location}\"\n{insecure}"))
}

/// Where CRI-O finds `registry` at the mirror.
pub fn crio_location(mirror: &Mirror, registry: &str) -> Option<String> {
    let place = mirror.as_str().split_once("://").map_or(mirror.as_str(), |(_, place)| place);
    in_path(registry).map(|component| format!("{place}/{component}"))
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
        assert_eq!(registries[1]["mirror"][0]["location"].as_str(), Some("127.0.0.1:5000/quay.io__8443"));
        assert_eq!(registries[1]["mirror"][0]["insecure"].as_bool(), Some(true));
        let safe = crio(&Mirror::parse("https://mirror").unwrap(), &["docker.io".to_owned()]);
        assert!(!safe.contains("insecure"));
        assert_eq!(crio(&mirror, &["https://quay.io".to_owned(), "Quay.io".to_owned()]), "");
    }
}
