//! Container logs in the CRI format: `2026-11-23T04:22:43.123456789Z stdout F a line`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::Time;

/// One read of a file, forwards or backwards.
const CHUNK_BYTES: usize = 64 << 10;
/// The runtime cuts lines at 16 KiB; what is longer without an end is not of its making.
const LINE_LIMIT_BYTES: usize = 1 << 20;

/// One line of a log file, in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// RFC 3339 with nanoseconds.
    pub time: &'a str,
    pub is_stderr: bool,
    /// The line went on in the next one.
    pub is_partial: bool,
    pub text: &'a [u8],
}

/// None if the line is not of the format: a crash may have cut it.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |&byte| byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = parts.next()?;
    let tag = parts.next()?;
    let text = parts.next()?;
    Some(Line { time, is_stderr: stream == b"stderr", is_partial: tag == b"P", text })
}

/// The end of a log as text: at most so many lines and bytes.
pub fn tail(path: &Path, lines: usize, bytes: usize) -> String {
    let Ok(mut file) = File::open(path) else { return String::new() };
    let length = file.metadata().map_or(0, |meta| meta.len());
    // Every line has some 45 bytes before its text.
    let window = u64::try_from(bytes + lines * 64).unwrap_or(u64::MAX);
    let start = length.saturating_sub(window);
    let mut content = Vec::new();
    if file.seek(SeekFrom::Start(start)).and_then(|_| file.take(window).read_to_end(&mut content)).is_err() {
        return String::new();
    }
    let skip = usize::from(start > 0);
    let all: Vec<&[u8]> =
        content.split(|&byte| byte == b'\n').skip(skip).filter(|line| !line.is_empty()).collect();
    let mut text = Vec::new();
    for line in all.iter().skip(all.len().saturating_sub(lines)).filter_map(|line| parse(line)) {
        text.extend_from_slice(line.text);
        if !line.is_partial {
            text.push(b'\n');
        }
    }
    let cut = text.len().saturating_sub(bytes);
    String::from_utf8_lossy(&text[cut..]).into_owned()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    #[default]
    All,
    Stdout,
    Stderr,
}

/// What of a log is wanted, and how: `PodLogOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub since: Option<Time>,
    /// Counted in lines of the files, of which a long line has several.
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// Each line is preceded by its time.
    pub timestamps: bool,
    pub stream: Stream,
}

/// Reads the log of a container as a client wants it: from the oldest rotated file on, and on into new files.
///
/// `0.log.20261123-042200` is older than `0.log.20261123-042300`, and both are older than `0.log`. The file that is
/// read keeps its place in this order by its inode when it is moved aside meanwhile.
pub struct Reader {
    path: PathBuf,
    file: File,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
    wanted: Wanted,
    /// Like the beginning of the times in the log, which are of one width and so compare as text.
    since: String,
    remaining_bytes: u64,
    is_line_start: bool,
}

impl Reader {
    /// `path` is that of the newest file.
    pub fn open(path: &Path, wanted: Wanted) -> io::Result<Self> {
        let mut files = files(path)?;
        let (mut index, mut offset) = match wanted.tail_lines {
            Some(lines) => tail_start(&mut files, lines)?,
            None => (0, 0),
        };
        let since =
            wanted.since.map(|since| since.micro().trim_end_matches('Z').to_owned()).unwrap_or_default();
        if let Some(since) = wanted.since {
            // A file that was last written to before has nothing to give.
            while index + 1 < files.len() && written_at(&files[index])? < since {
                (index, offset) = (index + 1, 0);
            }
        }
        let mut file = files.swap_remove(index);
        file.seek(SeekFrom::Start(offset))?;
        let remaining_bytes = wanted.limit_bytes.unwrap_or(u64::MAX);
        Ok(Self {
            path: path.to_owned(),
            file,
            rest: Vec::new(),
            wanted,
            since,
            remaining_bytes,
            is_line_start: true,
        })
    }

    /// Whether all bytes that were asked for have been read.
    pub fn is_full(&self) -> bool {
        self.remaining_bytes == 0
    }

    /// The next piece, empty when nothing in it is wanted. `None` at the end of what there is.
    pub fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.is_full() {
            return Ok(None);
        }
        let held = self.rest.len();
        self.rest.resize(held + CHUNK_BYTES, 0);
        let read = loop {
            match self.file.read(&mut self.rest[held..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.rest.truncate(held + *read.as_ref().unwrap_or(&0));
        if read? == 0 {
            return if self.next_file()? { Ok(Some(Vec::new())) } else { Ok(None) };
        }
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else {
            if self.rest.len() > LINE_LIMIT_BYTES {
                self.rest.clear();
            }
            return Ok(Some(Vec::new()));
        };
        let rest = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, rest);
        Ok(Some(self.render(&lines)))
    }

    fn render(&mut self, lines: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(lines.len());
        for line in lines.split(|&byte| byte == b'\n').filter_map(parse) {
            let is_other = match self.wanted.stream {
                Stream::All => false,
                Stream::Stdout => line.is_stderr,
                Stream::Stderr => !line.is_stderr,
            };
            if is_other || *line.time < *self.since {
                continue;
            }
            if self.wanted.timestamps && self.is_line_start {
                text.extend_from_slice(line.time.as_bytes());
                text.push(b' ');
            }
            text.extend_from_slice(line.text);
            if !line.is_partial {
                text.push(b'\n');
            }
            self.is_line_start = !line.is_partial;
        }
        text.truncate(usize::try_from(self.remaining_bytes).unwrap_or(usize::MAX));
        self.remaining_bytes -= text.len() as u64;
        text
    }

    /// Goes on in the file after this one, if there is one and this one has been read to its end.
    fn next_file(&mut self) -> io::Result<bool> {
        let inode = self.file.metadata()?.ino();
        let live = match std::fs::metadata(&self.path) {
            // Between two steps of a rotation, or the log is gone altogether.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            live => live?,
        };
        if live.ino() == inode {
            return Ok(false);
        }
        // It was moved aside, and may have been written to until then.
        if self.file.metadata()?.len() > self.file.stream_position()? {
            return Ok(true);
        }
        let mut files = files(&self.path)?;
        let inodes: Vec<u64> =
            files.iter().map(|file| file.metadata().map(|meta| meta.ino())).collect::<Result<_, _>>()?;
        // If it was removed, those after it are older than those that were removed with it.
        let next = inodes.iter().position(|held| *held == inode).map_or(0, |position| position + 1);
        if next >= files.len() {
            return Ok(false);
        }
        self.file = files.swap_remove(next);
        self.rest.clear();
        Ok(true)
    }
}

/// The files of a log, the oldest first: those moved aside, and the one at `path`.
fn files(path: &Path) -> io::Result<Vec<File>> {
    // Opened before the others are listed, so that none is missed by a rotation in between.
    let newest = File::open(path)?;
    let inode = newest.metadata()?.ino();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!("{name}.");
    let mut aside = Vec::new();
    for entry in std::fs::read_dir(path.parent().unwrap_or(Path::new("/")))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            aside.push(entry.path());
        }
    }
    aside.sort();
    let mut files = Vec::new();
    for path in aside {
        match File::open(&path) {
            Ok(file) if file.metadata()?.ino() != inode => files.push(file),
            Ok(_) => {}
            // The oldest is removed by a rotation.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    files.push(newest);
    Ok(files)
}

/// The file and the offset from which there are so many lines to the end.
fn tail_start(files: &mut [File], lines: u64) -> io::Result<(usize, u64)> {
    let mut missing = lines;
    for (index, file) in files.iter_mut().enumerate().rev() {
        match tail_offset(file, missing)? {
            Ok(offset) => return Ok((index, offset)),
            Err(found) => missing -= found,
        }
    }
    Ok((0, 0))
}

/// Where the last so many lines of a file begin, or how many lines it has if these are fewer. Reads from the end.
fn tail_offset(file: &mut File, lines: u64) -> io::Result<Result<u64, u64>> {
    let length = file.metadata()?.len();
    if lines == 0 {
        return Ok(Ok(length));
    }
    let mut found = 0;
    let mut end = length;
    let mut chunk = vec![0; CHUNK_BYTES];
    while end > 0 {
        let start = end.saturating_sub(CHUNK_BYTES as u64);
        let size = usize::try_from(end - start).unwrap_or(CHUNK_BYTES);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut chunk[..size])?;
        for (position, _) in chunk[..size].iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = start + position as u64 + 1;
            // The end of the last line is no beginning of another.
            if after == length {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(Ok(after));
            }
        }
        end = start;
    }
    let all = found + u64::from(length > 0);
    Ok(if all == lines { Ok(0) } else { Err(all) })
}

fn written_at(file: &File) -> io::Result<Time> {
    let meta = file.metadata()?;
    Ok(Time::from_micros(meta.mtime().saturating_mul(1_000_000).saturating_add(meta.mtime_nsec() / 1_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_apart_and_tails_are_cut() {
        let line = parse(b"2026-11-23T04:22:43.1Z stderr P two words").expect("a line");
        assert_eq!((line.is_stderr, line.is_partial, line.text), (true, true, &b"two words"[..]));
        assert_eq!(parse(b"2026 stdout"), None);
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text: String = (0..100).map(|n| format!("2026-11-23T04:22:43.1Z stdout F line {n}\n")).collect();
        std::fs::write(file.path(), text).expect("written");
        assert_eq!(tail(file.path(), 2, 2_048), "line 98\nline 99\n");
        assert_eq!(tail(file.path(), 80, 5), "e 99\n");
    }

    const MINUTE: &str = "2026-11-23T04:22";

    /// A log in files, the oldest first: `second stream tag text` a line.
    fn log(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        for (number, lines) in files.iter().enumerate() {
            let is_last = number + 1 == files.len();
            let name =
                if is_last { path.clone() } else { dir.path().join(format!("0.log.20261123-04220{number}")) };
            std::fs::write(name, written(lines)).expect("written");
        }
        (dir, path)
    }

    fn written(lines: &str) -> String {
        let stamp = |line: &str| {
            line.split_once(' ').map(|(second, rest)| format!("{MINUTE}:{second}.000000001Z {rest}\n"))
        };
        lines.lines().filter_map(stamp).collect()
    }

    fn rest_of(reader: &mut Reader) -> String {
        let mut text = Vec::new();
        while let Some(piece) = reader.read().expect("readable") {
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).expect("text")
    }

    fn check(files: &[&str], wanted: Wanted, want: &str) {
        let (_dir, path) = log(files);
        let mut reader = Reader::open(&path, wanted.clone()).expect("a log");
        assert_eq!(rest_of(&mut reader), want, "{wanted:?}");
    }

    #[test]
    fn logs_are_read_as_they_are_wanted() {
        let all = Wanted::default();
        let tail = |lines| Wanted { tail_lines: Some(lines), ..Wanted::default() };
        let limit = |bytes| Wanted { limit_bytes: Some(bytes), ..Wanted::default() };
        let since = |second: &str| Wanted {
            since: Some(format!("{MINUTE}:{second}Z").parse().expect("a time")),
            ..Wanted::default()
        };
        let three = "01 stdout F one\n02 stderr F two\n03 stdout F three\n";
        check(&[three], all.clone(), "one\ntwo\nthree\n");
        check(&[""], all.clone(), "");
        check(&[three], Wanted { stream: Stream::Stdout, ..all.clone() }, "one\nthree\n");
        check(&[three], Wanted { stream: Stream::Stderr, ..all.clone() }, "two\n");
        check(&[three], tail(0), "");
        check(&[three], tail(2), "two\nthree\n");
        check(&[three], tail(3), "one\ntwo\nthree\n");
        check(&[three], tail(9), "one\ntwo\nthree\n");
        check(&[three], limit(6), "one\ntw");
        check(&[three], since("02"), "two\nthree\n");
        check(&[three], since("59"), "");
        check(&[three], Wanted { tail_lines: Some(1), ..since("01") }, "three\n");
        let timed = Wanted { timestamps: true, ..tail(1) };
        check(&[three], timed.clone(), "2026-11-23T04:22:03.000000001Z three\n");
        let parts = "01 stdout P long \n02 stdout F line\n03 stdout F next\n";
        check(&[parts], all.clone(), "long line\nnext\n");
        let all_timed = Wanted { timestamps: true, ..all.clone() };
        let want = format!("{MINUTE}:01.000000001Z long line\n{MINUTE}:03.000000001Z next\n");
        check(&[parts], all_timed, &want);
        check(&["01 stdout P no end"], all.clone(), "no end");
        let rotated = ["01 stdout F a\n02 stdout F b\n", "03 stdout F c\n04 stdout F d\n", "05 stdout F e\n"];
        check(&rotated, all, "a\nb\nc\nd\ne\n");
        check(&rotated, tail(1), "e\n");
        check(&rotated, tail(2), "d\ne\n");
        check(&rotated, tail(4), "b\nc\nd\ne\n");
        check(&rotated, tail(6), "a\nb\nc\nd\ne\n");
        check(&rotated, since("04"), "d\ne\n");
        check(&["01 stdout F a\n", ""], tail(1), "a\n");
    }

    #[test]
    fn tails_of_long_logs_are_found_across_reads() {
        let line = |n: u32| format!("01 stdout F {n} {}\n", "x".repeat(500));
        let lines: String = (0..1_000).map(line).collect();
        let (_dir, path) = log(&[&lines]);
        for count in [1, 120, 500, 999] {
            let wanted = Wanted { tail_lines: Some(count), ..Wanted::default() };
            let text = rest_of(&mut Reader::open(&path, wanted).expect("a log"));
            assert_eq!(text.lines().count() as u64, count);
            assert!(text.starts_with(&format!("{} x", 1_000 - count)));
        }
    }

    #[test]
    fn a_reader_goes_on_into_what_is_written_and_into_new_files() {
        use std::io::Write;
        let (dir, path) = log(&["01 stdout F one\n"]);
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("a log");
        let mut reader = Reader::open(&path, Wanted::default()).expect("a log");
        assert_eq!(rest_of(&mut reader), "one\n");
        let two = written("02 stdout F two\n");
        let (begin, end) = two.split_at(35);
        file.write_all(begin.as_bytes()).expect("written");
        assert_eq!(rest_of(&mut reader), "");
        file.write_all(end.as_bytes()).expect("written");
        assert_eq!(rest_of(&mut reader), "two\n");
        // Written to before it is moved, and two rotations at once.
        file.write_all(written("03 stdout F three\n").as_bytes()).expect("written");
        std::fs::rename(&path, dir.path().join("0.log.20261123-042301")).expect("moved");
        std::fs::write(dir.path().join("0.log.20261123-042302"), written("04 stdout F four\n"))
            .expect("written");
        assert_eq!(rest_of(&mut reader), "three\n", "there is no newest file for a moment");
        std::fs::write(&path, written("05 stdout F five\n")).expect("written");
        assert_eq!(rest_of(&mut reader), "four\nfive\n");
        // Removed while it was read: everything that is left follows.
        std::fs::remove_file(&path).expect("removed");
        std::fs::remove_file(dir.path().join("0.log.20261123-042301")).expect("removed");
        std::fs::remove_file(dir.path().join("0.log.20261123-042302")).expect("removed");
        std::fs::write(&path, written("06 stdout F six\n")).expect("written");
        assert_eq!(rest_of(&mut reader), "six\n");
    }
}
