//! What differs between any two runs gets a name: the first uid of a sequence is `<uid 1>` on both servers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

use super::playing::{Answer, Body};

/// What was named so far in one sequence on one server.
pub struct Names {
    /// `2026-11-23`, and the days around it: of what happens while we run.
    days: Vec<String>,
    /// By kind of thing, in the order of their first appearance.
    seen: BTreeMap<&'static str, Vec<String>>,
    /// What was made of a generateName, and what it is called here.
    generated: Vec<(String, String)>,
    /// What the request asks to be made of a generateName, which a refusal names too.
    asked: Option<(Regex, String)>,
}

static UID: LazyLock<Regex> =
    LazyLock::new(|| pattern("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"));
static TIME: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(\d{4}-\d\d-\d\d)T\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"));
static TOKEN: LazyLock<Regex> = LazyLock::new(|| pattern(r"eyJ[\w-]+\.[\w-]+\.[\w-]+"));
/// Of services: the range that both servers are given.
static SERVICE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b10\.100\.\d{1,3}\.\d{1,3}\b"));
static HOST: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b127\.0\.0\.1:\d+\b"));
/// That a message names.
static REVISION: LazyLock<Regex> = LazyLock::new(|| pattern(r"ResourceVersion in record \(\d+\)"));
/// Of the volume with a pod's token.
static VOLUME: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bkube-api-access-[a-z0-9]{5}\b"));
static AGE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\d{1,2}s$"));

fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of this file")
}

impl Names {
    pub fn new(days: &[String]) -> Self {
        Self { days: days.to_vec(), seen: BTreeMap::new(), generated: Vec::new(), asked: None }
    }

    /// The body of the request that is answered next.
    pub fn ask(&mut self, body: Option<&Value>) {
        let from = body.and_then(|body| body.pointer("/metadata/generateName")?.as_str());
        self.asked = from.filter(|from| !from.is_empty()).map(|from| {
            let made = format!("{}[bcdfghjklmnpqrstvwxz2456789]{{5}}", regex::escape(from));
            (pattern(&made), format!("{from}<5 random>"))
        });
    }

    pub fn answer(&mut self, answer: &Answer) -> Answer {
        let body = match &answer.body {
            Body::Json(value) => Body::Json(self.value("", value)),
            Body::Lines(lines) => Body::Lines(lines.iter().map(|line| self.value("", line)).collect()),
            Body::Text(text) => Body::Text(self.text(text)),
        };
        let named = answer.headers.iter().map(|(name, values)| {
            let named = values.iter().map(|value| match &**name {
                // Of what the body says, which is compared.
                "etag" => "<etag>".to_owned(),
                "audit-id" if UID.is_match(value) => "<random>".to_owned(),
                _ => self.text(value),
            });
            (name.clone(), named.collect())
        });
        Answer { code: answer.code, headers: named.collect(), body }
    }

    /// Begins to count anew: what differs once would differ for ever.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    fn nth(&mut self, kind: &'static str, value: &str) -> String {
        let seen = self.seen.entry(kind).or_default();
        let at = seen.iter().position(|known| known == value).unwrap_or_else(|| {
            seen.push(value.to_owned());
            seen.len() - 1
        });
        format!("<{kind} {}>", at + 1)
    }

    /// `key`: the field that it is the value of.
    fn value(&mut self, key: &str, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                self.note_generated(value);
                // A list says the store's revision, which goes on by itself.
                let is_list = fields.get("items").is_some() || fields.get("rows").is_some();
                let named = fields.iter().map(|(name, value)| {
                    let mut value = Cow::Borrowed(value);
                    if is_list && name == "metadata" && value.get("resourceVersion").is_some() {
                        value.to_mut()["resourceVersion"] = "<revision>".into();
                    }
                    (self.text(name), self.value(name, &value))
                });
                Value::Object(named.collect())
            }
            Value::Array(items) => {
                let mut named: Vec<Value> = items.iter().map(|item| self.value(key, item)).collect();
                if key == "managedFields" {
                    // They stand in the order of their times, which is another one where a second ends between two writes.
                    named.sort_by_key(|entry| {
                        ["operation", "manager", "subresource", "apiVersion"].map(|of| entry[of].to_string())
                    });
                }
                Value::Array(named)
            }
            Value::String(text) => Value::String(self.field(key, text)),
            Value::Number(_) if matches!(key, "nodePort" | "healthCheckNodePort") => "<port>".into(),
            _ => value.clone(),
        }
    }

    fn field(&mut self, key: &str, text: &str) -> String {
        match key {
            "resourceVersion" if text.parse::<u64>().is_ok_and(|revision| revision > 0) => {
                self.nth("revision", text)
            }
            "continue" if !text.is_empty() => "<continue>".into(),
            "cells" if AGE.is_match(text) => "<age>".into(),
            _ => self.text(text),
        }
    }

    fn note_generated(&mut self, object: &Value) {
        let (name, from) = (&object["name"], &object["generateName"]);
        if let (Some(name), Some(from)) = (name.as_str(), from.as_str())
            && name.len() > from.len()
            && !self.generated.iter().any(|(known, _)| known == name)
        {
            let called = format!("{from}<{} random>", name.len() - from.len());
            self.generated.push((name.to_owned(), called));
        }
    }

    fn text(&mut self, text: &str) -> String {
        let text = TOKEN.replace_all(text, "<token>");
        let text = UID.replace_all(&text, |found: &Captures| self.nth("uid", &found[0]));
        let text = TIME.replace_all(&text, |found: &Captures| {
            if !self.days.iter().any(|day| day == &found[1]) {
                return found[0].to_owned();
            }
            let digits = found.get(2).map_or(0, |fraction| fraction.len() - 1);
            if digits == 0 { "<time>".into() } else { format!("<time, {digits} digits>") }
        });
        let text = REVISION.replace_all(&text, "ResourceVersion in record (<revision>)");
        let text = SERVICE.replace_all(&text, |found: &Captures| self.nth("address", &found[0]));
        let text = VOLUME.replace_all(&text, "kube-api-access-<5 random>");
        let mut text = HOST.replace_all(&text, "<server>").into_owned();
        for (name, called) in &self.generated {
            text = text.replace(name, called);
        }
        if let Some((made, called)) = &self.asked {
            text = made.replace_all(&text, called).into_owned();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_random_is_named_in_its_order() {
        let mut names = Names::new(&["2026-11-23".into()]);
        let uid = "7c0a3a4e-6a0e-4c80-9d0e-0123456789ab";
        let object = json!({"metadata": {"uid": uid, "resourceVersion": "41", "creationTimestamp": "2026-11-23T10:00:00Z",
            "name": "job-x7k2p", "generateName": "job-", "note": "2020-01-01T00:00:00Z"},
            "spec": {"clusterIP": "10.100.3.4", "renewTime": "2026-11-23T10:00:00.123456Z", "nodePort": 30_001}});
        let named = names.value("", &object);
        assert_eq!(
            named,
            json!({"metadata": {"uid": "<uid 1>", "resourceVersion": "<revision 1>", "creationTimestamp": "<time>",
                "name": "job-<5 random>", "generateName": "job-", "note": "2020-01-01T00:00:00Z"},
                "spec": {"clusterIP": "<address 1>", "renewTime": "<time, 6 digits>", "nodePort": "<port>"}})
        );
        assert_eq!(names.text(&format!("{uid}: job-x7k2p")), "<uid 1>: job-<5 random>");
        names.ask(Some(&json!({"metadata": {"generateName": "A_"}})));
        assert_eq!(names.text("Pod \"A_x7k2p\" is invalid"), "Pod \"A_<5 random>\" is invalid");
        assert_eq!(names.field("resourceVersion", "42"), "<revision 2>");
    }
}
