//! What several controllers read of pods and conditions.

use std::collections::BTreeMap;
use std::sync::Arc;

use object::{Object, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub type Labels = BTreeMap<Box<str>, Box<str>>;

/// A pod as controllers see it, beside the object that it was read from.
#[derive(Clone, Debug)]
pub struct Pod {
    pub object: Arc<Object>,
    pub annotations: BTreeMap<String, String>,
    pub spec: PodSpec,
    pub status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub node_name: Option<String>,
    pub restart_policy: String,
    pub host_network: bool,
    pub hostname: String,
    pub subdomain: String,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub tolerations: Vec<Toleration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    pub ports: Vec<ContainerPort>,
    pub restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    pub name: String,
    pub container_port: i64,
    pub protocol: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: String,
    pub reason: String,
    pub conditions: Vec<Condition>,
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    pub start_time: Option<Time>,
    pub container_statuses: Vec<ContainerStatus>,
    pub init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodIp {
    pub ip: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub restart_count: i64,
    pub state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerState {
    pub terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    pub exit_code: i64,
    pub finished_at: Option<Time>,
}

/// `v1.Toleration`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub operator: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub effect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// `v1.Taint`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    pub key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    pub effect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_added: Option<Time>,
}

impl Toleration {
    /// <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>
    pub fn tolerates(&self, taint: &Taint) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && match self.operator.as_str() {
                "" | "Equal" => self.value == taint.value,
                "Exists" => true,
                "Gt" => number(&taint.value) > number(&self.value) && number(&self.value).is_some(),
                "Lt" => number(&taint.value).is_some() && number(&taint.value) < number(&self.value),
                _ => false,
            }
    }
}

/// A condition of any kind of status; absent fields stay absent when it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heartbeat_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Condition {
    pub fn new(kind: &str, status: &str, reason: &str, message: impl Into<String>, now: Time) -> Self {
        Self {
            kind: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            last_transition_time: Some(whole_second(now)),
            ..Self::default()
        }
    }
}

/// Stored times have whole seconds; a time to be compared with what was stored must have them too.
pub fn whole_second(time: Time) -> Time {
    Time::from_secs(time.as_secs())
}

pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

/// Puts a condition in the place of its namesake, or at the end. The transition time stays while the status does.
pub fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) {
    let Some(old) = conditions.iter_mut().find(|old| old.kind == new.kind) else {
        conditions.push(new);
        return;
    };
    if old.status == new.status {
        new.last_transition_time = old.last_transition_time;
    }
    *old = new;
}

impl Pod {
    /// A pod whose fields cannot be read counts as one that is there and does nothing: it must not be made again and again.
    pub fn read(object: &Arc<Object>) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Wire {
            metadata: Annotated,
            spec: Option<PodSpec>,
            status: Option<PodStatus>,
        }
        let Wire { metadata, spec, status } = object.decode().unwrap_or_default();
        Self {
            object: object.clone(),
            annotations: metadata.annotations.unwrap_or_default(),
            spec: spec.unwrap_or_default(),
            status: status.unwrap_or_default(),
        }
    }

    pub fn name(&self) -> &str {
        &self.object.key.name
    }

    pub fn node(&self) -> Option<&str> {
        self.spec.node_name.as_deref().filter(|name| !name.is_empty())
    }

    pub fn is_deleting(&self) -> bool {
        self.object.meta.is_deleting()
    }

    /// Succeeded or failed.
    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Neither finished nor on its way out: what a workload counts as a replica.
    pub fn is_active(&self) -> bool {
        !self.is_finished() && !self.is_deleting()
    }

    pub fn is_ready(&self) -> bool {
        condition(&self.status.conditions, "Ready").is_some_and(|ready| ready.status == "True")
    }

    pub fn ready_since(&self) -> Option<Time> {
        let ready = condition(&self.status.conditions, "Ready")?;
        ready.last_transition_time.filter(|_| ready.status == "True")
    }

    /// When it has been ready for so long; None while it is not ready.
    pub fn available_at(&self, min_ready_secs: i64) -> Option<Time> {
        if !self.is_ready() {
            return None;
        }
        if min_ready_secs == 0 {
            return Some(Time::default());
        }
        self.ready_since().map(|since| since.plus_secs(min_ready_secs))
    }

    pub fn is_available(&self, min_ready_secs: i64, now: Time) -> bool {
        self.available_at(min_ready_secs).is_some_and(|at| at <= now)
    }

    pub fn restarts(&self) -> i64 {
        self.status.container_statuses.iter().map(|status| status.restart_count).max().unwrap_or(0)
    }
}

/// `metadata.annotations`, which `object::Meta` leaves in the body.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Annotated {
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// The annotations of any object.
pub fn annotations(object: &Object) -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct Wire {
        metadata: Annotated,
    }
    object.decode::<Wire>().ok().and_then(|wire| wire.metadata.annotations).unwrap_or_default()
}

/// The status as it stands, to be compared with the one that should stand there.
pub fn status_of(object: &Object) -> Value {
    #[derive(Deserialize)]
    struct Wire {
        #[serde(default)]
        status: Value,
    }
    object.decode::<Wire>().map(|wire| wire.status).unwrap_or_default()
}

/// `v1.PodTemplateSpec` as JSON, and the labels that its pods get.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Template(pub Value);

impl Template {
    pub fn labels(&self) -> Labels {
        let labels = self.0.pointer("/metadata/labels").and_then(Value::as_object);
        let pairs = labels.into_iter().flatten();
        pairs.filter_map(|(name, value)| Some((name.as_str().into(), value.as_str()?.into()))).collect()
    }

    /// With every default and without what Go leaves out: what a build that knew fewer has stored is the same template as what this one writes.
    pub fn completed(&self) -> Value {
        let mut value = self.0.clone();
        kinds::types().omit("core.v1.PodTemplateSpec", &mut value);
        kinds::types().default("core.v1.PodTemplateSpec", &mut value);
        value
    }
}

/// A number, or a percentage of something: `intstr.IntOrString`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum IntOrPercent {
    Int(i64),
    Percent(String),
}

impl IntOrPercent {
    /// The number, or so many hundredths of `total`; text that is not a percentage is zero.
    pub fn of(&self, total: i64, round_up: bool) -> i64 {
        match self {
            Self::Int(number) => *number,
            Self::Percent(text) => {
                let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
                let product = percent.saturating_mul(total);
                if round_up { product.saturating_add(99).div_euclid(100) } else { product.div_euclid(100) }
            }
        }
    }
}
