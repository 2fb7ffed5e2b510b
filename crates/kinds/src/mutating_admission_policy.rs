use object::Resource;
use schema::{At, Kind, Strategy, Violation, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column};
use crate::expressions::{self, Wanted};
use crate::spec::admission_policy;
use crate::spec::check::{self, Found};
use crate::{row, strategy};

pub const MUTATING_ADMISSION_POLICIES: Resource =
    Resource::new("mutatingadmissionpolicies.admissionregistration.k8s.io");

pub static KIND: Kind = Kind {
    resource: MUTATING_ADMISSION_POLICIES,
    group: "admissionregistration.k8s.io",
    version: "v1",
    // KEP-3962
    since: 36,
    kind: "MutatingAdmissionPolicy",
    singular: "mutatingadmissionpolicy",
    categories: &["api-extensions"],
    namespaced: false,
    type_name: "admissionregistration.v1.MutatingAdmissionPolicy",
    columns: &[
        NAME,
        column("Mutations", "integer", "How many changes it makes.", |object, _| {
            path::list(object, "spec.mutations").len().into()
        }),
        column("ParamKind", "string", "What its parameters are.", |object, _| {
            match path::get(object, "spec.paramKind") {
                None => "<unset>".into(),
                Some(kind) => {
                    format!("{}/{}", path::text(kind, "apiVersion"), path::text(kind, "kind")).into()
                }
            }
        }),
        AGE,
    ],
    strategy: Strategy { generation: &["spec"], ..strategy::GUARDED },
    validate,
    ..row::BASE
};

fn validate(policy: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&policy["spec"], At::root("spec"));
    admission_policy::shared(spec, at, &mut found);
    operations(spec, &mut found);
    let mutations = path::list(spec, "mutations");
    let list = at.field("mutations");
    if mutations.is_empty() {
        found.push(Violation::required(list, "mutations must contain at least one item"));
    }
    let env = expressions::check_variables(spec, at, &mut found);
    for (index, mutation) in mutations.iter().enumerate() {
        let at = list.index(index);
        one(&env, mutation, at, &mut found);
    }
    if check::required(spec, "reinvocationPolicy", at, &mut found) {
        check::one_of(spec, "reinvocationPolicy", &["IfNeeded", "Never"], at, &mut found);
    }
    found
}

/// What is deleted cannot be changed.
fn operations(spec: &Value, found: &mut Found) {
    let rules = path::list(spec, "matchConstraints.resourceRules").iter();
    let deletes = rules.flat_map(|rule| path::list(rule, "operations")).filter(|one| *one == "DELETE");
    for operation in deletes {
        let at = At::root("spec.matchConstraints.resourceRules.operations");
        found.push(Violation::not_supported(at, operation, &["*", "CONNECT", "CREATE", "UPDATE"]));
    }
}

/// A change has the block of its own patch type, and no other.
fn one(env: &cel::Env, mutation: &Value, at: At<'_>, found: &mut Found) {
    const BLOCKS: [(&str, &str, Wanted); 2] = [
        ("ApplyConfiguration", "applyConfiguration", Wanted::Configuration),
        ("JSONPatch", "jsonPatch", Wanted::Patch),
    ];
    let kind = path::text(mutation, "patchType");
    if !check::required(mutation, "patchType", at, found) {
        return;
    }
    check::one_of(mutation, "patchType", &["ApplyConfiguration", "JSONPatch"], at, found);
    let Some((_, block, wanted)) = BLOCKS.iter().find(|(name, ..)| *name == kind) else { return };
    match mutation.get(block) {
        None => {
            let detail = format!("must be specified when patchType is {kind}");
            found.push(Violation::required(at.field(block), detail));
        }
        Some(held) => {
            let at = at.field(block);
            if check::required(held, "expression", at, found) {
                expressions::check(env, held, "expression", *wanted, at, found);
            }
        }
    }
    for (_, other, _) in
        BLOCKS.iter().filter(|(name, other, _)| *name != kind && mutation.get(other).is_some())
    {
        let detail = format!("must not be specified when patchType is {kind}");
        found.push(Violation::invalid(at.field(other), format!("{{{other}}}"), detail));
    }
}
