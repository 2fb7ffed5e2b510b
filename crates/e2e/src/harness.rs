//! Tells the stories, some at once, and reports as the usual harness does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use crate::cluster::{Cluster, Room, Site};

/// What a user does on a cluster, and what must come of it.
pub struct Story {
    /// Also the name of its namespace, so a DNS label with `_` for `-`.
    pub name: &'static str,
    pub tell: fn(&Room) -> Result<()>,
}

/// A cluster, and what is told on it.
pub struct Chapter {
    pub name: &'static str,
    /// For `ekso up`: `--nodes 3`.
    pub options: &'static str,
    pub stories: &'static [Story],
}

/// What a user does to clusters, or before there is one.
pub struct Tale {
    pub name: &'static str,
    pub tell: fn() -> Result<()>,
}

/// What a tale ends with that cannot be told on this machine, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Ignored(pub &'static str);

/// How many clusters are up at once, and how many stories are told on one.
const AT_ONCE: usize = 2;

struct Report {
    filters: Vec<String>,
    passed: AtomicUsize,
    filtered: AtomicUsize,
    ignored: AtomicUsize,
    /// Names and reasons.
    failures: Mutex<Vec<(String, String)>>,
}

enum Task<'a> {
    Chapter(&'a Chapter),
    Tale(&'a Tale),
}

/// Tells all, or those whose names have one of the arguments in them.
pub fn main(chapters: &[Chapter], tales: &[Tale]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        let stories = chapters
            .iter()
            .flat_map(|chapter| chapter.stories.iter().map(move |story| full_name(chapter, story)));
        stories
            .chain(tales.iter().map(|tale| tale.name.to_owned()))
            .for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters = args.into_iter().filter(|arg| !arg.starts_with('-')).collect();
    let report = Report {
        filters,
        passed: AtomicUsize::new(0),
        filtered: AtomicUsize::new(0),
        ignored: AtomicUsize::new(0),
        failures: Mutex::default(),
    };
    let since = Instant::now();
    let tasks = chapters.iter().map(Task::Chapter).chain(tales.iter().map(Task::Tale)).collect::<Vec<_>>();
    each_at_once(&tasks, |task| match task {
        Task::Chapter(chapter) => tell_chapter(chapter, &report),
        Task::Tale(tale) if report.wants(tale.name) => report.ran(tale.name, || (tale.tell)()),
        Task::Tale(_) => report.skipped(1),
    });
    report.end(since)
}

fn full_name(chapter: &Chapter, story: &Story) -> String {
    format!("{}::{}", chapter.name, story.name)
}

/// Does the work for all, on some threads.
fn each_at_once<T: Sync>(all: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(one);
                }
            });
        }
    });
}

fn tell_chapter(chapter: &Chapter, report: &Report) {
    let wanted: Vec<&Story> =
        chapter.stories.iter().filter(|story| report.wants(&full_name(chapter, story))).collect();
    report.skipped(chapter.stories.len() - wanted.len());
    if wanted.is_empty() {
        return;
    }
    let site = match Site::new() {
        Ok(site) => site,
        Err(failure) => return report.failed(chapter.name, &failure),
    };
    let cluster = match site.up("e2e", chapter.options) {
        Ok(cluster) => cluster,
        Err(failure) => {
            report.failed(&format!("{}::up", chapter.name), &failure.context(site.logs()));
            return;
        }
    };
    let failed_before = report.failures().len();
    each_at_once(&wanted, |story| report.ran(&full_name(chapter, story), || tell_story(story, &cluster)));
    if report.failures().len() > failed_before {
        eprintln!("{}", site.logs());
    }
    report.ran(&format!("{}::delete_leaves_nothing", chapter.name), || site.delete(&cluster.name));
}

/// In a namespace of its own, which must go as it came.
fn tell_story(story: &Story, cluster: &Cluster) -> Result<()> {
    let room = Room { cluster, namespace: story.name.replace('_', "-") };
    cluster.kubectl(&format!("create namespace {}", room.namespace))?;
    let told = catch_unwind(AssertUnwindSafe(|| (story.tell)(&room)))
        .unwrap_or_else(|panic| Err(anyhow!(words_of(&panic))));
    told.map_err(|failure| failure.context(room.describe()))?;
    cluster
        .kubectl(&format!("delete namespace {} --timeout=120s", room.namespace))
        .map(drop)
        .context("its namespace must go")
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "it panicked".into())
}

impl Report {
    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Vec<(String, String)>> {
        self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn skipped(&self, count: usize) {
        self.filtered.fetch_add(count, Ordering::Relaxed);
    }

    fn ran(&self, name: &str, tell: impl FnOnce() -> Result<()>) {
        let since = Instant::now();
        let told =
            catch_unwind(AssertUnwindSafe(tell)).unwrap_or_else(|panic| Err(anyhow!(words_of(&panic))));
        match told {
            Ok(()) => {
                self.passed.fetch_add(1, Ordering::Relaxed);
                println!("test {name} ... ok");
                eprintln!("     {name} took {:.1} s", since.elapsed().as_secs_f64());
            }
            Err(failure) if failure.is::<Ignored>() => {
                self.ignored.fetch_add(1, Ordering::Relaxed);
                println!("test {name} ... ignored, {failure}");
            }
            Err(failure) => self.failed(name, &failure),
        }
    }

    fn failed(&self, name: &str, failure: &anyhow::Error) {
        println!("test {name} ... FAILED");
        // The last of the chain is the reason; what stands before it is what there was to see.
        let mut chain: Vec<String> = failure.chain().map(ToString::to_string).collect();
        chain.reverse();
        let text = chain.join("\n\n");
        eprintln!("---- {name} ----\n{text}\n");
        self.failures().push((name.to_owned(), text));
    }

    fn end(&self, since: Instant) -> ExitCode {
        let failures = self.failures();
        for (name, reason) in failures.iter() {
            println!("\n---- {name} ----\n{reason}");
        }
        let [passed, ignored, filtered] =
            [&self.passed, &self.ignored, &self.filtered].map(|count| count.load(Ordering::Relaxed));
        println!(
            "\ntest result: {}. {passed} passed; {} failed; {ignored} ignored; 0 measured; {filtered} filtered out; finished in {:.2}s",
            if failures.is_empty() { "ok" } else { "FAILED" },
            failures.len(),
            since.elapsed().as_secs_f64()
        );
        if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
