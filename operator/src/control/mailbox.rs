//! What is to go down one stream: the newest value alone, for one reader.
//!
//! A `tokio::sync::watch` does the same for many readers, with eight lists of them: 0.4 KB more for each of ten thousand agents
//! (ADR 15). Deliberately not here: what is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eagle_control::server::Encoded;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The sender's end. Dropping it ends the mailbox.
#[derive(Debug)]
pub struct Sender(Arc<Mailbox>);

/// The reader's end.
#[derive(Debug)]
pub struct Receiver(Arc<Mailbox>);

#[derive(Debug)]
struct Mailbox {
    newest: Mutex<Option<Encoded>>,
    is_ended: AtomicBool,
    // Holds a permit while nobody waits, so that nothing which is sent between two looks is missed.
    changed: Notify,
}

/// A mailbox in which `first` lies, if anything.
pub fn mailbox(first: Option<Encoded>) -> (Sender, Receiver) {
    let (newest, is_ended, changed) = (Mutex::new(first), AtomicBool::new(false), Notify::new());
    let mailbox = Arc::new(Mailbox { newest, is_ended, changed });
    (Sender(Arc::clone(&mailbox)), Receiver(mailbox))
}

impl Sender {
    /// Puts `value` in the place of what was not read yet.
    pub fn send(&self, value: Encoded) {
        *self.0.newest.lock() = Some(value);
        self.0.changed.notify_one();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.is_ended.store(true, Ordering::Release);
        self.0.changed.notify_one();
    }
}

impl Receiver {
    /// The newest value, once; `None` when there will be no other. May be dropped while it waits, and loses nothing.
    pub async fn receive(&mut self) -> Option<Encoded> {
        loop {
            // Looked at first: what was sent last before the end is still read.
            let is_ended = self.0.is_ended.load(Ordering::Acquire);
            if let Some(newest) = self.0.newest.lock().take() {
                return Some(newest);
            }
            if is_ended {
                return None;
            }
            self.0.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::poll;

    use super::*;

    fn value(text: &'static str) -> Encoded {
        Encoded(Bytes::from_static(text.as_bytes()))
    }

    fn text(received: Option<Encoded>) -> Option<Bytes> {
        received.map(|encoded| encoded.0)
    }

    #[tokio::test]
    async fn the_newest_is_read_once_and_then_the_end() {
        let (sender, mut receiver) = mailbox(Some(value("a")));
        assert_eq!(text(receiver.receive().await).unwrap(), "a");
        assert!(poll!(std::pin::pin!(receiver.receive())).is_pending());
        sender.send(value("b"));
        sender.send(value("c"));
        assert_eq!(text(receiver.receive().await).unwrap(), "c");
        assert!(poll!(std::pin::pin!(receiver.receive())).is_pending());
        sender.send(value("d"));
        drop(sender);
        assert_eq!(text(receiver.receive().await).unwrap(), "d");
        assert_eq!(text(receiver.receive().await), None);
        assert_eq!(text(receiver.receive().await), None);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_a_value_and_by_the_end() {
        let (sender, mut receiver) = mailbox(None);
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            while let Some(encoded) = receiver.receive().await {
                read.push(encoded.0);
            }
            read
        });
        tokio::task::yield_now().await;
        sender.send(value("a"));
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(reader.await.unwrap(), ["a"]);
    }

    /// In each of ten thousand nodes.
    #[test]
    fn it_is_small() {
        assert!(size_of::<Mailbox>() <= 96, "{}", size_of::<Mailbox>());
    }
}
