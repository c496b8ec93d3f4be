//! Printing an error with everything behind it, once.

use std::error::Error;

/// The error and its sources, joined by colons. A source whose text already ends what stands there is left out: some
/// libraries print their source themselves.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Step {
        #[error("cannot open")]
        Open(#[source] std::io::Error),
        #[error("cannot open: disk on fire")]
        Chatty(#[source] std::io::Error),
    }

    #[test]
    fn each_text_stands_there_once() {
        assert_eq!(chain(&Step::Open(std::io::Error::other("disk on fire"))), "cannot open: disk on fire");
        assert_eq!(chain(&Step::Chatty(std::io::Error::other("disk on fire"))), "cannot open: disk on fire");
    }
}
