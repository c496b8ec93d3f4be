//! A process that fills, commits, evicts and removes blobs is killed two hundred times, at random moments, and its
//! directory opened after each: never a wrong byte, never a committed blob lost that nothing had evicted, and what was
//! arriving goes on from its pieces.
//!
//! Every second time the directory is first treated as a machine that lost power would leave it: blocks that were not
//! synced hold anything, and renames that were not synced are undone. `EAGLE_TEST_SEED` replays the choices of a run, and
//! `EAGLE_TEST_KILLS` makes it longer or shorter.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eagle_blobs::cache::{Cache, Partial, Seal, StageError};
use eagle_blobs::writer::Writer;
use eagle_core::piece::MIN_PIECE;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use crate::world::{DEADLINE, Sample, config, files_under, open};

const PIECE: usize = MIN_PIECE as usize;
/// Tells a child process of these tests where to work, and its seed.
const CHILD: &str = "EAGLE_TEST_CRASH_DIRECTORY";
const SEED: &str = "EAGLE_TEST_SEED";
/// How often a process is killed.
const KILLS: &str = "EAGLE_TEST_KILLS";
/// Blobs that are never let go once they are there, 3 MiB of them.
const KEPT: usize = 4;
/// Blobs that come and go, 14 MiB of them.
const COMING: usize = 16;
/// Not half of what comes and goes fits beside what is kept.
const QUOTA: u64 = 9 << 20;
/// Most reports of a child before it is killed.
const REPORTS: usize = 60;
/// What a disk writes at once.
const BLOCK: u64 = 4096;

fn samples() -> Vec<Sample> {
    let length = |number: usize| (1 + number % 6) * PIECE - 1000 * number;
    (0..KEPT + COMING).map(|number| Sample::new(number as u64, length(number))).collect()
}

/// What a child says, a line each, after it is so: before it, what it is about to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    /// The blob is staged and held.
    Begun(usize),
    /// A piece of it is written.
    Piece(usize, u32),
    /// It is committed and held.
    Committed(usize),
    /// It is let go: whatever there is of it may leave.
    LetGo(usize),
}

impl Report {
    fn say(self) {
        let text = match self {
            Self::Begun(blob) => format!("@begun {blob} 0"),
            Self::Piece(blob, piece) => format!("@piece {blob} {piece}"),
            Self::Committed(blob) => format!("@committed {blob} 0"),
            Self::LetGo(blob) => format!("@letgo {blob} 0"),
        };
        // One write: a line is said whole or not at all. Nobody listens any more when the parent has failed.
        std::io::stdout().lock().write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    /// libtest's own words may stand before the first of them.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_once('@')?.1.split(' ');
        let (what, blob, piece) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        match what {
            "begun" => Some(Self::Begun(blob)),
            "piece" => Some(Self::Piece(blob, piece)),
            "committed" => Some(Self::Committed(blob)),
            "letgo" => Some(Self::LetGo(blob)),
            _ => None,
        }
    }
}

/// The process that is killed. On its own it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let cache = open(&config(Path::new(&directory), QUOTA)).await;
    let samples = Arc::new(samples());
    let mut held = Vec::new();
    let mut missing = Vec::new();
    for (number, sample) in samples.iter().enumerate().take(KEPT) {
        match cache.get(&sample.digest) {
            Some(blob) => held.push(blob),
            None => missing.push(number),
        }
    }
    let mut work = tokio::task::JoinSet::new();
    for worker in 0..3 {
        let (cache, samples) = (cache.clone(), samples.clone());
        let first = if worker == 0 { std::mem::take(&mut missing) } else { Vec::new() };
        work.spawn(async move {
            let mut random = StdRng::seed_from_u64(seed ^ worker);
            let mut kept = Vec::new();
            for number in first {
                kept.extend(fill(&cache, &samples, number, &mut random).await);
            }
            // No two workers have the same blob in hand.
            let mine: Vec<usize> =
                (KEPT..KEPT + COMING).filter(|number| *number as u64 % 3 == worker).collect();
            loop {
                let number = mine[random.random_range(0..mine.len())];
                come_and_go(&cache, &samples, number, &mut random).await;
            }
        });
    }
    // For ever: this process is killed.
    work.join_next().await.unwrap().unwrap();
}

/// One blob that may be there or not is used, removed, begun, continued or committed, and let go.
async fn come_and_go(cache: &Cache, samples: &[Sample], number: usize, random: &mut StdRng) {
    if cache.get(&samples[number].digest).is_some() {
        if random.random_bool(0.3) {
            Report::LetGo(number).say();
            cache.remove(&samples[number].digest).await.unwrap();
        }
        return;
    }
    let blob = fill(cache, samples, number, random).await;
    Report::LetGo(number).say();
    drop(blob);
}

/// Brings blob `number`, or a part of it.
async fn fill(
    cache: &Cache,
    samples: &[Sample],
    number: usize,
    random: &mut StdRng,
) -> Option<Arc<eagle_blobs::cache::Blob>> {
    let sample = &samples[number];
    let partial = match cache.stage(&sample.digest, sample.layout).await {
        Ok(partial) => partial,
        // The others hold what there is.
        Err(StageError::Full { .. }) => return None,
        Err(error) => panic!("{error}"),
    };
    Report::Begun(number).say();
    if random.random_bool(0.5) {
        stream(&partial, sample, number).await;
    } else {
        let mut pieces: Vec<u32> = (0..sample.layout.pieces()).collect();
        for last in (1..pieces.len()).rev() {
            pieces.swap(last, random.random_range(0..=last));
        }
        // What comes and goes is sometimes given up half-way.
        let gives_up = number >= KEPT && random.random_bool(0.2);
        let wanted = if gives_up { pieces.len() / 2 } else { pieces.len() };
        for piece in pieces.into_iter().take(wanted) {
            sample.give(&partial, piece).await;
            Report::Piece(number, piece).say();
        }
        if gives_up {
            // Before it may leave.
            Report::LetGo(number).say();
            return None;
        }
    }
    let blob = partial.commit(Seal::default()).await.unwrap();
    Report::Committed(number).say();
    Some(blob)
}

/// In order, without hashes that somebody vouches for.
async fn stream(partial: &Arc<Partial>, sample: &Sample, number: usize) {
    let Some(first) = partial.first_missing(0) else { return };
    let from = usize::try_from(sample.layout.range_of(first).start).unwrap();
    let mut writer = Writer::new(partial.clone(), from as u64, None);
    for at in (from..sample.bytes.len()).step_by(64 << 10) {
        let end = (at + (64 << 10)).min(sample.bytes.len());
        for piece in writer.push(sample.bytes.slice(at..end)).await.unwrap() {
            Report::Piece(number, piece).say();
        }
    }
    drop(writer.finish().await.unwrap());
}

/// What must be there after a kill.
#[derive(Debug, Default)]
struct Owed {
    committed: HashSet<usize>,
    arriving: HashMap<usize, HashSet<u32>>,
}

impl Owed {
    /// What a process held before, only the kept blobs are certain to be held by the next.
    fn next(&mut self) {
        self.committed.retain(|number| *number < KEPT);
        self.arriving.clear();
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Begun(number) => {
                self.arriving.insert(number, HashSet::new());
            }
            Report::Piece(number, piece) => {
                self.arriving.entry(number).or_default().insert(piece);
            }
            Report::Committed(number) => {
                self.arriving.remove(&number);
                self.committed.insert(number);
            }
            Report::LetGo(number) => {
                self.arriving.remove(&number);
                self.committed.remove(&number);
            }
        }
    }
}

/// What a look at the directory has found.
#[derive(Debug, Default)]
struct Found {
    committed: HashSet<usize>,
    resumed: usize,
}

/// Everything that is visible is right, and `owed` is there.
async fn check(directory: &Path, samples: &[Sample], owed: &Owed) -> Found {
    let cache = open(&config(directory, QUOTA)).await;
    let usage = cache.usage();
    assert!(usage.bytes <= QUOTA, "{usage:?}");
    let files = files_under(&directory.join("blobs")) + files_under(&directory.join("staged"));
    assert!(files <= QUOTA, "{files} bytes in files");
    let mut found = Found::default();
    for (number, sample) in samples.iter().enumerate() {
        let Some(blob) = cache.get(&sample.digest) else { continue };
        let mut bytes = vec![0; sample.bytes.len()];
        blob.read(0, &mut bytes).unwrap();
        assert!(bytes == sample.bytes, "blob {number} is visible and wrong");
        found.committed.insert(number);
    }
    assert_eq!(usage.blobs, found.committed.len(), "something else is visible");
    let lost: Vec<_> = owed.committed.difference(&found.committed).collect();
    assert!(lost.is_empty(), "committed blobs were lost: {lost:?}");
    for (number, pieces) in &owed.arriving {
        if !found.committed.contains(number) {
            found.resumed += goes_on(&cache, &samples[*number], pieces).await;
        }
    }
    drop(cache);
    // Opened once more, so that whatever was still being read has certainly been let go.
    drop(open(&config(directory, QUOTA)).await);
    found
}

/// The blob goes on with `pieces` at least, and all that it has is right; how many it has.
async fn goes_on(cache: &Cache, sample: &Sample, pieces: &HashSet<u32>) -> usize {
    let partial = sample.stage(cache).await;
    let mut changed = partial.changed();
    let there = async {
        // They are read back, the last of them a while later.
        while !pieces.iter().all(|piece| partial.is_present(*piece)) {
            changed.changed().await.unwrap();
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, there).await;
    let has = (0..sample.layout.pieces()).filter(|piece| partial.is_present(*piece)).collect::<Vec<_>>();
    assert!(in_time.is_ok(), "pieces {pieces:?} were written, {has:?} are there");
    for piece in &has {
        let expected = sample.piece(*piece);
        let mut bytes = vec![0; expected.len()];
        partial.read(sample.layout.range_of(*piece).start, &mut bytes).unwrap();
        assert!(bytes == expected, "piece {piece} is believed and wrong");
    }
    has.len()
}

/// Lets a child work on `directory` until it has said so much, kills it, and returns what it has said.
fn run_and_kill(directory: &Path, random: &mut StdRng) -> Vec<Report> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::child", "--nocapture"])
        .env(CHILD, directory)
        .env(SEED, random.next_u64().to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let (heard, out) = (said.clone(), BufReader::new(child.stdout.take().unwrap()));
    let listener = std::thread::spawn(move || {
        for line in out.lines() {
            heard.lock().extend(Report::parse(&line.unwrap()));
        }
    });
    let enough = random.random_range(0..REPORTS);
    let started = Instant::now();
    while said.lock().len() < enough {
        assert!(started.elapsed() < DEADLINE, "the child says no more");
        ensure_alive(&mut child);
        std::thread::yield_now();
    }
    // Some moment after what it has said last, or of its start.
    let moment = Instant::now()
        + Duration::from_micros(random.random_range(0..if enough == 0 { 30_000 } else { 3000 }));
    while Instant::now() < moment {
        std::thread::yield_now();
    }
    ensure_alive(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    listener.join().unwrap();
    Arc::into_inner(said).unwrap().into_inner()
}

fn ensure_alive(child: &mut Child) {
    if let Some(status) = child.try_wait().unwrap() {
        panic!("the child ended by itself: {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_or_lost_after_two_hundred_kills() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (kills, seed) =
        (number(KILLS).unwrap_or(200), number(SEED).unwrap_or_else(|| rand::rng().next_u64()));
    println!("{SEED}={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (directory, samples) = (tempfile::tempdir().unwrap(), samples());
    let (mut owed, mut resumed, mut torn, mut undone) = (Owed::default(), 0, 0, 0);
    for _ in 0..kills {
        owed.next();
        let (path, mut own) = (directory.path().to_owned(), StdRng::seed_from_u64(random.next_u64()));
        let reports = tokio::task::spawn_blocking(move || run_and_kill(&path, &mut own)).await.unwrap();
        for report in reports {
            owed.take(report);
        }
        let found = check(directory.path(), &samples, &owed).await;
        resumed += found.resumed;
        if random.random_bool(0.5) {
            // What was not said to be committed may come undone with its rename; what was not synced may be anything.
            for number in found.committed.difference(&owed.committed) {
                undone += usize::from(random.random_bool(0.5) && undo(directory.path(), &samples[*number]));
            }
            torn += tear(directory.path(), &mut random);
            owed.arriving.values_mut().for_each(HashSet::clear);
            check(directory.path(), &samples, &owed).await;
        }
        // Whatever is there now is there after the next kill, if the next process holds it.
        owed.committed.extend(
            found
                .committed
                .iter()
                .filter(|number| **number < KEPT && is_there(directory.path(), &samples[**number])),
        );
    }
    println!("{kills} kills: {resumed} pieces went on, {torn} files torn, {undone} renames undone");
    assert!(owed.committed.len() >= KEPT, "the kept blobs were never all there: {owed:?}");
    assert!(resumed > 0 && torn > 0, "nothing was ever continued or torn: nothing is shown");
}

fn blob_path(directory: &Path, sample: &Sample) -> PathBuf {
    let hex = sample.digest.hex();
    directory.join("blobs").join(&hex[..2]).join(hex)
}

fn is_there(directory: &Path, sample: &Sample) -> bool {
    blob_path(directory, sample).try_exists().unwrap()
}

/// Takes a commit's rename back. Whether there was one.
fn undo(directory: &Path, sample: &Sample) -> bool {
    let staged = directory.join("staged").join(sample.digest.hex());
    is_there(directory, sample) && std::fs::rename(blob_path(directory, sample), staged).is_ok()
}

/// Damages what a power failure may damage: the files written last that were not synced, each in its last block and in
/// another one. How many.
fn tear(directory: &Path, random: &mut StdRng) -> usize {
    let mut files = vec![directory.join("index")];
    files.extend(std::fs::read_dir(directory.join("staged")).unwrap().map(|entry| entry.unwrap().path()));
    files.retain(|path| path.is_file());
    files.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().modified().unwrap()));
    files.truncate(random.random_range(1..=4));
    for path in &files {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        let last = length.saturating_sub(1) / BLOCK * BLOCK;
        if random.random_bool(0.3) {
            // The block had not been added to the file yet.
            file.set_len(last).unwrap();
        } else {
            scribble(&file, last, length, random);
            scribble(&file, random.random_range(0..=last / BLOCK) * BLOCK, length, random);
        }
    }
    files.len()
}

/// Fills the block at `start` of a file of `length` bytes with zeros or anything.
fn scribble(file: &File, start: u64, length: u64, random: &mut StdRng) {
    let mut block = vec![0; usize::try_from((length - start).min(BLOCK)).unwrap()];
    if random.random_bool(0.5) {
        random.fill_bytes(&mut block);
    }
    file.write_all_at(&block, start).unwrap();
}
