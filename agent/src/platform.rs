//! Platforms as image indexes name them, and this node's own.

use eagle_core::oci;

/// What an image runs on. The variant (`v7`, `v8`) is not looked at: an index that has several is resolved by the
/// runtime, and Eagle brings all that fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
}

/// Not a platform.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no platform: write for example linux/arm64")]
pub struct PlatformError(String);

impl Platform {
    /// This node's.
    pub fn own() -> Self {
        // Go's names, which images use, where they differ from Rust's.
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: std::env::consts::OS.to_owned(), architecture: architecture.to_owned() }
    }

    /// Such as `linux`.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// Such as `amd64`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Whether an index entry is for it. One that names no platform is for all.
    pub fn fits(&self, entry: &oci::Descriptor) -> bool {
        let is_it =
            |platform: &oci::Platform| platform.os == self.os && platform.architecture == self.architecture;
        entry.platform.as_ref().is_none_or(is_it)
    }
}

impl std::str::FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let mut parts = text.split('/');
        let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if os.is_empty() || architecture.is_empty() || parts.count() > 1 {
            return Err(PlatformError(text.to_owned()));
        }
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned() })
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_as_people_write_them() {
        let arm: Platform = "linux/arm64/v8".parse().unwrap();
        assert_eq!(arm.to_string(), "linux/arm64");
        for wrong in ["", "linux", "linux/", "/arm64", "a/b/c/d"] {
            assert_eq!(wrong.parse::<Platform>(), Err(PlatformError(wrong.into())));
        }
    }
}
