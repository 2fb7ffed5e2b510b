use std::sync::LazyLock;

use cel::{Env, EvalError, Program, Sizes, Type, Value as Cel, from_json};
use kinds::expressions::{self, Wanted};
use object::LabelSelector;
use object::selector::Operator;
use plan::{Attributes, Decision, User};
use serde_json::{Map, Value, json};

use crate::config_file::message;

/// What one condition may cost, and all conditions of a webhook together: upstream's limits.
const CONDITION_BUDGET: u64 = 1_000_000;
const CONDITIONS_BUDGET: u64 = 2_500_000;

/// An authorizer elsewhere: it is sent a SubjectAccessReview and answers it.
#[derive(Debug)]
pub struct Webhook {
    pub name: String,
    /// A kubeconfig that says where it is and how to show oneself to it.
    pub kubeconfig: String,
    pub timeout_ms: u64,
    /// How long its answers hold; none: each request is asked anew.
    pub authorized_ttl_ms: Option<u64>,
    pub unauthorized_ttl_ms: Option<u64>,
    /// Who cannot be asked denies; otherwise it has no opinion.
    pub denies_on_failure: bool,
    pub(super) conditions: Vec<(String, Program)>,
}

/// Whoever reaches webhooks.
pub trait AskWebhook {
    /// The answer to a SubjectAccessReview, or why there is none.
    fn ask(&self, webhook: &Webhook, review: &Value) -> Result<Decision, String>;
}

impl Webhook {
    pub(crate) fn authorize(&self, ask: &dyn AskWebhook, user: &User, attributes: &Attributes) -> Decision {
        let review = review(user, attributes);
        let answer = match self.is_about(&review["spec"]) {
            Ok(true) => ask.ask(self, &review),
            Ok(false) => return Decision::default(),
            Err(why) => Err(why),
        };
        answer.unwrap_or_else(|error| Decision {
            denied: self.denies_on_failure,
            error,
            ..Decision::default()
        })
    }

    /// Whether all conditions hold. One that is false decides; without one, an error does.
    fn is_about(&self, spec: &Value) -> Result<bool, String> {
        let (mut left, mut failed) = (CONDITIONS_BUDGET, Vec::new());
        for (text, program) in &self.conditions {
            let given = [("request", from_json(spec, &REQUEST))];
            let (value, used) = program.eval(&given, CONDITION_BUDGET.min(left));
            left = left.saturating_sub(used);
            match value {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(_) => failed.push(format!("cel evaluation failed for '{text}': it gave no bool")),
                Err(EvalError::OverBudget) => {
                    let why = "operation cancelled: actual cost limit exceeded";
                    failed.push(format!("cel evaluation failed for '{text}': {why}"));
                }
                Err(error) => failed.push(format!("cel evaluation failed for '{text}': {error}")),
            }
        }
        if failed.is_empty() { Ok(true) } else { Err(failed.join(", ")) }
    }

    /// What an answer means: the status of the review that came back.
    pub fn answer(&self, review: &Value) -> Result<Decision, String> {
        let status = review.get("status").filter(|status| status.is_object());
        let status = status.ok_or("the webhook's answer is no SubjectAccessReview: it has no status")?;
        let flag = |name: &str| status[name].as_bool().unwrap_or_default();
        let text = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
        let (allowed, denied) = (flag("allowed"), flag("denied"));
        if allowed && denied {
            return Err("webhook subject access review returned both allow and deny response".to_owned());
        }
        Ok(Decision { allowed, denied, reason: text("reason"), error: String::new() })
    }
}

/// The `authorization.k8s.io/v1` SubjectAccessReview that asks about a request.
pub fn review(user: &User, attributes: &Attributes) -> Value {
    let mut spec = Map::new();
    if attributes.resource.is_empty() {
        let Attributes { path, verb, .. } = attributes;
        spec.insert("nonResourceAttributes".into(), filled(&[("path", path), ("verb", verb)]).into());
    } else {
        let mut asked = filled(&[
            ("group", attributes.group),
            ("name", attributes.name),
            ("namespace", attributes.namespace),
            ("resource", attributes.resource),
            ("subresource", attributes.subresource),
            ("verb", attributes.verb),
            ("version", attributes.version),
        ]);
        let fields = attributes.fields.map(|fields| {
            let terms = fields.0.iter();
            terms.map(|term| {
                let operator = if term.equal { "In" } else { "NotIn" };
                json!({"key": term.path, "operator": operator, "values": [term.value]})
            })
        });
        for (name, requirements) in [
            ("fieldSelector", fields.map(Iterator::collect)),
            ("labelSelector", attributes.labels.map(label_requirements)),
        ] {
            if let Some(requirements) = requirements.filter(|all: &Vec<Value>| !all.is_empty()) {
                asked.insert(name.into(), json!({"requirements": requirements}));
            }
        }
        spec.insert("resourceAttributes".into(), asked.into());
    }
    spec.extend(filled(&[("user", &user.name), ("uid", &user.uid)]));
    if !user.groups.is_empty() {
        spec.insert("groups".into(), user.groups.iter().map(|group| Value::from(&**group)).collect());
    }
    if !user.extra.is_empty() {
        spec.insert("extra".into(), json!(user.extra));
    }
    json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": spec})
}

/// Members that are absent when they are empty, as Go writes them.
fn filled(members: &[(&str, &str)]) -> Map<String, Value> {
    let given = members.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
}

/// `Gt` and `Lt` cannot be said in a review: they narrow nothing.
fn label_requirements(labels: &LabelSelector) -> Vec<Value> {
    let terms = labels.0.iter().filter_map(|term| {
        let operator = match term.operator {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => return Some(json!({"key": term.key, "operator": "Exists"})),
            Operator::DoesNotExist => return Some(json!({"key": term.key, "operator": "DoesNotExist"})),
            Operator::Gt | Operator::Lt => return None,
        };
        Some(json!({"key": term.key, "operator": operator, "values": term.values}))
    });
    terms.collect()
}

/// The variable `request` of match conditions: `SubjectAccessReviewSpec`.
static REQUEST: LazyLock<Type> = LazyLock::new(|| {
    let text = Type::String;
    let requirement = message(
        "kubernetes.SelectorRequirement",
        &[("key", text.clone()), ("operator", text.clone()), ("values", Type::list(text.clone()))],
    );
    let selector = message(
        "kubernetes.SelectorAttributes",
        &[("rawSelector", text.clone()), ("requirements", Type::list(requirement))],
    );
    let resource = message(
        "kubernetes.ResourceAttributes",
        &[
            ("fieldSelector", selector.clone()),
            ("group", text.clone()),
            ("labelSelector", selector),
            ("name", text.clone()),
            ("namespace", text.clone()),
            ("resource", text.clone()),
            ("subresource", text.clone()),
            ("verb", text.clone()),
            ("version", text.clone()),
        ],
    );
    let path = message("kubernetes.NonResourceAttributes", &[("path", text.clone()), ("verb", text.clone())]);
    message(
        "kubernetes.SubjectAccessReviewSpec",
        &[
            ("extra", Type::map(text.clone(), Type::list(text.clone()))),
            ("groups", Type::list(text.clone())),
            ("nonResourceAttributes", path),
            ("resourceAttributes", resource),
            ("uid", text.clone()),
            ("user", text),
        ],
    )
});

/// Compiles a match condition, or says what is wrong with it.
pub(super) fn condition(text: &str) -> Result<Program, String> {
    static ENV: LazyLock<Env> = LazyLock::new(|| {
        let env = Env::default().library(schema::expressions::LIBRARY);
        env.variable("request", REQUEST.clone(), Sizes::default())
    });
    expressions::compile_exactly(&ENV, text, Wanted::Bool)
}
