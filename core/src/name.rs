//! Names of images: registry, repository, tag, reference.
//!
//! Grammar: OCI distribution-spec ("Pulling manifests") for repository and tag; Docker's short names are completed as
//! containerd does (`nginx` → `docker.io/library/nginx:latest`).

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

/// Longest repository name, bytes (the limit registries share).
pub const MAX_REPOSITORY: usize = 255;
/// Longest registry name with port, bytes (DNS name and port).
pub const MAX_REGISTRY: usize = 261;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `host` or `host:port`.
    #[error("{0:?} is no registry: expected host or host:port")]
    Registry(String),
    /// Not slash-separated lower-case path components.
    #[error("{0:?} is no repository name")]
    Repository(String),
    /// Not a tag of at most 128 characters.
    #[error("{0:?} is no tag")]
    Tag(String),
    /// What follows the `@` is no digest.
    #[error("the reference's digest cannot be used")]
    Digest(#[source] DigestError),
}

/// One repository of one registry: what access is decided for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: String,
    name: String,
}

impl Repository {
    /// A repository by registry (`docker.io`, `registry:5000`; as the runtime writes it in `ns`) and name.
    pub fn new(registry: &str, name: &str) -> Result<Self, NameError> {
        if !is_registry(registry) {
            return Err(NameError::Registry(registry.to_owned()));
        }
        if !is_repository(name) {
            return Err(NameError::Repository(name.to_owned()));
        }
        Ok(Self { registry: registry.to_owned(), name: name.to_owned() })
    }

    /// Host and optional port, as written in image references.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name within the registry, such as `library/nginx`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Repository {
    type Err = NameError;

    /// The reverse of `Display`: the part before the first slash is the registry.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (registry, name) = text.split_once('/').ok_or_else(|| NameError::Registry(text.to_owned()))?;
        Self::new(registry, name)
    }
}

/// What names a manifest inside a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A tag: what it means may change.
    Tag(String),
    /// A digest: means the same for ever.
    Digest(Digest),
}

impl FromStr for Target {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.contains(':') {
            return text.parse().map(Self::Digest).map_err(NameError::Digest);
        }
        if is_tag(text) { Ok(Self::Tag(text.to_owned())) } else { Err(NameError::Tag(text.to_owned())) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

/// An image reference as people write it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where the image lives.
    pub repository: Repository,
    /// Which one; a digest wins over a tag that stands beside it.
    pub target: Target,
}

impl FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(NameError::Digest)?)),
            None => (text, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        let (registry, name) = match path.split_once('/') {
            Some((first, name)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, name.to_owned())
            }
            Some(_) => ("docker.io", path.to_owned()),
            None => ("docker.io", format!("library/{path}")),
        };
        let repository = Repository::new(registry, &name)?;
        let target = match (digest, tag) {
            (Some(digest), _) => Target::Digest(digest),
            (None, Some(tag)) if is_tag(tag) => Target::Tag(tag.to_owned()),
            (None, Some(tag)) => return Err(NameError::Tag(tag.to_owned())),
            (None, None) => Target::Tag("latest".to_owned()),
        };
        Ok(Self { repository, target })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if matches!(self.target, Target::Tag(_)) { ':' } else { '@' };
        write!(f, "{}{separator}{}", self.repository, self.target)
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, "")) => return v6.parse::<std::net::Ipv6Addr>().is_ok(),
        Some((v6, rest)) => {
            if v6.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("v6", rest.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label_ok = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.len() <= MAX_REGISTRY
        && host.split('.').all(label_ok)
        && port.is_none_or(|port| {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0)
        })
}

fn is_repository(text: &str) -> bool {
    // path-component: alphanumerics, separated by one `.`, one or two `_`, or any number of `-`.
    let component_ok = |component: &str| {
        let ends_ok = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        ends_ok(component.bytes().next())
            && ends_ok(component.bytes().last())
            && component.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            && !component.contains("..")
            && !component.contains("___")
    };
    text.len() <= MAX_REPOSITORY && text.split('/').all(component_ok)
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        let full = |text: &str| text.parse::<Reference>().unwrap().to_string();
        assert_eq!(full("nginx"), "docker.io/library/nginx:latest");
        assert_eq!(full("bitnami/redis:7"), "docker.io/bitnami/redis:7");
        assert_eq!(full("localhost/x"), "localhost/x:latest");
        assert_eq!(full("reg:5000/a/b:v1"), "reg:5000/a/b:v1");
        assert_eq!(full("[::1]:5000/a:v1"), "[::1]:5000/a:v1");
        let digest = Digest::of(b"x");
        assert_eq!(full(&format!("quay.io/a/b:v1@{digest}")), format!("quay.io/a/b@{digest}"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in
            ["", "UPPER", "a//b", "a/../b", "reg:99999/a", "reg:/a", "a:", "a:-x", "-a.b/c", "a/b@sha512:00"]
        {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
        assert!(Repository::new("docker.io", "../../etc/passwd").is_err());
        assert!(Repository::new("a b", "c").is_err());
        assert!(Repository::new("evil.com/path", "c").is_err());
        assert!(Repository::new("user@host", "c").is_err());
        assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
    }

    #[test]
    fn a_repository_round_trips() {
        let repository = Repository::new("10.1.2.3:5000", "a/b__c/d-e.f").unwrap();
        assert_eq!(repository.to_string().parse(), Ok(repository));
    }
}
