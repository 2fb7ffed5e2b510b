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
    let mutations = path::list(spec, "mutations");
    let list = at.field("mutations");
    if mutations.is_empty() {
        found.push(Violation::required(list, "mutations must contain at least one item"));
    }
    let env = expressions::check_variables(spec, at, &mut found);
    for (index, mutation) in mutations.iter().enumerate() {
        let at = list.index(index);
        one(mutation, at, &mut found);
        for (block, wanted) in [("applyConfiguration", Wanted::Configuration), ("jsonPatch", Wanted::Patch)] {
            expressions::check(&env, &mutation[block], "expression", wanted, at.field(block), &mut found);
        }
    }
    if check::required(spec, "reinvocationPolicy", at, &mut found) {
        check::one_of(spec, "reinvocationPolicy", &["IfNeeded", "Never"], at, &mut found);
    }
    found
}

/// A change has the block of its own patch type, and no other.
fn one(mutation: &Value, at: At<'_>, found: &mut Found) {
    const BLOCKS: [(&str, &str); 2] =
        [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
    let kind = path::text(mutation, "patchType");
    if !check::required(mutation, "patchType", at, found) {
        return;
    }
    check::one_of(mutation, "patchType", &["ApplyConfiguration", "JSONPatch"], at, found);
    for (own, block) in BLOCKS {
        let at = at.field(block);
        match (kind == own, mutation.get(block)) {
            (true, None) => {
                found.push(Violation::required(at, format!("must be specified when patchType is {kind}")));
            }
            (false, Some(value)) => {
                let detail = format!("must not be specified when patchType is {kind}");
                found.push(Violation::invalid(at, value, detail));
            }
            _ => {}
        }
    }
}
