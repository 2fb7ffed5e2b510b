//! What a create costs before it is stored, of a ConfigMap of a kilobyte and of a pod: `cargo bench -p kinds`.

use std::hint::black_box;
use std::time::Instant;

use schema::FieldValidation;
use serde_json::{Value, json};

const ROUNDS: u32 = 50_000;

/// Decodes, defaults, validates and encodes an object again and again.
fn measure(text: &str, target_micros: f64) {
    let object: Value = serde_json::from_str(text).expect("JSON");
    let kind = kinds::by_gvk("", "v1", object["kind"].as_str().expect("kind")).expect("a kind");
    let started = Instant::now();
    for _ in 0..ROUNDS {
        let decoded =
            kinds::decode(kind, black_box(text.as_bytes()), FieldValidation::Strict).expect("decodes");
        let mut object = decoded.value;
        kinds::default(kind, &mut object);
        assert!(kind.violations(&object, None).is_empty());
        black_box(object::body::encode(&object));
    }
    let micros = started.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
    println!("{} of {} bytes: {micros:.1} µs (target {target_micros} µs)", kind.kind, text.len());
}

fn main() {
    let started = Instant::now();
    let _ = kinds::types();
    println!("the table of types: {:.2} ms (target 3 ms)", started.elapsed().as_secs_f64() * 1e3);
    let data: serde_json::Map<_, _> = (0..16).map(|n| (format!("key-{n}"), json!("v".repeat(40)))).collect();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {"name": "settings", "namespace": "default", "labels": {"app": "web", "tier": "front"}},
    });
    measure(&map.to_string(), 20.0);
    let case: Value =
        serde_json::from_str(include_str!("../testdata/deployment/full.output.json")).expect("a worked case");
    let template = &case["object"]["spec"]["template"];
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
    pod["metadata"]["name"] = "web".into();
    pod["metadata"]["namespace"] = "default".into();
    measure(&pod.to_string(), 100.0);
}
