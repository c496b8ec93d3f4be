//! What the operator remembers of one node, in as few bytes as will do: there may be ten thousand.

use std::sync::Arc;

use eagle_control::message::{Facts, Phase, Report};
use k8s_openapi::jiff::Timestamp;
use litemap::LiteMap;

use super::mailbox::Sender;
use crate::condition::shortened;

/// Most reports kept of one node whose tasks are not known yet (an operator that has just started): 64 prefetches of 64
/// images.
const MAX_REPORTS: usize = 4096;
/// Most problems kept of one node.
const MAX_PROBLEMS: usize = 10;
const MAX_WORD: usize = 64;
const MAX_TEXT: usize = 512;

/// How far one image of one task is on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReport {
    /// The image, as the task names it.
    pub image: Arc<str>,
    /// The attempt this is about.
    pub attempt: u32,
    /// How far.
    pub phase: Phase,
    /// The digest it was resolved to; not kept when it is the one the task asks for.
    pub digest: Option<Arc<str>>,
    /// Why it failed: a word and a sentence.
    pub failure: Option<Arc<(String, String)>>,
    /// Bytes from peers, seeders, the registry.
    pub bytes: [u64; 3],
}

/// A task as every node shares it.
#[derive(Debug)]
pub(super) struct Shared {
    /// What is sent, attempts left out.
    pub body: eagle_control::message::Task,
    /// The images' names and digests, shared by all reports.
    pub images: Vec<(Arc<str>, String)>,
}

/// One node.
#[derive(Debug)]
pub(super) struct Slot {
    /// The stream, while there is one.
    pub live: Option<Live>,
    /// Since when it is connected, or not.
    pub since: Timestamp,
    /// The ServiceAccount of its agent.
    pub account: String,
    /// The state of the node.
    pub facts: Facts,
    /// What it is to have: task and attempt.
    pub tasks: LiteMap<Arc<str>, u32>,
    /// What it reports, by task.
    pub reports: LiteMap<Arc<str>, Vec<ImageReport>>,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Live {
    /// Tells streams of one node apart.
    pub session: u64,
    /// What goes down: the newest value alone matters.
    pub down: Sender,
}

impl Slot {
    /// With room for one task, which is what most nodes have at a time.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            live: None,
            since: now,
            account: String::new(),
            facts: Facts::default(),
            tasks: LiteMap::with_capacity(1),
            reports: LiteMap::with_capacity(1),
        }
    }

    /// Whether nothing is known of it that would be lost.
    pub(super) fn is_idle(&self) -> bool {
        self.live.is_none() && self.tasks.is_empty()
    }

    /// Takes a report in; answers whether it changed anything but byte counts.
    pub(super) fn report(&mut self, task: Option<(&Arc<str>, &Shared)>, report: &Report) -> bool {
        let known =
            task.and_then(|(_, shared)| shared.images.iter().find(|(image, _)| **image == *report.image));
        if task.is_some() && known.is_none() {
            return false;
        }
        let image = known.map_or_else(|| Arc::from(report.image.as_str()), |(image, _)| Arc::clone(image));
        let asked = known.is_some_and(|(_, digest)| *digest == report.digest);
        let phase = report.phase();
        let new = ImageReport {
            image,
            attempt: report.attempt,
            phase,
            digest: (!report.digest.is_empty() && !asked).then(|| Arc::from(shortened(&report.digest, 71))),
            failure: (phase == Phase::Failed).then(|| {
                Arc::new((shortened(&report.reason, MAX_WORD), shortened(&report.message, MAX_TEXT)))
            }),
            bytes: [report.bytes_peers, report.bytes_seeders, report.bytes_origin],
        };
        let key = task.map_or_else(|| Arc::from(report.task.as_str()), |(id, _)| Arc::clone(id));
        if task.is_none() && self.reports.values().map(Vec::len).sum::<usize>() >= MAX_REPORTS {
            return false;
        }
        // A vector that grows by itself begins with room for four.
        let images = task.map_or(1, |(_, shared)| shared.images.len());
        let reports = self.reports.entry(key).or_insert_with(|| Vec::with_capacity(images));
        let Some(old) = reports.iter_mut().find(|old| old.image == new.image) else {
            reports.push(new);
            return true;
        };
        let same = (old.attempt, old.phase, &old.digest) == (new.attempt, new.phase, &new.digest);
        *old = new;
        !same
    }

    /// Takes the state of the node in.
    pub(super) fn state(&mut self, mut facts: Facts) {
        facts.problems.truncate(MAX_PROBLEMS);
        for problem in &mut facts.problems {
            problem.reason = shortened(&problem.reason, MAX_WORD);
            problem.message = shortened(&problem.message, MAX_TEXT);
        }
        facts.runtime = shortened(&facts.runtime, MAX_WORD);
        self.facts = facts;
    }
}
