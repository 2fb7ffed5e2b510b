//! `POST pods/{name}/eviction`: a deletion that asks the pod's disruption budget first.
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/>. The budget is spent in the transaction that gives a pod its
//! grace: after a crash between them a disruption that nobody made would keep others from being evicted for two minutes.

use std::sync::Arc;

use admission::Operation;
use kinds::POD_DISRUPTION_BUDGETS;
use object::{Cause, LabelSelector, Object, Reason, Snapshot, Status, Time};
use plan::Propagation;
use schema::{Violation, ViolationKind, path};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Op, Precondition};

use crate::commit::{self, Failed};
use crate::delete::{Fate, fate, hold};
use crate::ownership::Elsewhere;
use crate::pod::{set_condition, success};
use crate::request::{DeleteOptions, Options, Outcome, Preconditions, Request};
use crate::{Gate, metadata, ownership};

const ATTEMPTS: u32 = 64;
const MOST_DISRUPTED: usize = 2000;

#[derive(Deserialize)]
struct Budget {
    #[serde(default)]
    spec: BudgetSpec,
    #[serde(default)]
    status: BudgetStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BudgetSpec {
    selector: Option<LabelSelector>,
    unhealthy_pod_eviction_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BudgetStatus {
    observed_generation: i64,
    disruptions_allowed: i64,
    current_healthy: i64,
    desired_healthy: i64,
    disrupted_pods: Option<serde_json::Map<String, Value>>,
}

pub(crate) async fn evict(gate: &Gate, request: &Request<'_>, mut body: Value) -> Result<Outcome, Status> {
    path::set_default(&mut body, "apiVersion", "policy/v1");
    path::set_default(&mut body, "kind", "Eviction");
    let (version, kind) = (path::text(&body, "apiVersion"), path::text(&body, "kind"));
    if kind != "Eviction" || !matches!(version, "policy/v1" | "policy/v1beta1") {
        let why = crate::decode::unfit("Eviction", "policy", version, kind);
        return Err(Status::bad_request(why));
    }
    let passed = gate.admit(request, Operation::Create, body).await?;
    let (body, warnings) = (passed.object, passed.warnings);
    let mut asked = options(request, &body)?;
    let dry = Options { dry_run: is_dry(request, &body)?, ..request.options.clone() };
    let request = &Request { options: &dry, ..*request };
    let key = commit::key_of(request, request.name);
    let (mut raced, mut is_spent) = (0, false);
    for _ in 0..ATTEMPTS {
        let snapshot = gate.newest_of(&key, raced).await?;
        let stored = snapshot.get(&key).ok_or_else(|| Status::not_found(&key))?;
        // Before anything is marked or spent: what is not the pod that was meant keeps its budget too.
        hold(request.kind, stored, &asked.preconditions)?;
        let pod = stored.to_value().map_err(Status::internal)?;
        let now = gate.now();
        let spent = if is_spent || ignores_budgets(stored, &pod) {
            None
        } else {
            spend(gate, request, &snapshot, stored, &pod, now)?
        };
        if request.options.dry_run {
            return Ok(Outcome { created: true, warnings, ..Outcome::made(success()) });
        }
        let marked = if stored.meta.is_deleting() { pod.clone() } else { marked(pod.clone(), now) };
        let fate = fate(request.kind, stored, marked.clone(), &asked, now);
        // What goes at once is marked before: who watches is shown its last state as it was stored.
        let done = if matches!(fate, Fate::Removed(_)) && marked != pod {
            let mark =
                commit::put(commit::draft(request.kind, &key, &marked)?, Precondition::At(stored.revision));
            gate.commit(&key, [mark].into_iter().chain(spent).collect()).await
        } else {
            match gate.meet(request, request.kind, &snapshot, stored, fate, spent).await {
                Ok(_) => return Ok(Outcome { created: true, warnings, ..Outcome::made(success()) }),
                Err(failed) => Err(failed),
            }
        };
        match done {
            Ok(events) => {
                let marked = commit::committed(&key, &events)?;
                // The pod that was marked goes, and none that has its name meanwhile. Who named a revision means the one that the mark made.
                let revision = asked.preconditions.revision.map(|_| marked.revision.to_string().into());
                asked.preconditions =
                    Preconditions { uid: Some(marked.meta.uid.to_string().into()), revision };
                (raced, is_spent) = (raced.max(marked.revision), true);
            }
            Err(Failed::Status(status)) => return Err(status),
            Err(Failed::Raced { revision, .. }) => raced = raced.max(revision).max(1),
        }
    }
    Err(Status::stale(&key))
}

/// The pod with the condition that says why it goes.
fn marked(mut pod: Value, now: Time) -> Value {
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting"});
    set_condition(&mut pod, condition, now);
    pod
}

/// `kubectl drain --dry-run=server` says so in the body, others in the query.
fn is_dry(request: &Request<'_>, body: &Value) -> Result<bool, Status> {
    let told = path::list(body, "deleteOptions.dryRun");
    match told.iter().find(|one| *one != "All") {
        Some(_) => {
            let violation = Violation {
                kind: ViolationKind::NotSupported,
                field: "dryRun".into(),
                value: Value::from(told).to_string(),
                detail: "supported values: \"All\"".into(),
            };
            Err(Violation::to_status(&[violation], "meta.k8s.io", "DeleteOptions", ""))
        }
        None => Ok(request.options.dry_run || !told.is_empty()),
    }
}

fn options(request: &Request<'_>, body: &Value) -> Result<DeleteOptions, Status> {
    let name = metadata::text(body, "name");
    if name != request.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let uid = path::text(body, "deleteOptions.preconditions.uid");
    let revision = path::text(body, "deleteOptions.preconditions.resourceVersion");
    let propagation = match path::text(body, "deleteOptions.propagationPolicy") {
        "Foreground" => Some(Propagation::Foreground),
        "Background" => Some(Propagation::Background),
        "Orphan" => Some(Propagation::Orphan),
        _ => None,
    };
    Ok(DeleteOptions {
        grace_seconds: path::int(body, "deleteOptions.gracePeriodSeconds"),
        propagation,
        orphan_dependents: None,
        preconditions: Preconditions {
            uid: (!uid.is_empty()).then(|| uid.into()),
            revision: (!revision.is_empty()).then(|| revision.into()),
        },
    })
}

/// Pods that do not run, or end anyway, are of no use to a budget.
fn ignores_budgets(stored: &Object, pod: &Value) -> bool {
    stored.meta.is_deleting()
        || matches!(path::text(pod, "status.phase"), "Pending" | "Succeeded" | "Failed" | "")
}

/// Takes one disruption from the pod's budget: the write that does so, or None if the pod has none or costs none.
fn spend(
    gate: &Gate,
    request: &Request<'_>,
    snapshot: &Snapshot,
    stored: &Object,
    pod: &Value,
    now: Time,
) -> Result<Option<Op>, Status> {
    let mut matching: Vec<(&Arc<Object>, Budget)> = Vec::new();
    for object in snapshot.list(POD_DISRUPTION_BUDGETS, &stored.key.namespace) {
        let budget: Budget = object.decode().map_err(Status::internal)?;
        if budget.spec.selector.as_ref().is_some_and(|selector| selector.matches(&stored.meta.labels)) {
            matching.push((object, budget));
        }
    }
    if matching.len() > 1 {
        let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::new(Reason::Unknown, why));
    }
    let Some((object, budget)) = matching.pop() else { return Ok(None) };
    let status = &budget.status;
    let ready = path::list(pod, "status.conditions")
        .iter()
        .any(|one| one["type"] == "Ready" && one["status"] == "True");
    if !ready {
        let always = budget.spec.unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow");
        let healthy = status.desired_healthy > 0 && status.current_healthy >= status.desired_healthy;
        if always || healthy {
            return Ok(None);
        }
    }
    allowed(object, status)?;
    let kind = gate.kind(POD_DISRUPTION_BUDGETS)?;
    let old = object.to_value().map_err(Status::internal)?;
    let mut value = old.clone();
    let left = status.disruptions_allowed - 1;
    path::set(&mut value, "status.disruptionsAllowed", left.into());
    if left == 0 {
        let condition = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
            "observedGeneration": status.observed_generation});
        set_condition(&mut value, condition, now);
    }
    let mut disrupted = status.disrupted_pods.clone().unwrap_or_default();
    disrupted.insert(stored.key.name.to_string(), now.to_string().into());
    path::set(&mut value, "status.disruptedPods", disrupted.into());
    // Upstream's server writes it as its own client.
    let options = Options { field_manager: "kube-apiserver".into(), ..Options::default() };
    let request =
        Request { kind: &kind, name: &object.key.name, subresource: "status", options: &options, ..*request };
    ownership::updated(&request, &kind, &mut value, &old, now, &Elsewhere::default());
    let draft = commit::draft(&kind, &object.key, &value)?;
    Ok(Some(commit::put(draft, Precondition::At(object.revision))))
}

fn allowed(object: &Object, status: &BudgetStatus) -> Result<(), Status> {
    let name = &object.key.name;
    if status.observed_generation < object.meta.generation {
        let mut refusal =
            refused(format!("The disruption budget {name} is still being processed by the server."));
        refusal.retry_after_seconds = Some(10);
        return Err(refusal);
    }
    if status.disruptions_allowed < 0 {
        return Err(Status::forbidden(&object.key, "pdb disruptions allowed is negative"));
    }
    if status.disrupted_pods.as_ref().is_some_and(|pods| pods.len() > MOST_DISRUPTED) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&object.key, why));
    }
    if status.disruptions_allowed == 0 {
        let (needs, has) = (status.desired_healthy, status.current_healthy);
        return Err(refused(if has <= needs {
            format!("The disruption budget {name} needs {needs} healthy pods and has {has} currently")
        } else {
            format!("The disruption budget {name} does not allow evicting pods currently")
        }));
    }
    Ok(())
}

fn refused(message: String) -> Status {
    let why = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut status = Status::new(Reason::TooManyRequests, why);
    status.causes.push(Cause { reason: "DisruptionBudget", message, field: String::new() });
    status
}
