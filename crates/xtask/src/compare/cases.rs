//! What is asked: sequences of requests, as `testdata/compare/AREA.yaml` has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// A file of sequences.
pub struct Area {
    pub name: String,
    pub sequences: Vec<Sequence>,
}

/// Requests that are made one after another, and that others need not come before.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    pub name: String,
    /// Of every step.
    #[serde(default)]
    pub ignore: Vec<Ignored>,
    pub steps: Vec<Step>,
}

/// A request. In its texts `${ns}` is a namespace of the sequence's own with a service account `default`, and `${word}` what an earlier
/// step kept; `${64 letters}` is so many of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// `POST /api/v1/namespaces/${ns}/pods?dryRun=All`
    pub ask: String,
    /// The body's type: one of `TYPES`, or a media type. JSON if nothing is said.
    #[serde(rename = "type")]
    pub content_type: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A text is sent as it stands, all else as JSON.
    pub body: Option<Value>,
    /// Merge patches: the request is made for each, with the body as it makes it. Without a body, each is one.
    #[serde(default)]
    pub each: Vec<Value>,
    /// Who asks, impersonated by the administrator.
    #[serde(rename = "as")]
    pub user: Option<Impersonated>,
    /// Who asks, by a token instead of the administrator's certificate. An empty one is nobody's: the request carries none.
    pub token: Option<String>,
    /// JSON pointers into the answer by the words that later steps use.
    #[serde(default)]
    pub keep: BTreeMap<String, String>,
    /// Asks again until the answer has this status, for what a server does soon.
    pub until: Option<u16>,
    /// Reads so many lines of the answer and ends it: the events of a watch.
    pub lines: Option<usize>,
    /// Headers that are compared besides those of every answer; those of API Priority and Fairness by the names that their uids stand for.
    #[serde(default)]
    pub heads: Vec<String>,
    /// The answer is a page of metrics. Of those whose names begin with one of these it is compared what they are and which labels they
    /// have, not what they count.
    #[serde(default)]
    pub series: Vec<String>,
    #[serde(default)]
    pub ignore: Vec<Ignored>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Impersonated {
    pub user: String,
    #[serde(default)]
    pub groups: Vec<String>,
    #[serde(default)]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// A difference that is known.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ignored {
    /// `code`, `header/warning`, `body`, `body/items/*/metadata/uid`: what is below is ignored too.
    pub at: String,
    /// For readers, and the table of them that a run ends with.
    pub because: String,
}

/// A difference that is known wherever it appears.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// As of one that is ignored.
    pub at: String,
    /// A regular expression that upstream's text matches.
    pub upstream: String,
    pub because: String,
}

/// The file of those in the folder of areas.
const KNOWN: &str = "known.yaml";

/// Short words for media types.
const TYPES: &[(&str, &str)] = &[
    ("apply", "application/apply-patch+yaml"),
    ("json-patch", "application/json-patch+json"),
    ("merge", "application/merge-patch+json"),
    ("strategic", "application/strategic-merge-patch+json"),
    ("yaml", "application/yaml"),
];

impl Step {
    pub fn media_type(&self) -> &str {
        let said = self.content_type.as_deref().unwrap_or("application/json");
        TYPES.iter().find(|(word, _)| *word == said).map_or(said, |(_, media_type)| media_type)
    }
}

impl Sequence {
    /// Whether it wants a namespace.
    pub fn has_namespace(&self) -> bool {
        const WORD: &str = "${ns}";
        self.steps.iter().any(|step| {
            let bodies = step.body.iter().chain(&step.each);
            step.ask.contains(WORD) || bodies.into_iter().any(|body| body.to_string().contains(WORD))
        })
    }
}

fn folder() -> PathBuf {
    crate::root().join("testdata/compare")
}

/// What is known of everywhere.
pub fn known() -> Result<Vec<Known>> {
    parse(&folder().join(KNOWN))
}

/// The sequences of these areas, or of files (`x.yaml`), whose names have one of these words; without words all of all.
pub fn chosen(words: &[String]) -> Result<Vec<Area>> {
    let folder = folder();
    let mut files: Vec<PathBuf> =
        words.iter().filter(|word| word.ends_with(".yaml")).map(PathBuf::from).collect();
    let words: Vec<&String> = words.iter().filter(|word| !word.ends_with(".yaml")).collect();
    if files.is_empty() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        files = entries.map(|entry| anyhow::Ok(entry?.path())).collect::<Result<_>>()?;
        files.retain(|file| {
            file.extension().is_some_and(|extension| extension == "yaml") && !file.ends_with(KNOWN)
        });
        files.sort();
    }
    let mut areas = Vec::new();
    for file in files {
        let mut area = read(&file)?;
        if !words.is_empty() && !words.contains(&&area.name) {
            area.sequences.retain(|sequence| words.iter().any(|word| sequence.name.contains(word.as_str())));
        }
        if !area.sequences.is_empty() {
            areas.push(area);
        }
    }
    if areas.is_empty() {
        bail!("no area and no sequence in {} is called so", folder.display());
    }
    Ok(areas)
}

fn read(file: &Path) -> Result<Area> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Area { name, sequences: parse(file)? })
}

fn parse<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    // Strictly: `n` and `on` are texts.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(&text, options).with_context(|| format!("read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_area_is_read_and_every_step_is_a_request() {
        for area in chosen(&[]).expect("the areas") {
            for sequence in &area.sequences {
                for step in &sequence.steps {
                    let (method, path) = step.ask.split_once(' ').expect("a method and a path");
                    let is_request = method.chars().all(|c| c.is_ascii_uppercase()) && path.starts_with('/');
                    assert!(is_request, "{}: {}: {}", area.name, sequence.name, step.ask);
                }
                let ignored = sequence.steps.iter().flat_map(|step| &step.ignore).chain(&sequence.ignore);
                for Ignored { at, because } in ignored {
                    assert!(because.len() > 10, "{}: {}: why is {at} ignored?", area.name, sequence.name);
                }
            }
        }
    }
}
