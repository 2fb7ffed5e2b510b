//! Small languages.

use std::sync::LazyLock;

use cel::{Env, Sizes, Type};
use object::{Draft, FieldSelector, Key, LabelSelector, Resource, Snapshot, Time, body};
use schema::Quantity;
use serde_json::json;

const NOW: Time = Time::from_secs(1_700_000_000);

pub fn selector(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = LabelSelector::parse(text);
    let _ = FieldSelector::parse(text);
}

pub fn quantity(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(normal) = Quantity::normalise(text) else { return };
    assert_eq!(Quantity::normalise(&normal).as_ref(), Ok(&normal), "{text:?} is normal after one step");
    if let Ok(quantity) = text.parse::<Quantity>() {
        let _ = (quantity.units(), quantity.millis(), quantity.as_f64(), quantity.round_up_to_milli());
    }
}

/// What the controller makes of a schedule.
pub fn cron(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (schedule, zone) = text.split_once('\0').unwrap_or((text, ""));
    let object = json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "c", "namespace": "n", "uid": "u", "creationTimestamp": "2023-11-01T00:00:00Z"},
        "spec": {"schedule": schedule, "timeZone": if zone.is_empty() { None } else { Some(zone) },
            "jobTemplate": {"spec": {"template": {"spec": {"containers": []}}}}},
    });
    let key = Key::new(Resource::new("cronjobs.batch"), "n", "c");
    let mut snapshot = Snapshot::default();
    if let Ok(draft) = Draft::read(key.clone(), [].into(), body::encode(&object)) {
        snapshot.put(draft.at(2));
    }
    for controller in controllers::ALL.iter().filter(|one| one.name == "cronjob-controller") {
        let _ = (controller.reconcile)(&snapshot, &key, NOW, &controllers::Settings::default());
    }
}

/// An expression over `self`, which may be anything; its budget is that of a validation rule.
pub fn cel(bytes: &[u8]) {
    static ENV: LazyLock<Env> =
        LazyLock::new(|| Env::default().variable("self", Type::Dyn, Sizes::list(10, Sizes::most(10))));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match ENV.compile(text) {
        Ok(program) => drop(program.eval(&[("self", cel::Value::Int(3))], 100_000)),
        Err(issues) => drop(cel::render(&issues, text)),
    }
}

pub fn aws_policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for policy_use in [aws::policy::Use::Identity, aws::policy::Use::Trust] {
        let _ = aws::policy::Document::parse(text, policy_use);
    }
}
