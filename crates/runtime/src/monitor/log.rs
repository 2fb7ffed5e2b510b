//! A container's log file in the format of CRI: `<RFC 3339 with nanoseconds> stdout|stderr F|P <line>`.
//! <https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md>

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longer lines are written in parts, as containerd does.
const LINE_LIMIT_BYTES: usize = 16 << 10;

pub struct Log {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    /// 0: never rotated.
    max_bytes: u64,
    /// With the one that is written to.
    max_files: u32,
}

impl Log {
    pub fn open(path: &Path, max_bytes: u64, max_files: u32) -> io::Result<Log> {
        let file = open(path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Log { path: path.to_path_buf(), file, size_bytes, max_bytes, max_files })
    }

    /// Goes on in a new file at the same path: somebody has moved the old one.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        self.size_bytes = self.file.metadata()?.len();
        Ok(())
    }

    /// Writes the lines that `chunk` completes; `rest` holds what of a line is here already.
    pub fn append(&mut self, stream: &str, rest: &mut Vec<u8>, chunk: &[u8], now_ns: i64) -> io::Result<()> {
        let mut text = Vec::with_capacity(chunk.len() + 64);
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let line = piece.strip_suffix(b"\n");
            rest.extend_from_slice(line.unwrap_or(piece));
            while rest.len() > LINE_LIMIT_BYTES || (line.is_none() && rest.len() == LINE_LIMIT_BYTES) {
                entry(&mut text, stream, "P", &rest[..LINE_LIMIT_BYTES], now_ns);
                rest.drain(..LINE_LIMIT_BYTES);
            }
            if line.is_some() {
                entry(&mut text, stream, "F", rest, now_ns);
                rest.clear();
            }
        }
        self.write(&text, now_ns)
    }

    /// Writes what there is of an unfinished last line.
    pub fn finish(&mut self, stream: &str, rest: &mut Vec<u8>, now_ns: i64) -> io::Result<()> {
        if rest.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        entry(&mut text, stream, "P", rest, now_ns);
        rest.clear();
        self.write(&text, now_ns)
    }

    fn write(&mut self, text: &[u8], now_ns: i64) -> io::Result<()> {
        if self.max_bytes > 0 && self.size_bytes > 0 && self.size_bytes + text.len() as u64 > self.max_bytes {
            self.rotate(now_ns)?;
        }
        self.file.write_all(text)?;
        self.size_bytes += text.len() as u64;
        Ok(())
    }

    /// Moves the file aside under the name that the kubelet gives, and forgets the oldest.
    fn rotate(&mut self, now_ns: i64) -> io::Result<()> {
        let stamp = Civil::of(now_ns);
        let Civil { year, month, day, hour, minute, second, .. } = stamp;
        let aside =
            format!("{}.{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}", self.path.display());
        // A second rotation within one second waits for the next.
        if Path::new(&aside).exists() {
            return Ok(());
        }
        std::fs::rename(&self.path, &aside)?;
        self.reopen()?;
        self.remove_oldest()
    }

    fn remove_oldest(&self) -> io::Result<()> {
        let (Some(directory), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Ok(());
        };
        let prefix = format!("{}.", name.to_string_lossy());
        let mut rotated: Vec<PathBuf> = std::fs::read_dir(directory)?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .map(|entry| entry.path())
            .collect();
        rotated.sort();
        let keep = self.max_files.saturating_sub(1) as usize;
        let surplus = rotated.len().saturating_sub(keep);
        rotated[..surplus].iter().try_for_each(std::fs::remove_file)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

fn entry(text: &mut Vec<u8>, stream: &str, tag: &str, line: &[u8], now_ns: i64) {
    let Civil { year, month, day, hour, minute, second, nanosecond } = Civil::of(now_ns);
    // Writing to memory does not fail.
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanosecond:09}Z {stream} {tag} "
    );
    text.extend_from_slice(line);
    text.push(b'\n');
}

/// A point in time in UTC.
#[derive(Debug, PartialEq, Eq)]
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    nanosecond: i64,
}

impl Civil {
    /// From nanoseconds since the Unix epoch: years begin in March, so that the leap day is the last.
    fn of(ns: i64) -> Civil {
        let (seconds, nanosecond) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let days = days + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Civil {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: of_year - (153 * shifted + 2) / 5 + 1,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            nanosecond,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_709_208_000_000_000_005; // 2024-02-29T12:00:00.000000005Z

    fn check(chunks: &[&str], want: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = Log::open(&path, 0, 0).unwrap();
        let mut rest = Vec::new();
        for chunk in chunks {
            log.append("stdout", &mut rest, chunk.as_bytes(), NOON).unwrap();
        }
        log.finish("stdout", &mut rest, NOON).unwrap();
        let got = std::fs::read_to_string(&path).unwrap();
        assert_eq!(got.replace("2024-02-29T12:00:00.000000005Z stdout ", ""), want);
    }

    #[test]
    fn lines() {
        check(&["a\nb\n"], "F a\nF b\n");
        check(&["a", "b\n", "\n"], "F ab\nF \n");
        check(&["a\nend"], "F a\nP end\n");
        let long = "x".repeat(LINE_LIMIT_BYTES);
        check(&[&long, "y\n"], &format!("P {long}\nF y\n"));
        check(&[&format!("{long}\n")], &format!("F {long}\n"));
    }

    #[test]
    fn rotates_and_keeps_so_many() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = Log::open(&path, 100, 3).unwrap();
        for second in 0..10 {
            log.append(
                "stderr",
                &mut Vec::new(),
                b"forty bytes or so of a line to be kept\n",
                NOON + second * 1_000_000_000,
            )
            .unwrap();
        }
        let mut names: Vec<String> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0.log", "0.log.20240229-120008", "0.log.20240229-120009"]);
    }

    #[test]
    fn dates() {
        let check = |ns: i64, want: [i64; 7]| {
            let Civil { year, month, day, hour, minute, second, nanosecond } = Civil::of(ns);
            assert_eq!([year, month, day, hour, minute, second, nanosecond], want);
        };
        check(0, [1970, 1, 1, 0, 0, 0, 0]);
        check(NOON, [2024, 2, 29, 12, 0, 0, 5]);
        check(951_868_799_000_000_000, [2000, 2, 29, 23, 59, 59, 0]);
        check(1_798_761_599_999_999_999, [2026, 12, 31, 23, 59, 59, 999_999_999]);
    }
}
