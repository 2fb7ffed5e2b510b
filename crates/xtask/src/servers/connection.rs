//! One connection that asks one thing after another, by HTTP/1.1 written by hand: a client that costs little.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Door;

pub struct Connection {
    stream: BufReader<TlsStream<TcpStream>>,
}

/// The first lines of an answer.
pub struct Head {
    pub code: u16,
    /// `Content-Type: application/json`, a line each.
    fields: Vec<String>,
}

impl Head {
    /// The values of a header, in their order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.fields.iter().filter_map(|line| line.split_once(':'));
        fields.filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Connection {
    pub async fn open(door: &Door) -> Result<Self> {
        Ok(Self { stream: BufReader::with_capacity(64 * 1024, door.connect().await?) })
    }

    /// A whole request, as it goes over the wire; how the answer to it begins.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Head> {
        self.stream.get_mut().write_all(request).await?;
        let line = self.line().await?;
        let code = line.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP")?;
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(Head { code, fields });
            }
            fields.push(line);
        }
    }

    /// The body of the answer that began so, piece by piece, until it ends or enough was seen of it. After an answer of which not all
    /// was read, this connection is of no more use.
    pub async fn body(&mut self, head: &Head, mut enough: impl FnMut(&[u8]) -> bool) -> Result<()> {
        if head.code == 204 || head.code == 304 {
            return Ok(());
        }
        if head.all("Transfer-Encoding").next().is_none() {
            let Some(length) = head.all("Content-Length").next() else { return Ok(()) };
            self.pieces(length.parse()?, &mut enough).await?;
            return Ok(());
        }
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(&line, 16).with_context(|| format!("a chunk of {line:?}"))?;
            if self.pieces(size, &mut enough).await? {
                return Ok(());
            }
            self.line().await?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line).await? > 0, "the connection ended within an answer");
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    /// So many bytes. True: enough was seen.
    async fn pieces(&mut self, mut rest: usize, enough: &mut impl FnMut(&[u8]) -> bool) -> Result<bool> {
        while rest > 0 {
            let piece = self.stream.fill_buf().await?;
            ensure!(!piece.is_empty(), "the connection ended within an answer");
            let used = piece.len().min(rest);
            let is_enough = enough(&piece[..used]);
            self.stream.consume(used);
            rest -= used;
            if is_enough {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
