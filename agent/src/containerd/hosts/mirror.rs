//! The address of the mirror as it stands in a `hosts.toml`: a bare URL without a path.
//!
//! containerd appends `/v2` to it itself.

use std::fmt;

use http::Uri;

/// Not an address that can be written into a `hosts.toml`.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not the address of a mirror; write it like http://127.0.0.1:5000")]
pub struct MirrorError {
    /// What was given.
    pub text: String,
}

/// `http://HOST:PORT` or `https://HOST:PORT`, nothing behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror(String);

impl Mirror {
    /// Takes a URL without path, login or query; one slash at its end is dropped.
    pub fn parse(text: &str) -> Result<Self, MirrorError> {
        let wrong = || MirrorError { text: text.to_owned() };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let scheme =
            uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https")).ok_or_else(wrong)?;
        let authority = uri.authority().map(http::uri::Authority::as_str).ok_or_else(wrong)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        if uri.path() != "/" || uri.query().is_some() || text.contains('#') || !authority.bytes().all(plain) {
            return Err(wrong());
        }
        Ok(Self(format!("{scheme}://{}", authority.to_ascii_lowercase())))
    }

    /// The URL, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether containerd takes `host` for the same place.
    pub(super) fn is_at(&self, host: &str) -> bool {
        let host = host.trim_end_matches('/');
        host.strip_suffix("/v2").unwrap_or(host).trim_end_matches('/').eq_ignore_ascii_case(&self.0)
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_urls_are_mirrors() {
        for good in
            ["http://127.0.0.1:5000", "http://127.0.0.1:5000/", "https://[::1]:5000", "HTTP://localhost"]
        {
            assert!(Mirror::parse(good).is_ok(), "{good}");
        }
        let bad = [
            "",
            "127.0.0.1:5000",
            "ftp://a",
            "http://",
            "http://a/b",
            "http://a?b",
            "http://a#b",
            "http://u@a",
        ];
        for bad in bad.into_iter().chain(["http://a\"]\n[x", "http://a b"]) {
            assert_eq!(Mirror::parse(bad).unwrap_err().text, bad);
        }
        assert_eq!(Mirror::parse("http://127.0.0.1:5000/").unwrap().as_str(), "http://127.0.0.1:5000");
    }

    #[test]
    fn one_place_has_many_spellings() {
        let mirror = Mirror::parse("http://localhost:5000").unwrap();
        for same in ["http://localhost:5000", "http://localhost:5000/", "http://LOCALHOST:5000/v2/"] {
            assert!(mirror.is_at(same), "{same}");
        }
        assert!(!mirror.is_at("https://localhost:5000"));
        assert!(!mirror.is_at("http://localhost:5001"));
    }
}
