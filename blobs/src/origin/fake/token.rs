//! Who may read what, and the token service.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use http::header::{AUTHORIZATION, HeaderMap};

use super::FakeAccess;

/// Who may read what, and which tokens were given.
#[derive(Debug, Default)]
pub(super) struct Accesses {
    otherwise: FakeAccess,
    pub(super) by_repository: HashMap<String, FakeAccess>,
    /// Token and the repository that it is for.
    pub(super) tokens: HashSet<(String, String)>,
    given: u64,
}

impl Accesses {
    /// Every repository by one rule.
    pub(super) fn new(otherwise: FakeAccess) -> Self {
        Self { otherwise, ..Self::default() }
    }

    fn of(&self, repository: &str) -> &FakeAccess {
        self.by_repository.get(repository).unwrap_or(&self.otherwise)
    }

    /// The challenge that a request is answered with, if it may not read `repository`.
    pub(super) fn challenge(&self, base: &str, repository: &str, headers: &HeaderMap) -> Option<String> {
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
        match self.of(repository) {
            FakeAccess::Open => None,
            FakeAccess::Basic { username, password } => {
                (sent != basic(username, password)).then(|| "Basic realm=\"fake\"".to_owned())
            }
            FakeAccess::Bearer { .. } => {
                let token = sent.strip_prefix("Bearer ").unwrap_or("");
                let known = self.tokens.contains(&(token.to_owned(), repository.to_owned()));
                let scope = format!("repository:{repository}:pull");
                let realm = format!("{base}/token");
                (!known).then(|| format!("Bearer realm=\"{realm}\",service=\"fake\",scope=\"{scope}\""))
            }
        }
    }

    /// A token for the repository of `scope`, if whoever sends these headers gets one.
    pub(super) fn token(&mut self, scope: &str, headers: &HeaderMap) -> Option<String> {
        let repository = scope.strip_prefix("repository:")?.strip_suffix(":pull")?;
        let FakeAccess::Bearer { username, password, anonymous } = self.of(repository) else { return None };
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let may = sent.map_or(*anonymous, |sent| sent == basic(username, password));
        if !may {
            return None;
        }
        self.given += 1;
        let token = format!("token-{}", self.given);
        self.tokens.insert((token.clone(), repository.to_owned()));
        Some(token)
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")))
}
