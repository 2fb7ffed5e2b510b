//! Container logs in the CRI format: `2026-11-23T04:22:43.123456789Z stdout F a line`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

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
    let all: Vec<&[u8]> = content.split(|&byte| byte == b'\n').skip(skip).filter(|line| !line.is_empty()).collect();
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
}
