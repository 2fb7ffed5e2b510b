//! When a Job is over, and why.

use object::Time;
use serde::Deserialize;

use super::indexes::Indexes;
use super::{Run, Spec, index_of};
use crate::views::{Condition, Pod, condition};

const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The wait after a failure doubles from here to there.
const FIRST_BACKOFF_SECS: i64 = 10;
const LONGEST_BACKOFF_SECS: i64 = 600;

/// `batch/v1` `PodFailurePolicy`.
#[derive(Deserialize)]
pub struct FailurePolicy {
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    action: String,
    on_exit_codes: Option<OnExitCodes>,
    #[serde(default)]
    on_pod_conditions: Vec<OnPodCondition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OnExitCodes {
    container_name: Option<String>,
    operator: String,
    values: Vec<i64>,
}

#[derive(Deserialize)]
struct OnPodCondition {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    status: String,
}

/// `batch/v1` `SuccessPolicy`.
#[derive(Deserialize)]
pub struct SuccessPolicy {
    #[serde(default)]
    rules: Vec<SuccessRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SuccessRule {
    succeeded_indexes: Option<String>,
    succeeded_count: Option<i64>,
}

impl SuccessRule {
    /// All of the indexes that it names, or as many of them, or of all, as it asks for.
    fn holds(&self, succeeded: &Indexes, completions: Option<i64>) -> bool {
        let Some(named) = &self.succeeded_indexes else {
            return self.succeeded_count.is_some_and(|count| succeeded.len() >= count);
        };
        let named = Indexes::parse(named, completions);
        let ended = i64::try_from(named.0.intersection(&succeeded.0).count()).unwrap_or(i64::MAX);
        ended >= self.succeeded_count.unwrap_or_else(|| named.len())
    }
}

/// The first rule of the Job's success policy that holds: KEP-3998.
fn met_rule(run: &Run) -> Option<usize> {
    let policy = run.spec.success_policy.as_ref()?;
    let succeeded = run.completed();
    let holds = |rule: &SuccessRule| rule.holds(&succeeded, run.spec.completions);
    policy.rules.iter().position(holds).filter(|_| succeeded.len() > 0)
}

/// What the first rule that fits a failed pod says: its action, and the words for the Job's condition.
fn verdict<'s>(spec: &'s Spec, pod: &Pod) -> Option<(&'s str, String)> {
    let rules = &spec.pod_failure_policy.as_ref()?.rules;
    rules.iter().enumerate().find_map(|(index, rule)| Some((rule.action.as_str(), rule.matches(pod, index)?)))
}

impl Rule {
    fn matches(&self, pod: &Pod, index: usize) -> Option<String> {
        let path = pod.object.key.path();
        if let Some(codes) = &self.on_exit_codes {
            let (name, code) = codes.matches(pod)?;
            return Some(format!(
                "Container {name} for pod {path} failed with exit code {code} matching {} rule at index {index}",
                self.action
            ));
        }
        let holds = |wanted: &&OnPodCondition| {
            let status = if wanted.status.is_empty() { "True" } else { &wanted.status };
            condition(&pod.status.conditions, &wanted.kind).is_some_and(|held| held.status == status)
        };
        let found = self.on_pod_conditions.iter().find(holds)?;
        Some(format!(
            "Pod {path} has condition {} matching {} rule at index {index}",
            found.kind, self.action
        ))
    }
}

impl OnExitCodes {
    fn matches<'p>(&self, pod: &'p Pod) -> Option<(&'p str, i64)> {
        let containers = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
        let mut ended =
            containers.filter_map(|one| Some((one.name.as_str(), one.state.terminated.as_ref()?.exit_code)));
        ended.find(|(name, code)| {
            let meant = self.container_name.as_deref().is_none_or(|wanted| wanted == *name);
            let listed = self.values.contains(code);
            meant && *code != 0 && if self.operator == "NotIn" { !listed } else { listed }
        })
    }
}

/// A failure that does not count towards the back-off limit.
pub fn is_ignored(spec: &Spec, pod: &Pod) -> bool {
    verdict(spec, pod).is_some_and(|(action, _)| action == "Ignore")
}

/// With a limit for each index: was this the last try of the pod's index?
pub fn exhausts_index(spec: &Spec, pod: &Pod) -> bool {
    let Some(limit) = spec.backoff_limit_per_index else { return false };
    let before: i64 = pod.annotations.get(FAILURES).and_then(|text| text.parse().ok()).unwrap_or(0);
    before >= limit || verdict(spec, pod).is_some_and(|(action, _)| action == "FailIndex")
}

/// Notes in `FailureTarget` or `SuccessCriteriaMet` that the Job is to end; the pods that still run are deleted then.
pub fn decide(run: &mut Run) {
    if run.has("FailureTarget") || run.has("SuccessCriteriaMet") {
        return;
    }
    if let Some((reason, message)) = failure(run) {
        run.set("FailureTarget", "True", reason, &message);
    } else if let Some(index) = met_rule(run) {
        run.set("SuccessCriteriaMet", "True", "SuccessPolicy", &format!("Matched rules at index {index}"));
    } else if has_enough(run) {
        run.set(
            "SuccessCriteriaMet",
            "True",
            "CompletionsReached",
            "Reached expected number of succeeded pods",
        );
    }
}

fn failure(run: &mut Run) -> Option<(&'static str, String)> {
    let by_policy = run.pods.iter().filter(|pod| pod.status.phase == "Failed").find_map(|pod| {
        verdict(&run.spec, pod).filter(|(action, _)| *action == "FailJob").map(|(_, message)| message)
    });
    if let Some(message) = by_policy {
        return Some(("PodFailurePolicy", message));
    }
    let failed = run.new.failed + i64::try_from(run.new.uncounted_terminated_pods.failed.len()).unwrap_or(0);
    let limit = run.spec.backoff_limit.unwrap_or(6);
    if failed > limit || has_too_many_restarts(run, limit) {
        return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".into()));
    }
    if let Some(deadline) = deadline(run) {
        if deadline <= run.now {
            return Some(("DeadlineExceeded", "Job was active longer than specified deadline".into()));
        }
        run.plan.wake(deadline);
    }
    failed_by_index(run)
}

fn deadline(run: &Run) -> Option<Time> {
    Some(run.new.start_time?.plus_secs(run.spec.active_deadline_seconds?)).filter(|_| !run.spec.suspend)
}

/// With `restartPolicy: OnFailure` the kubelet starts containers again in the same pod; those count as failures too.
fn has_too_many_restarts(run: &Run, limit: i64) -> bool {
    let restarts_of = |pod: &Pod| -> i64 {
        let all = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
        all.map(|one| one.restart_count).sum()
    };
    let running = |pod: &&Pod| pod.spec.restart_policy == "OnFailure" && !pod.is_finished();
    let restarts: i64 = run.pods.iter().filter(running).map(restarts_of).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

fn failed_by_index(run: &Run) -> Option<(&'static str, String)> {
    run.spec.backoff_limit_per_index?;
    let failed = run.failed_indexes();
    if run.spec.max_failed_indexes.is_some_and(|most| failed.len() > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(("MaxFailedIndexesExceeded", message.into()));
    }
    let ended = failed.len() + run.completed().len();
    let all_ended = failed.len() > 0 && run.spec.completions.is_some_and(|completions| ended >= completions);
    all_ended.then(|| ("FailedIndexes", "Job has failed indexes".into()))
}

/// Enough successes; without a number, one is enough once the others have ended.
fn has_enough(run: &Run) -> bool {
    let noted = i64::try_from(run.new.uncounted_terminated_pods.succeeded.len()).unwrap_or(0);
    let succeeded = run.new.succeeded + noted;
    match run.spec.completions {
        Some(completions) => succeeded >= completions,
        None => succeeded > 0 && !run.pods.iter().any(|pod| !pod.is_finished()),
    }
}

/// Everything has ended and is counted: says so for good.
pub fn conclude(run: &mut Run) {
    if let Some(Condition { reason, message, .. }) = condition(&run.new.conditions, "FailureTarget").cloned()
    {
        run.set("Failed", "True", &reason, &message);
        run.event(true, known_reason(&reason), message);
    } else if let Some(Condition { reason, message, .. }) =
        condition(&run.new.conditions, "SuccessCriteriaMet").cloned()
    {
        run.set("Complete", "True", &reason, &message);
        run.new.completion_time = Some(crate::views::whole_second(run.now));
        run.event(false, "Completed", "Job completed");
    }
}

fn known_reason(reason: &str) -> &'static str {
    let known = ["DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded", "PodFailurePolicy"];
    known.into_iter().find(|known| *known == reason).unwrap_or("BackoffLimitExceeded")
}

/// How many failed since the last success, and when the last of them did: (failures, time).
fn failures(pods: &[&Pod]) -> Option<(i64, Time)> {
    let ended = |phase: &str| -> Vec<Time> {
        pods.iter().filter(|pod| pod.status.phase == phase).map(|pod| end_of(pod)).collect()
    };
    let last_success = ended("Succeeded").into_iter().max();
    let failures: Vec<Time> = ended("Failed").into_iter().filter(|at| Some(*at) > last_success).collect();
    Some((i64::try_from(failures.len()).ok()?, failures.into_iter().max()?))
}

fn end_of(pod: &Pod) -> Time {
    let ended =
        pod.status.container_statuses.iter().filter_map(|one| one.state.terminated.as_ref()?.finished_at);
    ended.max().or(pod.object.meta.creation_timestamp).unwrap_or_default()
}

/// Until when no new pod is made (of one index, if there is a limit for each): 10 s after a failure, then 20 s, 40 s, … 10 min.
pub fn backoff_until(run: &Run, index: Option<i64>) -> Option<Time> {
    let of_index = |pod: &&Pod| index.is_none() || index_of(pod) == index;
    let pods: Vec<&Pod> = run.pods.iter().filter(of_index).collect();
    let (count, last) = failures(&pods)?;
    let doublings = u32::try_from(count - 1).unwrap_or(0).min(10);
    let wait = (FIRST_BACKOFF_SECS << doublings).min(LONGEST_BACKOFF_SECS);
    Some(last.plus_secs(wait)).filter(|until| *until > run.now)
}

/// How often an index has failed so far, for the pod that tries it again.
pub fn failure_count(run: &Run, index: i64) -> i64 {
    let of_index = run.pods.iter().filter(|pod| index_of(pod) == Some(index) && pod.status.phase == "Failed");
    let tried = of_index
        .map(|pod| pod.annotations.get(FAILURES).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0) + 1);
    tried.max().unwrap_or(0)
}

pub const FAILURE_COUNT: &str = FAILURES;
