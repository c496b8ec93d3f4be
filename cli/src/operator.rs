//! `eagle operator`: the operator as a process, with its admin port. It has no configuration file: what it is told is on
//! its command line or in its environment, where its chart puts it.

use anyhow::Context as _;
use eagle_operator::Args;
use eagle_runtime::context::Context;
use eagle_runtime::shutdown::Signals;
use eagle_runtime::{admin, log};
use tokio::net::TcpListener;

use crate::BadConfig;

/// `eagle operator`.
pub fn run(args: Args) -> anyhow::Result<()> {
    log::init(&args.log, log::Format::Text).context(BadConfig)?;
    eagle_runtime::threads::all()?.block_on(async {
        let context = Context::new();
        context.metrics.register_process();
        let listener = TcpListener::bind(args.admin_listen).await;
        let listener = listener.with_context(|| format!("cannot listen at {}", args.admin_listen))?;
        let routes = admin::router(context.clone(), &args.shown());
        tokio::spawn(admin::serve(listener, routes, context.clone()));
        let signals = tokio::spawn(context.shutdown.clone().on_signals(Signals::listen()?));
        tokio::select! {
            ended = eagle_operator::run(args, context.clone()) => Ok(ended?),
            // Draining took too long, or a second signal came.
            _ = signals => Ok(()),
        }
    })
}
