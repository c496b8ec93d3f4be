//! Makes the node's container runtime use this agent's mirror, and undoes it without a trace.
//!
//! [`hosts`] decides what a `hosts.toml` must say (pure); [`install`] keeps a directory of them so; [`detect`] reads
//! whether containerd looks there at all; [`others`] says what a person adds for runtimes whose files Eagle does not edit.
//!
//! Deliberately not here: `config.toml` is never written and containerd never restarted. That the mirror is really used
//! only a pull through the runtime proves.

pub mod detect;
pub mod hosts;
pub mod install;
pub mod others;
