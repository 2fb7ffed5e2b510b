//! `/statusz` and `/flagz`: what a server is and what it was started with, for people as text, for programs as objects of `config.k8s.io`.
//! <https://kubernetes.io/docs/reference/instrumentation/zpages/>

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use object::Time;
use serde_json::{Value, json};

use crate::negotiate::{self, Page};
use crate::respond::{self, Answer};
use crate::shared::Shared;
use crate::{health, metrics, yaml};

/// What upstream calls the API server on these pages.
const COMPONENT: &str = "apiserver";
/// The versions of the objects; of the first, whoever asks is told to leave it.
const VERSIONS: [&str; 2] = ["v1alpha1", "v1beta1"];
const GROUP: &str = "config.k8s.io";
/// Of these upstream says that they are not for debugging.
const NOT_FOR_DEBUGGING: [&str; 5] = ["/.well-known", "/api", "/apis", "/openapi", "/openid"];

/// `path`: `/flagz` or `/statusz`.
pub(crate) fn answer(shared: &Shared, path: &str, headers: &HeaderMap) -> Answer {
    let (kind, word) = if path == "/flagz" { ("Flagz", "flagz") } else { ("Statusz", "statusz") };
    let page = match negotiate::page(headers, GROUP, kind, &VERSIONS) {
        Ok(page) => page,
        Err(status) => return respond::failure(&status),
    };
    let status = status(shared);
    match page {
        Page::Text => {
            let told = if kind == "Flagz" { flag_lines(&shared.config.flags) } else { status.lines() };
            respond::text(StatusCode::OK, format!("\n{COMPONENT} {word}\n{WARNING}\n{told}"))
        }
        Page::Object { media, version } => {
            let mut object =
                if kind == "Flagz" { json!({"flags": shared.config.flags}) } else { status.fields() };
            object["apiVersion"] = format!("{GROUP}/{version}").into();
            object["kind"] = kind.into();
            object["metadata"] = json!({"name": COMPONENT});
            written(&object, media, version, kind, word)
        }
    }
}

const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.";

fn written(object: &Value, media: &str, version: &str, kind: &str, word: &str) -> Answer {
    let body = match media {
        "application/yaml" => yaml::encode(object),
        _ => format!("{object}\n").into(),
    };
    let mut answer = respond::bytes(StatusCode::OK, respond::JSON, body);
    // Made of words of ours alone, so that it is a header.
    if let Ok(told) = HeaderValue::try_from(format!("{media};g={GROUP};v={version};as={kind}")) {
        answer.headers_mut().insert(header::CONTENT_TYPE, told);
    }
    if version == VERSIONS[0] {
        let text = format!("This version of the {word} endpoint is deprecated. Please use a newer version.");
        respond::warn(&mut answer, &[text]);
    }
    answer
}

fn flag_lines(flags: &BTreeMap<String, String>) -> String {
    flags.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

/// What is told of a server.
struct ServerStatus {
    started: Time,
    now: Time,
    /// `1.36.0`
    binary: String,
    /// `1.36`
    emulated: String,
    paths: Vec<String>,
}

fn status(shared: &Shared) -> ServerStatus {
    let now = shared.gate.now();
    let started = metrics::started().map_or(now, |seconds| Time::from_secs(seconds as i64));
    let version = &shared.config.version;
    let binary = version.git.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default().to_owned();
    let emulated = format!("{}.{}", version.major, version.minor);
    ServerStatus { started, now, binary, emulated, paths: folders(&health::paths(shared)) }
}

/// The first parts of these paths, each once.
fn folders(paths: &[String]) -> Vec<String> {
    let first = paths.iter().filter_map(|path| path.split('/').nth(1).filter(|part| !part.is_empty()));
    let all: BTreeSet<String> = first.map(|part| format!("/{part}")).collect();
    all.into_iter().filter(|folder| !NOT_FOR_DEBUGGING.contains(&folder.as_str())).collect()
}

impl ServerStatus {
    fn seconds_up(&self) -> i64 {
        (self.now.as_secs() - self.started.as_secs()).max(0)
    }

    /// There is no Go here, of which upstream tells the version.
    fn fields(&self) -> Value {
        json!({
            "startTime": Time::from_secs(self.started.as_secs()).to_string(),
            "uptimeSeconds": self.seconds_up(),
            "goVersion": "",
            "binaryVersion": self.binary,
            "emulationVersion": self.emulated,
            "paths": self.paths,
        })
    }

    fn lines(&self) -> String {
        let up = self.seconds_up();
        format!(
            "\nStarted: {}\nUp: {} hr {:02} min {:02} sec\nGo version: \nBinary version: {}\nEmulation version: {}\nPaths: {}\n",
            unix_date(self.started),
            up / 3600,
            up / 60 % 60,
            up % 60,
            self.binary,
            self.emulated,
            self.paths.join(" "),
        )
    }
}

/// `Mon Nov  2 21:19:22 UTC 2026`, as date(1) has it.
fn unix_date(time: Time) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = time.to_string();
    let number =
        |range: std::ops::Range<usize>| text.get(range).and_then(|digits| digits.parse::<usize>().ok());
    // 1970 began on a Thursday.
    let weekday = time.as_secs().div_euclid(86_400).rem_euclid(7);
    let weekday = usize::try_from(weekday).ok().and_then(|day| DAYS.get(day)).unwrap_or(&DAYS[0]);
    let month = number(5..7).and_then(|month| MONTHS.get(month.checked_sub(1)?)).unwrap_or(&MONTHS[0]);
    let (day, clock) = (number(8..10).unwrap_or(1), text.get(11..19).unwrap_or_default());
    format!("{weekday} {month} {day:>2} {clock} UTC {}", text.get(..4).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_tells_what_it_is() {
        let at = |text: &str| text.parse::<Time>().expect("a time");
        let paths = ["/api/v1", "/metrics/slis", "/metrics", "/openapi/v3", "/livez/ping", "/"];
        let status = ServerStatus {
            started: at("2026-11-02T21:19:22Z"),
            now: at("2026-11-03T22:20:25Z"),
            binary: "1.36.0".into(),
            emulated: "1.36".into(),
            paths: folders(&paths.map(str::to_owned)),
        };
        let text = "\nStarted: Mon Nov  2 21:19:22 UTC 2026\nUp: 25 hr 01 min 03 sec\nGo version: \nBinary version: 1.36.0\n\
            Emulation version: 1.36\nPaths: /livez /metrics\n";
        assert_eq!(status.lines(), text);
        let fields = status.fields();
        assert_eq!(fields["uptimeSeconds"], 90_063);
        assert_eq!(fields["startTime"], "2026-11-02T21:19:22Z");
        assert_eq!(fields["paths"], json!(["/livez", "/metrics"]));
    }

    #[test]
    fn programs_ask_for_objects_and_people_for_text() {
        let asked = |accept: &str| {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(header::ACCEPT, accept.parse().expect("a header"));
            }
            negotiate::page(&headers, GROUP, "Statusz", &VERSIONS).map_err(|status| status.message)
        };
        let object = |media, version| Ok(Page::Object { media, version });
        for accept in ["", "*/*", "text/plain", "application/json, text/plain"] {
            assert_eq!(asked(accept), Ok(Page::Text), "{accept}");
        }
        let json = "application/json;v=v1beta1;g=config.k8s.io;as=Statusz";
        assert_eq!(asked(json), object("application/json", "v1beta1"));
        assert_eq!(asked(&format!("{json},text/plain")), object("application/json", "v1beta1"));
        let yaml = "application/yaml;v=v1alpha1;g=config.k8s.io;as=Statusz";
        assert_eq!(asked(yaml), object("application/yaml", "v1alpha1"));
        let refused =
            "only the following media types are accepted: application/json, application/yaml, text/plain";
        for accept in [
            "application/json",
            "application/json;v=v1beta1;g=config.k8s.io;as=Flagz",
            "application/json;v=v1;g=config.k8s.io;as=Statusz",
            "application/vnd.kubernetes.protobuf",
        ] {
            assert_eq!(asked(accept), Err(refused.to_owned()), "{accept}");
        }
    }
}
