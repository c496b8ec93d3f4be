//! The agent's end of the control channel: what the operator is told of this node, and what it says of it.
//!
//! Without an operator, and while it is away, everything else goes on.

use std::sync::Arc;
use std::time::Duration;

use eagle_control::client::{Board, Dial, keep};
use eagle_control::message::Facts;
use eagle_core::config::agent::AgentConfig;
use eagle_runtime::tasks::Tasks;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longest wait for the operator to say which zone this node is in. Without an answer the agent starts without one.
const ZONE: Duration = Duration::from_secs(2);

/// Dials the operator and keeps telling it `facts`; `None` if none is configured.
pub(crate) fn dial(
    config: &AgentConfig,
    facts: watch::Receiver<Facts>,
    tasks: &mut Tasks,
    stop: &CancellationToken,
) -> Option<Arc<Board>> {
    let control = &config.control;
    if control.operator.is_empty() {
        return None;
    }
    let board = Arc::new(Board::new(facts.borrow().clone()));
    let dial = Dial {
        url: control.operator.clone(),
        authority_file: control.ca_file.clone(),
        token_file: control.token_file.clone(),
        node: node(config),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        backoff: Dial::BACKOFF,
        chance: rand::random,
    };
    let (stopped, kept) = (stop.clone(), board.clone());
    tasks.spawn("control", async move {
        let _ = stopped.run_until_cancelled(keep(dial, kept)).await;
    });
    let (stopped, told) = (stop.clone(), board.clone());
    tasks.spawn("facts", async move {
        let _ = stopped.run_until_cancelled(tell(facts, told)).await;
        // The facts end only with the agent.
        stopped.cancelled().await;
    });
    Some(board)
}

async fn tell(mut facts: watch::Receiver<Facts>, board: Arc<Board>) {
    while facts.changed().await.is_ok() {
        let now = facts.borrow_and_update().clone();
        board.set_facts(now);
    }
}

/// The zone that the operator says this node is in, if it says so soon.
pub(crate) async fn zone(board: &Board) -> String {
    let mut about_me = board.about_me();
    let told = tokio::time::timeout(ZONE, about_me.wait_for(Option::is_some)).await;
    if let Ok(Ok(welcome)) = told {
        return welcome.as_ref().map(|welcome| welcome.zone.clone()).unwrap_or_default();
    }
    tracing::warn!("the operator does not say which zone this node is in: going on without one");
    String::new()
}

/// This node's name.
fn node(config: &AgentConfig) -> String {
    if !config.node.is_empty() {
        return config.node.clone();
    }
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
