//! Requests as they are made of one server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use regex::{Captures, Regex};
use serde_json::{Value, json};

use super::cases::{Sequence, Step};
use super::servers::Side;
use crate::servers::Connection;

/// The headers that are compared.
pub const HEADERS: &[&str] = &[
    "allow",
    "cache-control",
    "content-encoding",
    "content-type",
    "etag",
    "location",
    "retry-after",
    "vary",
    "warning",
    "www-authenticate",
];

/// So many letters: for what is too long.
static LETTERS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\$\{(\d{1,8}) letters\}").expect("a pattern of this file"));

const FLOW_HEADS: &str = "x-kubernetes-pf-";

/// What became of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// 0: none that could be read; the body says why.
    pub code: u16,
    pub headers: BTreeMap<String, Vec<String>>,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Json(Value),
    /// The events of a watch.
    Lines(Vec<Value>),
    Text(String),
}

impl Default for Body {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// What is known while a sequence is played to one server.
pub struct Player<'a> {
    side: &'a Side,
    words: BTreeMap<String, String>,
    /// The names of flow schemas and priority levels by their uids, once somebody asks.
    flows: BTreeMap<String, String>,
}

impl<'a> Player<'a> {
    /// Makes the namespace that the sequence asks for.
    pub async fn begin(side: &'a Side, sequence: &Sequence, namespace: &str) -> Result<Self> {
        let words = BTreeMap::from([("ns".to_owned(), namespace.to_owned())]);
        let mut player = Self { side, words, flows: BTreeMap::new() };
        if sequence.steps.iter().any(|step| step.heads.iter().any(|head| head.starts_with(FLOW_HEADS))) {
            for resource in ["flowschemas", "prioritylevelconfigurations"] {
                player.learn(resource).await?;
            }
        }
        if sequence.has_namespace() {
            let kinds = [
                ("namespaces", "Namespace", namespace),
                ("namespaces/${ns}/serviceaccounts", "ServiceAccount", "default"),
            ];
            for (path, kind, name) in kinds {
                let body = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
                let step = json!({"ask": format!("POST /api/v1/{path}"), "body": body});
                let step: Step = serde_json::from_value(step)?;
                let answer = player.play(&step, step.body.as_ref()).await;
                anyhow::ensure!(answer.code == 201, "make {kind} {name}: {answer:?}");
            }
        }
        Ok(player)
    }

    async fn learn(&mut self, resource: &str) -> Result<()> {
        let step = json!({"ask": format!("GET /apis/flowcontrol.apiserver.k8s.io/v1/{resource}")});
        let answer = self.ask(&serde_json::from_value(step)?, None).await?;
        let Body::Json(list) = &answer.body else { anyhow::bail!("list {resource}: {answer:?}") };
        let text = |object: &Value, field: &str| plain(&object["metadata"][field]);
        let all = list["items"].as_array().into_iter().flatten();
        self.flows.extend(all.map(|object| (text(object, "uid"), text(object, "name"))));
        Ok(())
    }

    pub async fn play(&mut self, step: &Step, body: Option<&Value>) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let answer = match self.ask(step, body).await {
                Ok(answer) => answer,
                Err(error) => Answer { body: Body::Text(format!("{error:#}")), ..Answer::default() },
            };
            if step.until.is_none_or(|code| code == answer.code) || Instant::now() > deadline {
                if let Body::Json(body) = &answer.body {
                    let kept = step.keep.iter().filter_map(|(word, at)| Some((word, body.pointer(at)?)));
                    self.words.extend(kept.map(|(word, value)| (word.clone(), plain(value))));
                }
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn fill(&self, text: &str) -> String {
        let fill =
            |text: String, (word, value): (&String, &String)| text.replace(&format!("${{{word}}}"), value);
        let filled = self.words.iter().fold(text.to_owned(), fill);
        LETTERS
            .replace_all(&filled, |found: &Captures| "x".repeat(found[1].parse().unwrap_or(0)))
            .into_owned()
    }

    fn request(&self, step: &Step, body: Option<&Value>) -> Result<String> {
        let (method, path) = step.ask.split_once(' ').context("a method and a path")?;
        let body = self.fill(&body.map(plain).unwrap_or_default());
        let mut headers: Vec<(String, String)> = vec![("Host".into(), "localhost".into())];
        let mut add = |name: &str, value: String| {
            // What a step says itself stands.
            if !step.headers.keys().any(|said| said.eq_ignore_ascii_case(name)) {
                headers.push((name.to_owned(), value));
            }
        };
        add("Accept", "application/json".into());
        add("User-Agent", "compare".into());
        if step.body.is_some() || !step.each.is_empty() {
            add("Content-Type", step.media_type().into());
        }
        if let Some(token) = step.token.as_deref().filter(|token| !token.is_empty()) {
            add("Authorization", format!("Bearer {token}"));
        }
        if let Some(user) = &step.user {
            add("Impersonate-User", user.user.clone());
            user.groups.iter().for_each(|group| add("Impersonate-Group", group.clone()));
            for (key, values) in &user.extra {
                values.iter().for_each(|value| add(&format!("Impersonate-Extra-{key}"), value.clone()));
            }
        }
        headers.push(("Content-Length".into(), body.len().to_string()));
        headers.extend(step.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        let lines: String =
            headers.iter().map(|(name, value)| format!("{name}: {}\r\n", self.fill(value))).collect();
        Ok(format!("{method} {} HTTP/1.1\r\n{lines}\r\n{body}", self.fill(path)))
    }

    async fn ask(&self, step: &Step, body: Option<&Value>) -> Result<Answer> {
        let door = if step.token.is_some() { &self.side.nobody } else { &self.side.administrator };
        let mut connection = Connection::open(door).await?;
        let head = connection.ask(self.request(step, body)?.as_bytes()).await?;
        let mut read = Vec::new();
        if !step.ask.starts_with("HEAD ") {
            let more = connection.body(&head, |piece| {
                read.extend_from_slice(piece);
                step.lines.is_some_and(|lines| read.iter().filter(|byte| **byte == b'\n').count() >= lines)
            });
            tokio::time::timeout(Duration::from_secs(20), more)
                .await
                .context("the answer does not end")??;
        }
        let mut headers = BTreeMap::new();
        for name in HEADERS.iter().copied().chain(step.heads.iter().map(String::as_str)) {
            let named = |value: &str| self.flows.get(value).map_or(value, String::as_str).to_owned();
            let values: Vec<String> = head.all(name).map(named).collect();
            if !values.is_empty() {
                headers.insert(name.to_owned(), values);
            }
        }
        if head.all("Content-Encoding").any(|encoding| encoding == "gzip") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&read[..]).read_to_end(&mut plain).context("unpack the answer")?;
            read = plain;
        }
        let is_watch = step.ask.contains("watch=") || step.lines.is_some();
        let body = if step.series.is_empty() {
            Body::of(&read, is_watch)
        } else {
            Body::Json(series(&String::from_utf8_lossy(&read), &step.series))
        };
        Ok(Answer { code: head.code, headers, body })
    }
}

impl Body {
    fn of(bytes: &[u8], is_watch: bool) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if is_watch && let Ok(lines) = text.lines().map(serde_json::from_str).collect() {
            return Self::Lines(lines);
        }
        match serde_json::from_str(&text) {
            Ok(value) => Self::Json(value),
            Err(_) => Self::Text(text),
        }
    }
}

/// Prometheus' text format: each metric that has samples, with its type and the names of its labels.
fn series(page: &str, prefixes: &[String]) -> Value {
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut found: BTreeMap<&str, (&str, BTreeSet<String>)> = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            types.insert(name, kind);
            continue;
        }
        let sample = line.split(['{', ' ']).next().unwrap_or_default();
        let parts = ["", "_bucket", "_count", "_sum"].map(|end| sample.strip_suffix(end).unwrap_or_default());
        let Some(name) = parts.into_iter().find(|name| types.contains_key(name)) else { continue };
        if prefixes.iter().any(|prefix| name.starts_with(&**prefix)) {
            let (_, labels) = found.entry(name).or_insert_with(|| (types[name], BTreeSet::new()));
            // The bounds of buckets are part of what a histogram is.
            labels.extend(labels_of(line).into_iter().filter(|label| label != "le"));
        }
    }
    let told = found.into_iter().map(|(name, (kind, labels))| {
        let labels: Vec<String> = labels.into_iter().collect();
        (name.to_owned(), Value::String(format!("{kind} of {}", labels.join(", "))))
    });
    Value::Object(told.collect())
}

/// The names in `metric{name="value",…} 1`.
fn labels_of(sample: &str) -> Vec<String> {
    let Some((_, rest)) = sample.split_once('{') else { return Vec::new() };
    let (mut names, mut name, mut is_value, mut is_escaped) = (Vec::new(), String::new(), false, false);
    for letter in rest.chars() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_value => is_escaped = true,
            '"' => is_value = !is_value,
            _ if is_value => {}
            '}' => break,
            '=' => names.push(std::mem::take(&mut name)),
            ',' => name.clear(),
            other => name.push(other),
        }
    }
    names
}

/// A text as it stands, all else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A merge patch, carried out: RFC 7386.
pub fn merged(target: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut fields = target.as_object().cloned().unwrap_or_default();
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
            continue;
        }
        let merged = merged(fields.get(name).unwrap_or(&Value::Null), value);
        fields.insert(name.clone(), merged);
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_metrics_it_counts_what_they_are() {
        let page = "# HELP a_total Of a.\n# TYPE a_total counter\na_total{x=\"1,y=\\\"2}\",z=\"\"} 4\n\
            # TYPE a_seconds histogram\na_seconds_bucket{x=\"1\",le=\"+Inf\"} 1\na_seconds_sum{x=\"1\"} 2\n\
            # TYPE a_none gauge\n# TYPE b gauge\nb 1\n";
        let expected = json!({"a_total": "counter of x, z", "a_seconds": "histogram of x"});
        assert_eq!(series(page, &["a_".into()]), expected);
        assert_eq!(series(page, &["b".into()]), json!({"b": "gauge of "}));
    }

    #[test]
    fn a_body_is_varied_by_a_merge_patch() {
        let body = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        let patch = json!({"a": {"b": null, "e": {"f": 3}}, "d": [2]});
        assert_eq!(merged(&body, &patch), json!({"a": {"c": 2, "e": {"f": 3}}, "d": [2]}));
    }
}
