//! A runtime in memory: has what it was told to pull.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use eagle_control::message::Login;
use eagle_core::digest::Digest;
use eagle_core::name::{Reference, Target};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{CriError, Runtime, Version};

/// What a pull of an image brings: the digest, or a refusal.
pub(crate) type Pulled = Result<Digest, (tonic::Code, String)>;
/// Pulls an image.
pub(crate) type Registry = Box<dyn Fn(Reference) -> BoxFuture<'static, Pulled> + Send + Sync>;

/// A runtime whose registry is a function.
pub(crate) struct FakeRuntime {
    registry: Registry,
    state: Mutex<State>,
    gate: Notify,
}

#[derive(Default)]
struct State {
    images: BTreeMap<String, Digest>,
    pinned: BTreeSet<String>,
    pulls: Vec<String>,
    logins: HashMap<String, String>,
    held: bool,
    down: bool,
}

impl FakeRuntime {
    /// A runtime that has nothing.
    pub(crate) fn new(registry: Registry) -> Arc<Self> {
        Arc::new(Self { registry, state: Mutex::default(), gate: Notify::new() })
    }

    /// From now on pulls do not end, until [`FakeRuntime::release`].
    pub(crate) fn hold(&self) {
        self.state.lock().held = true;
    }

    /// Lets pulls end.
    pub(crate) fn release(&self) {
        self.state.lock().held = false;
        self.gate.notify_waiters();
    }

    /// Whether it answers.
    pub(crate) fn set_down(&self, down: bool) {
        self.state.lock().down = down;
    }

    /// What it was told to pull, in order.
    pub(crate) fn pulls(&self) -> Vec<String> {
        self.state.lock().pulls.clone()
    }

    /// The user by whose login an image was pulled.
    pub(crate) fn user_of(&self, image: &str) -> Option<String> {
        self.state.lock().logins.get(image).cloned()
    }

    fn up(&self) -> Result<(), CriError> {
        if self.state.lock().down { Err(CriError::Silent) } else { Ok(()) }
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<Version, CriError> {
        self.up()?;
        Ok(Version { name: "containerd".to_owned(), version: "v2.3.7".to_owned() })
    }

    async fn pull(&self, image: &Reference, login: Option<&Login>) -> Result<(), CriError> {
        self.up()?;
        let name = image.to_string();
        self.state.lock().pulls.push(name.clone());
        loop {
            let released = self.gate.notified();
            if !self.state.lock().held {
                break;
            }
            released.await;
        }
        let brought = (self.registry)(image.clone()).await;
        let digest =
            brought.map_err(|(code, message)| CriError::Refused { what: "pull the image", code, message })?;
        let mut state = self.state.lock();
        state.images.insert(name.clone(), digest);
        if let Some(login) = login {
            state.logins.insert(name, login.username.clone());
        }
        Ok(())
    }

    async fn digests(&self, image: &Reference) -> Result<Option<Vec<Digest>>, CriError> {
        self.up()?;
        let state = self.state.lock();
        let by_digest = match &image.target {
            Target::Digest(digest) => state
                .images
                .iter()
                .find(|(name, has)| has == &digest && name.starts_with(&image.repository.to_string())),
            Target::Tag(_) => None,
        };
        let found = state.images.get(&image.to_string()).or(by_digest.map(|(_, digest)| digest));
        Ok(found.map(|digest| vec![*digest]))
    }

    async fn remove(&self, image: &Reference) -> Result<(), CriError> {
        self.up()?;
        self.state.lock().images.remove(&image.to_string());
        Ok(())
    }

    async fn pinned(&self) -> Result<Vec<String>, CriError> {
        self.up()?;
        Ok(self.state.lock().pinned.iter().cloned().collect())
    }

    async fn set_pinned(&self, image: &str, pinned: bool) -> Result<(), CriError> {
        self.up()?;
        let mut state = self.state.lock();
        if !state.images.contains_key(image) {
            let message = format!("image {image:?}: not found");
            return Err(CriError::Refused { what: "pin an image", code: tonic::Code::NotFound, message });
        }
        if pinned {
            state.pinned.insert(image.to_owned())
        } else {
            state.pinned.remove(image)
        };
        Ok(())
    }
}
