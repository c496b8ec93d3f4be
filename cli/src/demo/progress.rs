//! What is seen while the demonstration runs: a bar for each node, or plain lines where there is no terminal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::runtime::Seen;

/// How often a bar is redrawn.
const REDRAW: Duration = Duration::from_millis(100);

/// All bars of the demonstration.
pub(super) struct Progress {
    bars: MultiProgress,
    visible: bool,
}

/// One node's bar.
pub(super) struct Bar {
    bar: ProgressBar,
    follow: tokio::task::JoinHandle<()>,
}

impl Progress {
    pub(super) fn new(visible: bool) -> Self {
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), visible }
    }

    /// A heading.
    #[expect(clippy::print_stderr, reason = "the demonstration talks to a person")]
    pub(super) fn say(&self, text: &str) {
        self.end();
        if self.visible {
            eprintln!("{text}");
        }
    }

    /// A bar for node `index` of `count`, which follows `seen`.
    pub(super) fn node(&self, index: usize, count: usize, seen: Arc<Seen>) -> Bar {
        let style =
            "{prefix:>7} [{bar:40}] {bytes:>11} / {total_bytes:<11} {bytes_per_sec:>13}  {elapsed_precise}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.bars.add(ProgressBar::new(0).with_style(style.progress_chars("=> ")));
        bar.set_prefix(if count == 1 { "direct".to_owned() } else { format!("node {}", index + 1) });
        let follow = tokio::spawn({
            let bar = bar.clone();
            async move {
                let mut tick = tokio::time::interval(REDRAW);
                loop {
                    tick.tick().await;
                    bar.set_length(seen.expected.load(Ordering::Relaxed));
                    bar.set_position(seen.bytes.load(Ordering::Relaxed));
                }
            }
        });
        Bar { bar, follow }
    }

    /// Takes the bars away.
    pub(super) fn end(&self) {
        // Without a terminal there is nothing to clear.
        let _ = self.bars.clear();
    }
}

impl Bar {
    pub(super) fn finish(self, ok: bool) {
        self.follow.abort();
        if ok {
            self.bar.set_position(self.bar.length().unwrap_or(0));
            self.bar.finish();
        } else {
            self.bar.abandon_with_message("failed");
        }
    }
}
