//! Reads `kubernetes.io/dockerconfigjson` Secrets: logins by registry.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use eagle_control::message::Login;
use serde::Deserialize;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(rename = "auth")]
    #[serde(default)]
    joined: String,
}

/// Why a Secret holds no logins. Never says what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Not the JSON that `docker login` writes.
    #[error("its .dockerconfigjson cannot be read")]
    Json,
    /// An entry without a user, or with an `auth` that is no base64 of `user:password`.
    #[error("an entry of its .dockerconfigjson has no user and password")]
    Entry,
}

/// The logins in `text`.
pub fn parse(text: &[u8]) -> Result<Vec<Login>, LoginError> {
    let config: DockerConfig = serde_json::from_slice(text).map_err(|_| LoginError::Json)?;
    config.auths.into_iter().map(|(key, auth)| login(&key, auth)).collect()
}

fn login(key: &str, auth: Auth) -> Result<Login, LoginError> {
    let (username, password) = if auth.username.is_empty() {
        let decoded = STANDARD.decode(auth.joined.trim()).map_err(|_| LoginError::Entry)?;
        let decoded = String::from_utf8(decoded).map_err(|_| LoginError::Entry)?;
        let (username, password) = decoded.split_once(':').ok_or(LoginError::Entry)?;
        (username.to_owned(), password.to_owned())
    } else {
        (auth.username, auth.password)
    };
    Ok(Login { registry: registry(key), username, password })
}

/// `docker login` writes Docker Hub as `https://index.docker.io/v1/`, others as they are typed.
fn registry(key: &str) -> String {
    let host = key.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let text = br#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnE="},
            "reg.example.com:5000":{"username":"a","password":"b"}}}"#;
        let logins = parse(text).unwrap();
        let plain: Vec<_> = logins.iter().map(|l| (&*l.registry, &*l.username, &*l.password)).collect();
        assert_eq!(plain, [("docker.io", "u", "p:q"), ("reg.example.com:5000", "a", "b")]);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        assert_eq!(parse(b"hush").unwrap_err(), LoginError::Json);
        assert_eq!(parse(br#"{"auths":{"r":{"auth":"!!"}}}"#).unwrap_err(), LoginError::Entry);
        assert_eq!(parse(br#"{"auths":{"r":{}}}"#).unwrap_err(), LoginError::Entry);
    }
}
