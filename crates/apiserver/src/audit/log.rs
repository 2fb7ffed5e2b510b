//! The audit log: a file of one event a line, turned over when it is large, as upstream's `--audit-log-…` flags say.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use object::Time;
use tracing::error;

/// Events and bytes that wait for the disk at most; what comes then is counted and lost. No request waits for a disk.
const MOST_EVENTS: usize = 10_000;
const MOST_BYTES: usize = 64 << 20;

/// How the log is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// `-` is standard output.
    pub path: PathBuf,
    /// Old files are removed after so many days; zero: never.
    pub max_age_days: u32,
    /// So many old files stay; zero: all.
    pub max_backups: u32,
    /// A file of so many megabytes is turned over; zero: none is.
    pub max_size_mb: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", .path.display())]
pub struct LogError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

pub(super) struct Log {
    events: Option<SyncSender<Bytes>>,
    counts: Arc<Counts>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
}

impl Log {
    pub(super) fn open(options: LogOptions) -> Result<Self, LogError> {
        let mut target = Target::open(options)?;
        let path = target.options.path.clone();
        let (events, queue) = sync_channel(MOST_EVENTS);
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        let writer =
            std::thread::Builder::new().name("audit-log".into()).spawn(move || target.run(&queue, &counted));
        let writer = writer.map_err(|source| LogError { operation: "start the writer of", path, source })?;
        Ok(Self { events: Some(events), counts, writer: Some(writer) })
    }

    /// Hands over one line, without its end.
    pub(super) fn write(&self, line: Bytes) {
        let length = line.len();
        let Some(events) = &self.events else { return };
        let waiting = self.counts.waiting_bytes.fetch_add(length, Ordering::Relaxed);
        if waiting + length > MOST_BYTES || events.try_send(line).is_err() {
            self.counts.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Log {
    /// What was handed over is written.
    fn drop(&mut self) {
        drop(self.events.take());
        if let Some(writer) = self.writer.take() {
            // It reports its own failures.
            let _ = writer.join();
        }
    }
}

struct Target {
    options: LogOptions,
    /// None: standard output, or a file that could not be opened again.
    file: Option<File>,
    bytes: u64,
}

impl Target {
    fn open(options: LogOptions) -> Result<Self, LogError> {
        let mut target = Self { options, file: None, bytes: 0 };
        if !target.is_stdout() {
            let path = target.options.path.clone();
            target.reopen().map_err(|source| LogError { operation: "open", path, source })?;
        }
        Ok(target)
    }

    fn is_stdout(&self) -> bool {
        self.options.path == Path::new("-")
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.options.path)?;
        self.bytes = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn run(&mut self, queue: &Receiver<Bytes>, counts: &Counts) {
        let mut is_failing = false;
        while let Ok(line) = queue.recv() {
            counts.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            match self.write(&line) {
                Ok(()) => is_failing = false,
                Err(failure) => {
                    counts.lost.fetch_add(1, Ordering::Relaxed);
                    if !is_failing {
                        error!(%failure, file = %self.options.path.display(), "audit events are lost");
                    }
                    is_failing = true;
                }
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let whole = [line, b"\n"].concat();
        if self.is_stdout() {
            return io::stdout().lock().write_all(&whole);
        }
        let most = u64::from(self.options.max_size_mb) << 20;
        if most > 0 && self.bytes > 0 && self.bytes + whole.len() as u64 > most {
            self.turn_over(SystemTime::now())?;
        }
        if self.file.is_none() {
            self.reopen()?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        file.write_all(&whole)?;
        self.bytes += whole.len() as u64;
        Ok(())
    }

    /// `audit.log` becomes `audit-2026-11-23T11-50-38.123.log`, and a new one begins.
    fn turn_over(&mut self, now: SystemTime) -> io::Result<()> {
        self.file = None;
        let (stem, extension) = self.names();
        let mut millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut backup = self.backup(&stem, &extension, millis);
        while backup.exists() {
            millis += 1;
            backup = self.backup(&stem, &extension, millis);
        }
        let renamed = std::fs::rename(&self.options.path, backup);
        // Whatever came of it, the lines that follow need a file. One that somebody moved away needs no turning over.
        self.reopen()?;
        if let Err(failure) = renamed
            && failure.kind() != io::ErrorKind::NotFound
        {
            return Err(failure);
        }
        if let Err(failure) = self.remove_old(now) {
            error!(%failure, file = %self.options.path.display(), "old audit logs could not be removed");
        }
        Ok(())
    }

    fn names(&self) -> (String, String) {
        let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let extension = part(self.options.path.extension()).map(|extension| format!(".{extension}"));
        (part(self.options.path.file_stem()).unwrap_or_default(), extension.unwrap_or_default())
    }

    fn backup(&self, stem: &str, extension: &str, millis: u128) -> PathBuf {
        let time = Time::from_micros(i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1000));
        let time = time.to_string().replace(':', "-");
        let name = format!("{stem}-{}.{:03}{extension}", time.trim_end_matches('Z'), millis % 1000);
        self.options.path.with_file_name(name)
    }

    /// Old files beyond the number or the age that stay. Their names are in the order of their times.
    fn remove_old(&self, now: SystemTime) -> io::Result<()> {
        let (stem, extension) = self.names();
        let folder = self.options.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut backups = Vec::new();
        for entry in std::fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let middle =
                name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&*extension));
            if middle.is_some_and(|middle| {
                middle.starts_with(|c: char| c.is_ascii_digit()) && middle.contains('T')
            }) {
                backups.push((name, entry));
            }
        }
        backups.sort_by(|a, b| b.0.cmp(&a.0));
        let age = Duration::from_secs(u64::from(self.options.max_age_days) * 86_400);
        for (index, (_, entry)) in backups.iter().enumerate() {
            let is_beyond = self.options.max_backups > 0 && index >= self.options.max_backups as usize;
            let modified = entry.metadata()?.modified()?;
            let is_old = !age.is_zero() && now.duration_since(modified).is_ok_and(|since| since > age);
            if is_beyond || is_old {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_turned_over_and_old_ones_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        std::fs::write(folder.path().join("audit-notes.log"), "not one of them").expect("written");
        let options =
            LogOptions { path: path.clone(), max_size_mb: 1, max_backups: 2, ..LogOptions::default() };
        let log = Log::open(options).expect("opened");
        let line = Bytes::from(vec![b'x'; 400 << 10]);
        for _ in 0..9 {
            log.write(line.clone());
        }
        drop(log);
        let found = names(folder.path());
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(
            found.contains(&"audit-notes.log".to_owned()) && found.contains(&"audit.log".to_owned()),
            "{found:?}"
        );
        let mode = path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(path.metadata().expect("there").len(), (400 << 10) + 1);
    }

    #[test]
    fn a_file_that_somebody_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let options = LogOptions { path: path.clone(), ..LogOptions::default() };
        let mut target = Target::open(options).expect("opened");
        target.write(b"one").expect("written");
        std::fs::remove_file(&path).expect("removed");
        target.turn_over(SystemTime::now()).expect("turned over");
        target.write(b"two").expect("written");
        assert_eq!(std::fs::read(&path).expect("a log"), b"two\n");
        assert_eq!(names(folder.path()), ["audit.log"]);
    }

    #[test]
    fn old_files_go_by_their_age() {
        let folder = tempfile::tempdir().expect("a folder");
        let options =
            LogOptions { path: folder.path().join("audit.log"), max_age_days: 1, ..LogOptions::default() };
        let mut target = Target::open(options).expect("opened");
        target.write(b"one").expect("written");
        target.turn_over(SystemTime::now()).expect("turned over");
        assert_eq!(names(folder.path()).len(), 2);
        target.remove_old(SystemTime::now() + Duration::from_secs(2 * 86_400)).expect("removed");
        assert_eq!(names(folder.path()), ["audit.log"]);
    }

    #[test]
    fn a_disk_that_stands_still_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("a pipe");
        // Opened for both ends, so that the log's own opening does not wait; nobody reads.
        let held = OpenOptions::new().read(true).write(true).open(&path).expect("opened");
        let log = Log::open(LogOptions { path, ..LogOptions::default() }).expect("opened");
        let line = Bytes::from(vec![b'x'; 1 << 20]);
        for _ in 0..200 {
            log.write(line.clone());
        }
        assert!(log.lost() >= 100, "{}", log.lost());
        // The end of the last reader breaks the pipe: the writer goes on, and reports.
        drop(held);
    }
}
