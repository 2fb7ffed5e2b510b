//! What one create of a ConfigMap of a kilobyte costs before it is stored: `cargo bench -p kinds`.

use std::hint::black_box;
use std::time::Instant;

use schema::FieldValidation;
use serde_json::json;

const ROUNDS: u32 = 50_000;
const TARGET_MICROS: f64 = 20.0;

fn main() {
    let kind = kinds::by_gvk("", "v1", "ConfigMap").expect("a kind");
    let started = Instant::now();
    let _ = kinds::types();
    println!("the table of types: {:.2} ms", started.elapsed().as_secs_f64() * 1e3);
    let data: serde_json::Map<_, _> = (0..16).map(|n| (format!("key-{n}"), json!("v".repeat(40)))).collect();
    let text = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {"name": "settings", "namespace": "default", "labels": {"app": "web", "tier": "front"}},
    });
    let text = text.to_string();
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
    println!("{} bytes: {micros:.1} µs (target {TARGET_MICROS} µs)", text.len());
}
