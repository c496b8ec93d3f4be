//! Both controllers, the lease, the taint, the certificates and the control channel's door against an API server in
//! memory and agents in memory.
//! Time is tokio's, paused: a scenario of minutes takes milliseconds.
//!
//! Every scenario is a function of its own world, so that `rbac` can run all of them and compare what they asked with
//! what the operator may do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

/// Tests of the scenarios named, and `all` of them, each in its world.
macro_rules! scenarios {
    ($($name:ident)*) => {
        mod each {
            $(
                #[tokio::test(start_paused = true)]
                async fn $name() {
                    super::$name(crate::fake_api::FakeApi::new()).await;
                }
            )*
        }

        /// All of them, each in its world.
        pub(crate) async fn all(worlds: &mut Vec<FakeApi>) {
            $(
                let api = FakeApi::new();
                worlds.push(api.clone());
                Box::pin($name(api)).await;
            )*
        }
    };
}

mod cluster;
mod fake_api;
mod keys;
mod lease;
mod many;
mod prefetch;
mod rbac;
mod taint;
mod world;
