//! Reads tar streams (ustar, GNU and PAX forms) entry by entry, holding no more in memory than the limits allow.
//! The `tar` crate decodes single headers; its own iterator reads long names of any length into memory, so it is not used.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::limits::{Limits, OverLimit};

const BLOCK: u64 = 512;

#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("reading at {entry:?}: {source}")]
    Read { entry: String, source: io::Error },
    #[error("the archive ends in the middle of {0:?}")]
    Truncated(String),
    #[error("damaged header after {after:?}: {why}")]
    Header { after: String, why: &'static str },
    #[error("{entry:?}: {why}")]
    Entry { entry: String, why: &'static str },
    #[error("{entry:?}: {source}")]
    Limit { entry: String, source: OverLimit },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    Char,
    Block,
}

/// One member; names are bytes as stored, not yet judged.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    /// Target of a symbolic or hard link.
    pub(super) link: Vec<u8>,
    pub(super) kind: Kind,
    /// The twelve permission bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Seconds and nanoseconds since 1970.
    pub(super) mtime: (i64, u32),
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    pub(super) fn shown(&self) -> String {
        shown(&self.name)
    }
}

/// A name for a message: printable and not endless.
pub(super) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    match text.char_indices().nth(200) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.into_owned(),
    }
}

pub(super) struct Tar<'a, R> {
    inner: R,
    limits: &'a Limits,
    /// Content of the current entry not yet read.
    content_left: u64,
    padding: u64,
    entries: u64,
    last_name: String,
}

/// What GNU and PAX headers say about the entry after them.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: bool,
}

impl<'a, R: Read> Tar<'a, R> {
    pub(super) fn new(inner: R, limits: &'a Limits) -> Self {
        Tar { inner, limits, content_left: 0, padding: 0, entries: 0, last_name: "the beginning".to_string() }
    }

    /// The next member; what was left of the one before is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extension = Extension::default();
        loop {
            self.skip(self.content_left + self.padding)?;
            (self.content_left, self.padding) = (0, 0);
            let Some(header) = self.header()? else { return Ok(None) };
            self.entries += 1;
            if self.entries > self.limits.entries {
                let source = OverLimit { what: "the number of entries", limit: self.limits.entries };
                return Err(TarError::Limit { entry: self.last_name.clone(), source });
            }
            let size = header.entry_size().map_err(|_| self.damaged("size"))?;
            match header.entry_type() {
                EntryType::GNULongName => extension.name = Some(self.long_name(size)?),
                EntryType::GNULongLink => extension.link = Some(self.long_name(size)?),
                EntryType::XHeader => {
                    let body = self.held(size)?;
                    parse_pax(&body, &mut extension).ok_or_else(|| self.damaged("PAX records"))?;
                }
                // Defaults for the whole archive: git writes its commit here, and no layer needs them.
                EntryType::XGlobalHeader => self.begin(size),
                kind => return self.member(&header, kind, size, extension).map(Some),
            }
        }
    }

    fn member(
        &mut self,
        header: &Header,
        kind: EntryType,
        size: u64,
        ext: Extension,
    ) -> Result<Entry, TarError> {
        let name = ext.name.unwrap_or_else(|| header.path_bytes().into_owned());
        self.last_name = shown(&name);
        let refuse = |why| TarError::Entry { entry: shown(&name), why };
        let kind = match kind {
            // Before 1988 a directory was a file whose name ends in a slash.
            EntryType::Regular if name.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => Kind::Char,
            EntryType::Block => Kind::Block,
            EntryType::GNUSparse => {
                return Err(refuse("sparse files are not supported; pack it without --sparse"));
            }
            _ => return Err(refuse("unknown type of entry")),
        };
        if ext.sparse {
            return Err(refuse("sparse files are not supported; pack it without --sparse"));
        }
        let owner = |pax: Option<u64>, plain: io::Result<u64>| {
            pax.map_or(plain, Ok).ok().and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX)
        };
        let uid = owner(ext.uid, header.uid()).ok_or_else(|| refuse("the owner is not a user id"))?;
        let gid = owner(ext.gid, header.gid()).ok_or_else(|| refuse("the group is not a group id"))?;
        let mode = header.mode().map_err(|_| refuse("the mode is not a number"))? & 0o7777;
        // Times before 1970 or beyond the range of numbers are no reason to refuse an image.
        let mtime = ext
            .mtime
            .unwrap_or_else(|| (header.mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0), 0));
        let device = match kind {
            Kind::Char | Kind::Block => {
                let number =
                    |n: io::Result<Option<u32>>| n.ok().flatten().ok_or_else(|| refuse("no device number"));
                (number(header.device_major())?, number(header.device_minor())?)
            }
            _ => (0, 0),
        };
        let xattr_bytes: usize = ext.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if xattr_bytes > self.limits.xattr_bytes {
            let source =
                OverLimit { what: "the size of extended attributes", limit: self.limits.xattr_bytes as u64 };
            return Err(TarError::Limit { entry: shown(&name), source });
        }
        // Only files have content; some writers give a hard link the size of its target (POSIX allows either).
        let size = if kind == Kind::File { ext.size.unwrap_or(size) } else { 0 };
        if size > self.limits.file_bytes {
            let source = OverLimit { what: "the size of a file", limit: self.limits.file_bytes };
            return Err(TarError::Limit { entry: shown(&name), source });
        }
        self.begin(size);
        let link =
            ext.link.unwrap_or_else(|| header.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default());
        Ok(Entry { name, link, kind, mode, uid, gid, size, mtime, device, xattrs: ext.xattrs })
    }

    fn begin(&mut self, size: u64) {
        self.content_left = size;
        self.padding = size.wrapping_neg() % BLOCK;
    }

    fn damaged(&self, why: &'static str) -> TarError {
        TarError::Header { after: self.last_name.clone(), why }
    }

    fn unreadable(&self, source: io::Error) -> TarError {
        TarError::Read { entry: self.last_name.clone(), source }
    }

    /// `None` at the end: a block of zeros, or no more bytes, which old writers leave it at.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated(self.last_name.clone())),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(error)),
            }
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(self.damaged("wrong checksum"));
        }
        Ok(Some(header))
    }

    /// The whole content of an extended header.
    fn held(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > self.limits.header_bytes as u64 {
            let source =
                OverLimit { what: "the size of an extended header", limit: self.limits.header_bytes as u64 };
            return Err(TarError::Limit { entry: self.last_name.clone(), source });
        }
        self.begin(size);
        let mut body = Vec::new();
        if let Err(error) = self.content().read_to_end(&mut body) {
            return Err(self.unreadable(error));
        }
        if self.content_left > 0 {
            return Err(TarError::Truncated(self.last_name.clone()));
        }
        Ok(body)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut name = self.held(size)?;
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn skip(&mut self, count: u64) -> Result<(), TarError> {
        let skipped = io::copy(&mut (&mut self.inner).take(count), &mut io::sink());
        let skipped = skipped.map_err(|error| self.unreadable(error))?;
        if skipped < count {
            return Err(TarError::Truncated(self.last_name.clone()));
        }
        Ok(())
    }

    /// The content of the current member. It may end early if the archive does: compare with `size`.
    pub(super) fn content(&mut self) -> Content<'_, R> {
        Content { inner: &mut self.inner, left: &mut self.content_left }
    }
}

pub(super) struct Content<'a, R> {
    inner: &'a mut R,
    left: &'a mut u64,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(*self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buf[..want])?;
        *self.left -= n as u64;
        Ok(n)
    }
}

/// Records are `<length> <key>=<value>\n`, the length counting itself (POSIX pax, "Extended Header").
fn parse_pax(mut body: &[u8], ext: &mut Extension) -> Option<()> {
    while !body.is_empty() {
        let space = body.iter().position(|b| *b == b' ')?;
        let length: usize = std::str::from_utf8(&body[..space]).ok()?.parse().ok()?;
        let record = body.get(space + 1..length)?.strip_suffix(b"\n")?;
        body = &body[length..];
        let equals = record.iter().position(|b| *b == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
        match key {
            b"path" => ext.name = Some(value.to_vec()),
            b"linkpath" => ext.link = Some(value.to_vec()),
            b"size" => ext.size = Some(number()?),
            b"uid" => ext.uid = Some(number()?),
            b"gid" => ext.gid = Some(number()?),
            b"mtime" => ext.mtime = parse_time(value),
            _ if key.starts_with(b"GNU.sparse.") => ext.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    ext.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Some(())
}

/// Seconds with an optional fraction; negative and unreadable ones are dropped.
fn parse_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut nanos = 0;
    for i in 0..9 {
        let digit = fraction.as_bytes().get(i).copied().unwrap_or(b'0');
        nanos = nanos * 10 + u32::from(digit.checked_sub(b'0').filter(|d| *d < 10)?);
    }
    Some((i64::try_from(seconds.parse::<u64>().ok()?).ok()?, nanos))
}
