//! Signed calls of the AWS endpoint.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use aws::sigv4::{Key, sign};
use bytes::Bytes;
use http::{Method, Request};
use object::Time;
use serde_json::Value;

use super::site::Site;
use super::{Load, Row, micros, percentiles};

const CLIENTS: usize = 8;
const FOR: Duration = Duration::from_secs(5);

/// A call, as its service's clients make it.
pub struct Call<'a> {
    pub name: &'a str,
    pub service: &'a str,
    pub method: Method,
    pub path: &'a str,
    /// Of a form, or JSON.
    pub body: &'a str,
}

const CALLS: [Call<'static>; 2] = [
    Call {
        name: "sts GetCallerIdentity",
        service: "sts",
        method: Method::POST,
        path: "/",
        body: "Action=GetCallerIdentity&Version=2011-06-15",
    },
    Call {
        name: "eks ListClusters, decided by IAM",
        service: "eks",
        method: Method::GET,
        path: "/clusters",
        body: "",
    },
];

/// Who calls, and where.
pub struct Caller {
    address: String,
    id: String,
    secret: String,
    region: String,
}

pub fn run() -> Result<Vec<Row>> {
    let site = Site::new()?;
    site.up()?;
    let caller = caller(&site)?;
    CALLS.iter().map(|call| row(&site, &caller, call)).collect()
}

pub fn caller(site: &Site) -> Result<Caller> {
    let access: Value = serde_json::from_slice(&std::fs::read(site.access())?)?;
    let word =
        |name: &str| access[name].as_str().map(str::to_owned).with_context(|| format!("there is no {name}"));
    let endpoint = word("endpoint")?;
    // The same port without TLS: what is measured is the calls, and not the handshakes of a client.
    let address = endpoint.strip_prefix("https://").context("an https endpoint")?.to_owned();
    Ok(Caller {
        address,
        id: word("accessKeyId")?,
        secret: word("secretAccessKey")?,
        region: word("region")?,
    })
}

fn row(site: &Site, caller: &Caller, call: &Call) -> Result<Row> {
    let (before, since) = (site.cpu()?, Instant::now());
    let times = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| client(caller, call))).collect();
        clients
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?
    .concat();
    let (cpu, count) = (site.cpu()?.saturating_sub(before), times.len());
    let a_second = count as f64 / since.elapsed().as_secs_f64();
    let (_, p99) = percentiles(times);
    Ok(Row {
        figure: format!("signed calls, {CLIENTS} clients: {}", call.name),
        value: Load { a_second, p99 }.to_string(),
        cpu: micros(cpu / u32::try_from(count).unwrap_or(u32::MAX)),
        peer: String::new(),
        reach: "",
    })
}

/// Calls on one connection until the time is over; how long each took.
fn client(caller: &Caller, call: &Call) -> Result<Vec<Duration>> {
    let stream = TcpStream::connect(&caller.address).context("connect to the endpoint")?;
    stream.set_nodelay(true)?;
    let (mut reader, mut times, since) = (BufReader::new(&stream), Vec::new(), Instant::now());
    while since.elapsed() < FOR {
        let text = signed(caller, call)?;
        let sent = Instant::now();
        (&stream).write_all(&text)?;
        let (status, _) = read_answer(&mut reader)?;
        ensure!(status.contains(" 200 "), "{} was answered {status}", call.name);
        times.push(sent.elapsed());
    }
    Ok(times)
}

fn signed(caller: &Caller, call: &Call) -> Result<Vec<u8>> {
    let mut request = Request::new(Bytes::copy_from_slice(call.body.as_bytes()));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = call.path.parse()?;
    request.headers_mut().insert("host", caller.address.parse()?);
    let kind =
        if call.body.starts_with('{') { "application/json" } else { "application/x-www-form-urlencoded" };
    request.headers_mut().insert("content-type", kind.parse()?);
    let key = Key { id: &caller.id, secret: &caller.secret, token: None };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    sign(&mut request, &key, &caller.region, call.service, Time::from_secs(i64::try_from(now.as_secs())?))?;
    let mut text =
        format!("{} {} HTTP/1.1\r\ncontent-length: {}\r\n", call.method, call.path, call.body.len());
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\r\n", value.to_str()?);
    }
    Ok(format!("{text}\r\n{}", call.body).into_bytes())
}

/// Makes one call on a connection of its own: its answer, in JSON.
pub fn ask(caller: &Caller, call: &Call) -> Result<Value> {
    let stream = TcpStream::connect(&caller.address).context("connect to the endpoint")?;
    (&stream).write_all(&signed(caller, call)?)?;
    let (status, body) = read_answer(&mut BufReader::new(&stream))?;
    let said = String::from_utf8_lossy(&body).into_owned();
    ensure!(status.contains(" 200 "), "{} was answered {status}{said}", call.name);
    Ok(serde_json::from_slice(&body)?)
}

/// The status line and the body.
fn read_answer(reader: &mut BufReader<&TcpStream>) -> Result<(String, Vec<u8>)> {
    let (mut status, mut length) = (String::new(), 0);
    reader.read_line(&mut status)?;
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "the connection ended");
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((status, body))
}
