//! Conditions: `Ready`, `Reconciling` and `Stalled` from one verdict, times kept while nothing changes.

use eagle_crds::condition::{READY, RECONCILING, STALLED};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// How an object is, in one word and one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which.
    pub state: State,
    /// One word in CamelCase.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

/// The states of an object by the kstatus convention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All that is wanted is there.
    Ready,
    /// On the way.
    Reconciling,
    /// Nothing will get better without a change.
    Stalled,
}

impl Verdict {
    /// A verdict.
    pub fn new(state: State, reason: &'static str, message: impl Into<String>) -> Self {
        Self { state, reason, message: message.into() }
    }

    /// The conditions that say it. `before` are those of the status so far, `generation` the spec's.
    pub fn conditions(
        &self,
        before: &[Condition],
        generation: Option<i64>,
        now: Timestamp,
    ) -> Vec<Condition> {
        let mut conditions = vec![self.condition(READY, self.state == State::Ready)];
        match self.state {
            State::Ready => {}
            State::Reconciling => conditions.push(self.condition(RECONCILING, true)),
            State::Stalled => conditions.push(self.condition(STALLED, true)),
        }
        conditions.into_iter().map(|condition| aged(condition, before, generation, now)).collect()
    }

    fn condition(&self, type_: &str, holds: bool) -> (String, bool, String, String) {
        (type_.to_owned(), holds, self.reason.to_owned(), shortened(&self.message, 1024))
    }
}

/// One more condition beside those of a verdict.
pub fn extra(
    (type_, holds): (&str, bool),
    (reason, message): (&str, String),
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    aged((type_.to_owned(), holds, reason.to_owned(), message), before, generation, now)
}

fn aged(
    (type_, holds, reason, message): (String, bool, String, String),
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = if holds { "True" } else { "False" };
    let same = before.iter().find(|condition| condition.type_ == type_ && condition.status == status);
    Condition {
        last_transition_time: same.map_or(Time(now), |condition| condition.last_transition_time.clone()),
        observed_generation: generation,
        status: status.to_owned(),
        type_,
        reason,
        message,
    }
}

/// `text`, at most `longest` bytes of it.
pub fn shortened(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = (0..=longest.saturating_sub('…'.len_utf8())).rev().find(|end| text.is_char_boundary(*end));
    format!("{}…", &text[..end.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_stays_while_the_status_does() {
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(100).unwrap());
        let working = Verdict::new(State::Reconciling, "Starting", "1 of 2");
        let first = working.conditions(&[], Some(1), early);
        let second = Verdict { message: "2 of 2".into(), ..working }.conditions(&first, Some(2), late);
        assert_eq!(second[0].last_transition_time, Time(early));
        assert_eq!((second[0].message.as_str(), second[0].observed_generation), ("2 of 2", Some(2)));
        let ready = Verdict::new(State::Ready, "Ready", "").conditions(&second, Some(2), late);
        assert_eq!(ready.len(), 1, "Reconciling is gone");
        assert_eq!(ready[0].last_transition_time, Time(late));
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("ääää", 6), "ä…");
        assert_eq!(shortened(&"x".repeat(2000), 1024).len(), 1024);
    }
}
