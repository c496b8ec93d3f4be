//! The requests of the OCI distribution API that a mirror answers, parsed once.
//!
//! `/v2/<repository>/manifests/<tag or digest>` and `/v2/<repository>/blobs/<digest>`, with the registry in the query
//! parameter `ns` as containerd sends it, or, for runtimes that send none (CRI-O, Podman), as the first component of
//! the path when that looks like a host ([`in_path`]). Docker's `registry-mirrors` sends neither: it mirrors Docker Hub
//! only.

use percent_encoding::percent_decode_str;

use crate::digest::{Digest, DigestError};
use crate::name::{NameError, Repository, Target};

/// A parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`: the API version check.
    Base,
    /// A manifest.
    Manifest(Repository, Target),
    /// A blob.
    Blob(Repository, Digest),
}

/// Why a path names nothing here. Every one is answered 404, so that the runtime goes to its origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No path of this API.
    #[error("no such endpoint")]
    Endpoint,
    /// The query names no registry and neither does the path.
    #[error("the request names no registry")]
    Registry,
    /// A name in it is not valid.
    #[error("the request's name is not valid")]
    Name(#[source] NameError),
    /// The blob's digest is not valid or of an algorithm Eagle does not carry.
    #[error("the request's digest cannot be used")]
    Digest(#[source] DigestError),
}

impl Route {
    /// Parses a path and query. `fallback` is the registry meant by a client that names none (Docker: `docker.io`).
    pub fn parse(path: &str, query: Option<&str>, fallback: Option<&str>) -> Result<Self, RouteError> {
        let rest = path.strip_prefix("/v2").ok_or(RouteError::Endpoint)?;
        if rest.is_empty() || rest == "/" {
            return Ok(Self::Base);
        }
        let rest = rest.strip_prefix('/').ok_or(RouteError::Endpoint)?;
        let mut parts = rest.rsplitn(3, '/');
        let (Some(target), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(RouteError::Endpoint);
        };
        let target = percent_decode_str(target).decode_utf8().map_err(|_| RouteError::Endpoint)?;
        let repository = repository(name, query, fallback)?;
        match kind {
            "manifests" => target.parse().map(|t| Self::Manifest(repository, t)).map_err(RouteError::Name),
            "blobs" => target.parse().map(|d| Self::Blob(repository, d)).map_err(RouteError::Digest),
            _ => Err(RouteError::Endpoint),
        }
    }
}

fn repository(name: &str, query: Option<&str>, fallback: Option<&str>) -> Result<Repository, RouteError> {
    if let Some(ns) = query_value(query.unwrap_or_default(), "ns") {
        return Repository::new(&ns, name).map_err(RouteError::Name);
    }
    if let Some((first, rest)) = name.split_once('/')
        && let Some(registry) = of_path(first)
    {
        return Repository::new(&registry, rest).map_err(RouteError::Name);
    }
    Repository::new(fallback.ok_or(RouteError::Registry)?, name).map_err(RouteError::Name)
}

/// Stands for the colon before a port where names of repositories have no colon; hosts have no such thing in their names.
const PORT: &str = "__";

/// `registry` as the first component of a repository's path, which is where CRI-O and Podman name it to a mirror.
/// `None`: it cannot be there, and a runtime that was told to put it there would fail every pull from that registry.
pub fn in_path(registry: &str) -> Option<String> {
    let (host, port) = registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port)));
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.starts_with(is_plain)
            && label.ends_with(is_plain)
            && label.chars().all(|c| is_plain(c) || c == '-')
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_named = host.split('.').all(is_label) && port.is_none_or(is_port);
    let component = port.map_or_else(|| host.to_owned(), |port| format!("{host}{PORT}{port}"));
    (is_named && of_path(&component).as_deref() == Some(registry)).then_some(component)
}

/// The registry that the first component of a path names, if it looks like one.
fn of_path(first: &str) -> Option<String> {
    if let Some((host, port)) = first.rsplit_once(PORT)
        && !host.is_empty()
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Some(format!("{host}:{port}"));
    }
    (first.contains(['.', ':']) || first == "localhost").then(|| first.to_owned())
}

/// Whether the client names the registry in `ns`, as containerd does. It asks its next host for every single thing that
/// it is not given here. Others take everything from whoever has given them the manifest.
pub fn names_registry(query: Option<&str>) -> bool {
    query_value(query.unwrap_or_default(), "ns").is_some()
}

/// The first value of `key` in a query string, percent-decoded.
pub fn query_value(query: &str, key: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| percent_decode_str(value).decode_utf8().ok().map(std::borrow::Cow::into_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn repo(registry: &str, name: &str) -> Repository {
        Repository::new(registry, name).unwrap()
    }

    #[test]
    fn containerd_names_the_registry_in_ns() {
        let route = Route::parse("/v2/library/nginx/manifests/latest", Some("ns=docker.io"), None);
        assert_eq!(
            route,
            Ok(Route::Manifest(repo("docker.io", "library/nginx"), Target::Tag("latest".into())))
        );
        let route = Route::parse(&format!("/v2/a/blobs/{HEX}"), Some("x=1&ns=quay.example%3A8443"), None);
        assert_eq!(route, Ok(Route::Blob(repo("quay.example:8443", "a"), Digest::of(b""))));
    }

    #[test]
    fn podman_names_it_in_the_path_and_docker_nowhere() {
        let route = Route::parse("/v2/quay.io/a/b/manifests/v1", None, Some("docker.io"));
        assert_eq!(route, Ok(Route::Manifest(repo("quay.io", "a/b"), Target::Tag("v1".into()))));
        let route = Route::parse("/v2/library/nginx/manifests/v1", None, Some("docker.io"));
        assert_eq!(route, Ok(Route::Manifest(repo("docker.io", "library/nginx"), Target::Tag("v1".into()))));
        assert_eq!(Route::parse("/v2/nginx/manifests/v1", None, None), Err(RouteError::Registry));
    }

    #[test]
    fn what_a_runtime_is_told_to_put_into_the_path_is_understood() {
        for (registry, component) in [
            ("docker.io", "docker.io"),
            ("localhost", "localhost"),
            ("quay.example:8443", "quay.example__8443"),
            ("registry:5000", "registry__5000"),
            ("10.9.0.2:5000", "10.9.0.2__5000"),
        ] {
            assert_eq!(in_path(registry).as_deref(), Some(component));
            let route = Route::parse(&format!("/v2/{component}/a/manifests/v1"), None, Some("docker.io"));
            assert_eq!(route, Ok(Route::Manifest(repo(registry, "a"), Target::Tag("v1".into()))));
        }
        // Not a registry, or none that could be a part of a repository's name.
        for registry in
            ["registry", "", "[::1]:5000", "Quay.io", "https://quay.io", "quay.io:", "a.b/c", "a..b", "x\"\n"]
        {
            assert_eq!(in_path(registry), None, "{registry}");
        }
    }

    #[test]
    fn a_repository_may_be_called_manifests_or_blobs() {
        let route = Route::parse("/v2/manifests/blobs/manifests/blobs", Some("ns=r"), None);
        assert_eq!(route, Ok(Route::Manifest(repo("r", "manifests/blobs"), Target::Tag("blobs".into()))));
    }

    #[test]
    fn everything_else_is_refused() {
        assert_eq!(Route::parse("/v2/", None, None), Ok(Route::Base));
        assert_eq!(Route::parse("/v2", None, None), Ok(Route::Base));
        for path in [
            "/",
            "/v1/x",
            "/v2x/a/blobs/b",
            "/v2/a/blobs",
            "/v2/a/uploads/x",
            "/v2/a/tags/list",
            "/v2//manifests/x",
        ] {
            assert!(Route::parse(path, Some("ns=r"), None).is_err(), "{path}");
        }
        assert!(matches!(
            Route::parse("/v2/a/blobs/sha512:00", Some("ns=r"), None),
            Err(RouteError::Digest(DigestError::Algorithm))
        ));
        assert!(Route::parse("/v2/a/manifests/x", Some("ns=evil/../x"), None).is_err());
    }
}
