//! Whether a configuration is of its type, in the words of upstream's structured merge: it is asked before anything is decoded.

use schema::{Expr, go};
use serde_json::Value;

/// # Errors
/// Everything that is not of its type, with its path.
pub(crate) fn check(type_name: &str, configuration: &Value) -> Result<(), String> {
    let Some(expr) = kinds::types().expr_of(type_name) else { return Ok(()) };
    let mut found = Vec::new();
    walk(&expr, configuration, &mut String::new(), &mut found);
    match &found[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn walk(expr: &Expr, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let untyped: &'static Expr = &Expr::Quantity;
    let wrong = match (expr, value) {
        (_, Value::Null) | (Expr::Any | Expr::Object, _) => return,
        (Expr::Struct(index), Value::Object(members)) => {
            let owner = kinds::types().all().get(*index);
            for (name, inner) in members {
                if let Some(field) = owner.and_then(|owner| owner.field(name)) {
                    within(path, &format!(".{name}"), |path| walk(&field.expr, inner, path, found));
                }
            }
            return;
        }
        (Expr::Map(item), Value::Object(members)) => {
            for (name, inner) in members {
                within(path, &format!(".{name}"), |path| walk(item, inner, path, found));
            }
            return;
        }
        (Expr::ResourceList, Value::Object(members)) => {
            for (name, inner) in members {
                within(path, &format!(".{name}"), |path| walk(untyped, inner, path, found));
            }
            return;
        }
        (Expr::List(item), Value::Array(items)) => {
            for (index, inner) in items.iter().enumerate() {
                within(path, &format!("[{index}]"), |path| walk(item, inner, path, found));
            }
            return;
        }
        (Expr::Struct(_) | Expr::Map(_) | Expr::ResourceList, _) => {
            format!("expected map, got &{{{}}}", go::printed(value))
        }
        (Expr::List(_), _) => format!("expected list, got &{{{}}}", go::printed(value)),
        (Expr::String | Expr::Bytes, Value::String(_)) => return,
        (Expr::String | Expr::Bytes, _) => {
            format!("expected string, got &value.valueUnstructured{{Value:{}}}", go::syntax(value))
        }
        (Expr::Boolean, Value::Bool(_)) => return,
        (Expr::Boolean, _) => format!("expected boolean, got &{{{}}}", go::printed(value)),
        (Expr::Double | Expr::Int32 | Expr::Int64, Value::Number(_)) => return,
        (Expr::Double | Expr::Int32 | Expr::Int64, _) => {
            format!("expected numeric (int or float), got {}", go::type_of(value))
        }
        (_, Value::Array(_) | Value::Object(_)) => {
            format!("expected any scalar, got &{{{}}}", go::printed(value))
        }
        _ => return,
    };
    found.push(format!("{path}: {wrong}"));
}

fn within(path: &mut String, step: &str, go: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push_str(step);
    go(path);
    path.truncate(length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_of_its_type_is_told_in_upstreams_words() {
        for (config, why) in [
            (
                json!({"spec": {"replicas": "x"}}),
                ".spec.replicas: expected numeric (int or float), got string",
            ),
            (json!({"spec": {"paused": "x"}}), ".spec.paused: expected boolean, got &{x}"),
            (
                json!({"metadata": {"labels": {"a": [1, "b"]}}}),
                ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:[]interface {}{1, \"b\"}}",
            ),
            (json!({"spec": []}), ".spec: expected map, got &{[]}"),
            (
                json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": {"a": 1}}}}}),
                ".spec.strategy.rollingUpdate.maxSurge: expected any scalar, got &{map[a:1]}",
            ),
            (
                json!({"metadata": {"finalizers": "x", "name": 5}}),
                "errors:\n  .metadata.finalizers: expected list, got &{x}\n  .metadata.name: expected string, got &value.valueUnstructured{Value:5}",
            ),
        ] {
            assert_eq!(check("apps.v1.Deployment", &config), Err(why.to_owned()), "{config}");
        }
        let fine = json!({"spec": {"replicas": null, "template": {"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 1}}}]}}}});
        assert_eq!(check("apps.v1.Deployment", &fine), Ok(()));
    }
}
