//! `xtask compare`: the same requests to upstream's own API server and to ours, and where the answers differ.
//!
//! Upstream's server is alone: it has no controllers and no nodes, and ours is started without them too. What is asked is data, and so
//! are the differences that are known, each with its reason. No test: compiling upstream's server takes ten minutes.

mod cases;
mod comparing;
mod normal;
mod playing;
mod servers;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use object::Time;
use serde_json::Value;

use cases::{Area, Ignored, Sequence, Step};
use comparing::{Difference, KnownEverywhere, differences};
use normal::Names;
use playing::{Answer, Body, Player, merged};
use servers::Both;

/// What all answers came to.
#[derive(Default)]
struct Tally {
    answers: usize,
    known: usize,
    differing: usize,
    /// Why differences are known, and how many each reason covers.
    reasons: BTreeMap<String, usize>,
}

/// Words choose: an area, a part of a sequence's name, a file. `--show` prints the answers of both, alike or not.
pub fn run(words: &[String]) -> Result<()> {
    let is_shown = words.iter().any(|word| word == "--show");
    let words: Vec<String> = words.iter().filter(|word| !word.starts_with("--")).cloned().collect();
    let areas = cases::chosen(&words)?;
    let known = KnownEverywhere::new(cases::known()?)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let tally = runtime.block_on(async {
        let both = Both::start().await?;
        let mut tally = Tally::default();
        for area in &areas {
            for (nth, sequence) in area.sequences.iter().enumerate() {
                let namespace = format!("{}-{}", area.name, nth + 1);
                let context = || format!("{}: {}", area.name, sequence.name);
                played(&both, area, sequence, &namespace, is_shown, &known, &mut tally)
                    .await
                    .with_context(context)?;
            }
        }
        anyhow::Ok(tally)
    })?;
    let Tally { answers, known, differing, reasons } = tally;
    reasons.iter().for_each(|(because, count)| println!("known, {count} times: {because}"));
    println!("{answers} answers compared: {differing} differ, {known} have differences that are known");
    ensure!(differing == 0, "answers differ in a way that is not known");
    Ok(())
}

async fn played(
    both: &Both,
    area: &Area,
    sequence: &Sequence,
    namespace: &str,
    is_shown: bool,
    known: &KnownEverywhere,
    tally: &mut Tally,
) -> Result<()> {
    let (mut upstream, mut ours) = tokio::try_join!(
        Player::begin(&both.upstream, sequence, namespace),
        Player::begin(&both.ours, sequence, namespace),
    )?;
    let days = days();
    let (mut their_names, mut our_names) = (Names::new(&days), Names::new(&days));
    for step in &sequence.steps {
        for body in bodies(step) {
            let (theirs, mine) =
                tokio::join!(upstream.play(step, body.as_ref()), ours.play(step, body.as_ref()));
            their_names.ask(body.as_ref());
            our_names.ask(body.as_ref());
            let (theirs, mine) = (their_names.answer(&theirs), our_names.answer(&mine));
            if theirs.code != mine.code {
                their_names.forget();
                our_names.forget();
            }
            let (mut unknown, mut is_known) = (Vec::new(), false);
            for difference in differences(&theirs, &mine) {
                let mut ignored = step.ignore.iter().chain(&sequence.ignore);
                let here = ignored.find(|ignored| ignored.covers(&difference));
                let here = here.map(|Ignored { because, .. }| &**because);
                let Some(because) = here.or_else(|| known.reason(&difference)) else {
                    unknown.push(difference);
                    continue;
                };
                is_known = true;
                *tally.reasons.entry(because.to_owned()).or_default() += 1;
            }
            tally.answers += 1;
            tally.known += usize::from(is_known);
            tally.differing += usize::from(!unknown.is_empty());
            if is_shown || !unknown.is_empty() {
                println!("\n{}: {}: {}", area.name, sequence.name, step.ask);
                if let (Some(body), false) = (&body, step.each.is_empty()) {
                    println!("  with {body}");
                }
            }
            if is_shown {
                show("upstream", &theirs);
                show("ours", &mine);
            }
            unknown.iter().for_each(tell);
        }
    }
    Ok(())
}

/// The bodies that a step is made with, each once.
fn bodies(step: &Step) -> Vec<Option<Value>> {
    if step.each.is_empty() {
        return vec![step.body.clone()];
    };
    let made = |each: &Value| step.body.as_ref().map_or_else(|| each.clone(), |body| merged(body, each));
    step.each.iter().map(|each| Some(made(each))).collect()
}

/// Yesterday, today and tomorrow: `2026-11-23`. A run may last over midnight.
fn days() -> Vec<String> {
    let day = |days: i64| {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros();
        let micros = i64::try_from(since).unwrap_or(i64::MAX).saturating_add(days * 86_400_000_000);
        Time::from_micros(micros).to_string().chars().take(10).collect()
    };
    [-1, 0, 1].map(day).to_vec()
}

fn show(who: &str, answer: &Answer) {
    println!("  {who}: {} {:?}", answer.code, answer.headers);
    match &answer.body {
        Body::Json(value) => println!("    {value}"),
        Body::Lines(lines) => lines.iter().for_each(|line| println!("    {line}")),
        Body::Text(text) => println!("    {text}"),
    }
}

fn tell(difference: &Difference) {
    let said = |value: &Option<Value>| value.as_ref().map_or("nothing".to_owned(), Value::to_string);
    let Difference { at, upstream, ours } = difference;
    println!("  {at}\n    upstream  {}\n    ours      {}", said(upstream), said(ours));
}
