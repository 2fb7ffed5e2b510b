//! DNS messages (RFC 1035, RFC 6891): questions are read, answers are written; what others answer is passed on as it
//! is, so that nothing here has to understand every type of record.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use plan::net::{Record, RecordData};

const HEADER: usize = 12;
const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;
/// Without EDNS a UDP answer has at most this many bytes.
pub const PLAIN_UDP: u16 = 512;
/// What we offer and accept over UDP: fits every path without fragments (DNS flag day 2020).
pub const EDNS_UDP: u16 = 1232;

/// The type of a record, or of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type(pub u16);

impl Type {
    pub const A: Self = Self(1);
    pub const NS: Self = Self(2);
    pub const CNAME: Self = Self(5);
    pub const SOA: Self = Self(6);
    pub const PTR: Self = Self(12);
    pub const TXT: Self = Self(16);
    pub const AAAA: Self = Self(28);
    pub const SRV: Self = Self(33);
    pub const OPT: Self = Self(41);
    pub const ANY: Self = Self(255);
}

/// Why there are no records, or that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    FormatError = 1,
    ServerFailure = 2,
    NoName = 3,
    NotImplemented = 4,
    Refused = 5,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Lower-case, without the dot at the end; bytes that are not printable ASCII as `\DDD`.
    pub name: String,
    pub kind: Type,
    /// 1 is the Internet.
    pub class: u16,
}

/// A request with its one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub id: u16,
    pub recursion_desired: bool,
    pub question: Question,
    /// The question as it came: the case of its letters goes back as it is (clients use it as a nonce).
    raw_question: Vec<u8>,
    /// How large a UDP answer may be.
    pub udp_size: u16,
    edns: bool,
}

/// What is wrong with a message: the id to answer with, if it had one, and the code.
pub type Malformed = (Option<u16>, Code);

impl Query {
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let id = u16_at(bytes, 0).ok_or((None, Code::FormatError))?;
        let bad = (Some(id), Code::FormatError);
        let flags = u16_at(bytes, 2).ok_or(bad)?;
        const RESPONSE: u16 = 0x8000;
        if flags & RESPONSE != 0 {
            // Answering answers would let two servers talk for ever.
            return Err((None, Code::FormatError));
        }
        if flags & 0x7800 != 0 {
            return Err((Some(id), Code::NotImplemented));
        }
        if u16_at(bytes, 4) != Some(1) {
            return Err(bad);
        }
        let (name, end) = read_name(bytes, HEADER).ok_or(bad)?;
        let (kind, class) = (u16_at(bytes, end).ok_or(bad)?, u16_at(bytes, end + 2).ok_or(bad)?);
        let question = Question { name, kind: Type(kind), class };
        let mut query = Self {
            id,
            recursion_desired: flags & 0x0100 != 0,
            question,
            raw_question: bytes[HEADER..end + 4].to_vec(),
            udp_size: PLAIN_UDP,
            edns: false,
        };
        let records = [6, 8, 10].map(|at| u16_at(bytes, at).unwrap_or(0)).into_iter().map(u32::from).sum();
        query.read_edns(bytes, end + 4, records).ok_or(bad)?;
        Ok(query)
    }

    /// Looks for the OPT record, whose class is the size that the client takes.
    fn read_edns(&mut self, bytes: &[u8], mut at: usize, records: u32) -> Option<()> {
        for _ in 0..records {
            let (_, end) = read_name(bytes, at)?;
            if u16_at(bytes, end)? == Type::OPT.0 {
                self.edns = true;
                self.udp_size = u16_at(bytes, end + 2)?.clamp(PLAIN_UDP, EDNS_UDP);
            }
            at = end + 10 + usize::from(u16_at(bytes, end + 8)?);
        }
        (at <= bytes.len()).then_some(())
    }

    /// A request to another server for the same type of another name.
    pub fn onwards(&self, id: u16, name: &str) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(64);
        for number in [id, 0x0100, 1, 0, 0, 1] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        write_name(&mut out, name, &mut HashMap::new())?;
        out.extend_from_slice(&self.question.kind.0.to_be_bytes());
        out.extend_from_slice(&self.question.class.to_be_bytes());
        write_opt(&mut out);
        Some(out)
    }

    /// An answer of ours. Records that do not fit into `limit` bytes are left out, and the answer says that it is cut.
    pub fn answer(&self, code: Code, parts: &Parts<'_>, limit: usize) -> Vec<u8> {
        // Records repeat the question's name: a pointer to it is enough.
        let names = HashMap::from([(self.question.name.clone(), HEADER as u16)]);
        let mut out = Writer { bytes: self.head(code, parts.authoritative), names };
        let reserve = if self.edns { 11 } else { 0 };
        let limit = limit.saturating_sub(reserve);
        let mut counts = [0u16; 3];
        let mut cut = false;
        for (section, records) in [parts.answers, parts.authority, parts.additional].into_iter().enumerate() {
            for record in records {
                let before = out.bytes.len();
                if cut || out.record(record).is_none() || out.bytes.len() > limit {
                    out.bytes.truncate(before);
                    out.names.retain(|_, at| usize::from(*at) < before);
                    // Additional records are a courtesy: their lack is no cut.
                    cut |= section < 2;
                    continue;
                }
                counts[section] += 1;
            }
        }
        if self.edns {
            write_opt(&mut out.bytes);
            counts[2] += 1;
        }
        for (count, at) in counts.into_iter().zip([6, 8, 10]) {
            out.bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        if cut {
            const TRUNCATED: u8 = 0x02;
            out.bytes[2] |= TRUNCATED;
        }
        out.bytes
    }

    fn head(&self, code: Code, authoritative: bool) -> Vec<u8> {
        let mut flags = 0x8080 | code as u16;
        flags |= if self.recursion_desired { 0x0100 } else { 0 };
        flags |= if authoritative { 0x0400 } else { 0 };
        let mut out = Vec::with_capacity(512);
        for number in [self.id, flags, 1, 0, 0, 0] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.raw_question);
        out
    }
}

/// The sections of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts<'a> {
    pub authoritative: bool,
    pub answers: &'a [Record],
    pub authority: &'a [Record],
    pub additional: &'a [Record],
}

/// An answer to a message that could not be read: the header alone.
pub fn refusal(id: u16, code: Code) -> Vec<u8> {
    let numbers = [id, 0x8080 | code as u16, 0, 0, 0, 0];
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// What others answered, as far as it is to be merged behind an alias: its code, and the records of its answer
/// section, A and CNAME only. None if it is not a whole answer to `id`.
pub fn read_answers(bytes: &[u8], id: u16) -> Option<(u8, Vec<Record>)> {
    if u16_at(bytes, 0)? != id || u16_at(bytes, 2)? & 0x8000 == 0 {
        return None;
    }
    let code = (u16_at(bytes, 2)? & 0xf) as u8;
    let mut at = HEADER;
    for _ in 0..u16_at(bytes, 4)? {
        at = read_name(bytes, at)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..u16_at(bytes, 6)? {
        let (name, end) = read_name(bytes, at)?;
        let (kind, length) = (Type(u16_at(bytes, end)?), usize::from(u16_at(bytes, end + 8)?));
        let ttl_seconds = u32::from_be_bytes(bytes.get(end + 4..end + 8)?.try_into().ok()?);
        let data = bytes.get(end + 10..end + 10 + length)?;
        at = end + 10 + length;
        let data = match kind {
            Type::A => RecordData::A(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)),
            Type::AAAA => RecordData::Aaaa(<[u8; 16]>::try_from(data).ok()?.into()),
            Type::CNAME => RecordData::Cname(read_name(bytes, end + 10)?.0),
            _ => continue,
        };
        records.push(Record { name, ttl_seconds, data });
    }
    Some((code, records))
}

/// A name at an offset: its text, and where it ends. Pointers lead backwards only, so reading ends.
fn read_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let (mut at, mut end, mut total) = (start, None, 0);
    loop {
        let length = *bytes.get(at)?;
        match length {
            0 => return Some((name, end.unwrap_or(at + 1))),
            1..=0x3f => {
                let label = bytes.get(at + 1..at + 1 + usize::from(length))?;
                total += label.len() + 1;
                if total >= MAX_NAME {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                push_label(&mut name, label);
                at += 1 + label.len();
            }
            0xc0.. => {
                let target = usize::from(u16_at(bytes, at)? & 0x3fff);
                end = end.or(Some(at + 2));
                if target >= at || target < HEADER {
                    return None;
                }
                at = target;
            }
            _ => return None,
        }
    }
}

fn push_label(name: &mut String, label: &[u8]) {
    for byte in label {
        match byte {
            b'.' | b'\\' | 0..=0x20 | 0x7f.. => name.push_str(&format!("\\{byte:03}")),
            byte => name.push(char::from(byte.to_ascii_lowercase())),
        }
    }
}

/// An answer under construction, with the places of the names that are in it already.
struct Writer {
    bytes: Vec<u8>,
    names: HashMap<String, u16>,
}

impl Writer {
    fn record(&mut self, record: &Record) -> Option<()> {
        self.name(&record.name)?;
        let kind = match record.data {
            RecordData::A(_) => Type::A,
            RecordData::Aaaa(_) => Type::AAAA,
            RecordData::Cname(_) => Type::CNAME,
            RecordData::Ns(_) => Type::NS,
            RecordData::Ptr(_) => Type::PTR,
            RecordData::Soa { .. } => Type::SOA,
            RecordData::Srv { .. } => Type::SRV,
            RecordData::Txt(_) => Type::TXT,
        };
        const CLASS_IN: u16 = 1;
        for number in [kind.0, CLASS_IN] {
            self.bytes.extend_from_slice(&number.to_be_bytes());
        }
        self.bytes.extend_from_slice(&record.ttl_seconds.to_be_bytes());
        let length_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.data(&record.data)?;
        let length = u16::try_from(self.bytes.len() - length_at - 2).ok()?;
        self.bytes[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        Some(())
    }

    fn data(&mut self, data: &RecordData) -> Option<()> {
        match data {
            RecordData::A(ip) => self.bytes.extend_from_slice(&ip.octets()),
            RecordData::Aaaa(ip) => self.bytes.extend_from_slice(&ip.octets()),
            RecordData::Cname(name) | RecordData::Ns(name) | RecordData::Ptr(name) => self.name(name)?,
            RecordData::Soa { primary, contact, serial } => {
                self.name(primary)?;
                self.name(contact)?;
                // As CoreDNS: refresh, retry, expire, and how long a "no" holds.
                for number in [*serial, 7200, 1800, 86_400, 5] {
                    self.bytes.extend_from_slice(&number.to_be_bytes());
                }
            }
            RecordData::Srv { priority, weight, port, target } => {
                for number in [priority, weight, port] {
                    self.bytes.extend_from_slice(&number.to_be_bytes());
                }
                // RFC 2782: the target is not compressed.
                write_name(&mut self.bytes, target, &mut HashMap::new())?;
            }
            RecordData::Txt(text) => {
                self.bytes.push(u8::try_from(text.len()).ok()?);
                self.bytes.extend_from_slice(text.as_bytes());
            }
        }
        Some(())
    }

    fn name(&mut self, name: &str) -> Option<()> {
        write_name(&mut self.bytes, name, &mut self.names)
    }
}

/// Writes a name, ending in a pointer to an earlier one where there is one. None if it is no valid name.
fn write_name(out: &mut Vec<u8>, name: &str, seen: &mut HashMap<String, u16>) -> Option<()> {
    let start = out.len();
    let mut rest = name;
    while !rest.is_empty() {
        if let Some(at) = seen.get(rest) {
            out.extend_from_slice(&(0xc000 | at).to_be_bytes());
            return Some(());
        }
        if let Ok(at @ 0..=0x3fff) = u16::try_from(out.len()) {
            seen.insert(rest.to_owned(), at);
        }
        let (label, after) = rest.split_once('.').unwrap_or((rest, ""));
        let label = label_bytes(label).filter(|label| (1..=MAX_LABEL).contains(&label.len()))?;
        out.push(label.len() as u8);
        out.extend_from_slice(&label);
        rest = after;
        if out.len() - start >= MAX_NAME {
            return None;
        }
    }
    out.push(0);
    Some(())
}

/// Undoes [`push_label`].
fn label_bytes(label: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(label.len());
    let mut rest = label.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'\\' {
            let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok())?;
            bytes.push(digits.parse().ok()?);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(bytes)
}

fn write_opt(out: &mut Vec<u8>) {
    out.push(0);
    for number in [Type::OPT.0, EDNS_UDP, 0, 0, 0] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
