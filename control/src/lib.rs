//! The control channel: agents dial the operator and hold one stream; what a node is to have goes down, how far it is
//! comes up.
//!
//! | module | side | what |
//! |---|---|---|
//! | [`message`] | both | what is said: Protocol Buffers messages |
//! | [`client`] | agent | dials, reconnects, keeps the node's [`client::Board`] and the operator in agreement |
//! | [`server`] | operator | accepts streams within bounds and hands them to a [`server::Link`] |
//! | [`tls`] | operator | the certificate that it shows, replaced while it serves |
//!
//! Level-triggered: the operator always sends the whole of what a node is to have, the agent always reports the whole
//! of what it has when it connects. A lost message, a lost connection, a lost operator lose nothing.
//!
//! Everything goes through TLS 1.3: there is no way to send a token in the clear.
//!
//! Deliberately not here: what the tasks mean (the agent's and the operator's business), who may connect (the
//! operator's [`server::Link`] decides), and who makes the operator's certificate.

pub mod client;
mod codec;
pub mod message;
pub mod server;
pub mod tls;

/// The gRPC path of the one method.
const PATH: &str = "/eagle.control.v1alpha1.Control/Link";

/// Longest message either side accepts, bytes. The longest real one is a node's desired state: 4 MiB holds some twenty
/// thousand images.
pub const MAX_MESSAGE: usize = 4 << 20;
