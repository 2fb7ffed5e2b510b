//! What decoding says and does, in upstream's words.

use schema::{FieldValidation, Kind};
use serde_json::{Value, json};

fn kind(group: &str, name: &str) -> &'static Kind {
    kinds::by_gvk(group, "v1", name).expect("a kind")
}

fn refused(kind: &Kind, text: &str, message: &str) {
    let status = kinds::decode(kind, text.as_bytes(), FieldValidation::Strict).expect_err(text);
    assert_eq!((status.message.as_str(), status.code), (message, 400), "{text}");
}

#[test]
fn a_wrong_type_is_told_with_its_struct_and_path() {
    let deployment = kind("apps", "Deployment");
    refused(
        deployment,
        r#"{"spec":{"replicas":"3"}}"#,
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    refused(
        deployment,
        r#"{"spec":{"replicas":3000000000}}"#,
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    refused(
        deployment,
        r#"{"spec":{"template":{"spec":{"containers":[{"image":1}]}}}}"#,
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.image of type string",
    );
    refused(
        kind("", "Pod"),
        r#"{"spec":{"containers":{}}}"#,
        "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
    );
    refused(
        kind("", "ConfigMap"),
        r#"{"data":{"a":1}}"#,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
    );
}

#[test]
fn values_with_a_form_of_their_own() {
    let pod = kind("", "Pod");
    refused(
        pod,
        r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"1x"}}}]}}"#,
        "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    refused(
        kind("", "Secret"),
        r#"{"data":{"a":"%"}}"#,
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0",
    );
    refused(
        pod,
        r#"{"metadata":{"creationTimestamp":"yesterday"}}"#,
        "Pod in version \"v1\" cannot be handled as a Pod: parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"",
    );
}

/// What is stored is what upstream stores, so that whoever reads it strictly can.
#[test]
fn base64_is_written_as_go_writes_it() {
    for (text, expected) in [
        ("", ""),
        ("YQ==", "YQ=="),
        ("YR==", "YQ=="),
        ("YWJ=", "YWI="),
        ("YWJj", "YWJj"),
        ("YW\r\nI=\n", "YWI="),
        ("\n", ""),
    ] {
        let body = json!({"data": {"a": text}}).to_string();
        let read = kinds::decode(kind("", "Secret"), body.as_bytes(), FieldValidation::Strict).expect(text);
        assert_eq!(read.value["data"]["a"], expected, "{text:?}");
    }
}

#[test]
fn unknown_and_repeated_fields_depend_on_the_mode() {
    let pod = kind("", "Pod");
    let text = r#"{"spec":{"foo":1,"containers":[{"name":"a","name":"b","imagee":"x"}]}}"#;
    refused(
        pod,
        text,
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: duplicate field \"spec.containers[0].name\", unknown field \"spec.containers[0].imagee\", unknown field \"spec.foo\"",
    );
    let warned = kinds::decode(pod, text.as_bytes(), FieldValidation::Warn).expect("decodes");
    assert_eq!(warned.warnings.len(), 3);
    assert_eq!(warned.value["spec"], json!({"containers": [{"name": "b"}]}));
    let ignored = kinds::decode(pod, text.as_bytes(), FieldValidation::Ignore).expect("decodes");
    assert!(ignored.warnings.is_empty());
}

#[test]
fn what_is_no_json_is_quoted() {
    let pod = kind("", "Pod");
    for (text, ends) in [
        ("{\"kind\": \"Pod\", \"metadata\": {\"name\"", "({\"kind\": \"Pod\", \"metadata\": {\" ...)"),
        ("{", "({)"),
        ("", "(<empty>)"),
        ("kind", "(6b696e64)"),
    ] {
        let status = kinds::decode(pod, text.as_bytes(), FieldValidation::Warn).expect_err(text);
        let begins = "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: ";
        assert!(status.message.starts_with(begins) && status.message.ends_with(ends), "{}", status.message);
    }
}

#[test]
fn values_are_written_as_go_writes_them() {
    let pod = kind("", "Pod");
    let text = json!({
        "metadata": {"labels": {}, "annotations": null, "creationTimestamp": "2026-11-23T05:22:43.5+01:00"},
        "spec": {
            "nodeSelector": {},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": 1, "memory": "1024Ki"}}, "command": []}],
            "tolerations": null,
        },
    });
    let decoded =
        kinds::decode(pod, text.to_string().as_bytes(), FieldValidation::Strict).expect("decodes").value;
    assert_eq!(
        decoded,
        json!({
            "metadata": {"creationTimestamp": "2026-11-23T04:22:43Z"},
            "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Mi"}}}]},
        })
    );
}

#[test]
fn both_versions_of_an_autoscaler_say_the_same() {
    let v1 = kinds::by_gvk("autoscaling", "v1", "HorizontalPodAutoscaler").expect("v1");
    let conversion = v1.conversion.expect("v1 is converted");
    let text = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a", "namespace": "b"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "minReplicas": 2,
            "maxReplicas": 5, "targetCPUUtilizationPercentage": 60},
    });
    let stored = (conversion.to_stored)(text.clone());
    assert_eq!(stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    assert_eq!((conversion.from_stored)(stored.clone()), text);
    let mut two = stored;
    let metrics = two["spec"]["metrics"].as_array_mut().expect("metrics");
    metrics.push(json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}}));
    assert_eq!((conversion.to_stored)((conversion.from_stored)(two.clone())), two);
}

#[test]
fn both_groups_of_events_say_the_same() {
    let v1 = kinds::by_gvk("events.k8s.io", "v1", "Event").expect("events.k8s.io");
    let conversion = v1.conversion.expect("it is converted");
    let stored = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a", "namespace": "b"}, "count": 3,
        "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "reason": "R", "source": {"component": "kubelet"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:01:00Z", "type": "Normal",
        "reportingComponent": "kubelet",
    });
    let served = (conversion.from_stored)(stored.clone());
    assert_eq!((served["note"].as_str(), served["regarding"]["name"].as_str()), (Some("m"), Some("p")));
    assert_eq!((conversion.to_stored)(served.clone()), stored);
    let now = "2026-01-01T00:02:00Z".parse().expect("a time");
    let cells = |kind: &Kind, event: &Value| -> Vec<Value> {
        kind.columns.iter().map(|column| column.cell(event, now)).collect()
    };
    assert_eq!(cells(v1, &served), cells(kind("", "Event"), &stored));
    assert_eq!(cells(v1, &served)[..4], [json!("60s"), json!("Normal"), json!("R"), json!("pod/p")]);
}

#[test]
fn through_the_newer_group_only_the_series_of_an_event_changes() {
    let v1 = kind("events.k8s.io", "Event");
    // As it is stored, by whichever server.
    let old = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a", "namespace": "b", "resourceVersion": "1"}, "action": "Start",
        "eventTime": "2026-01-01T00:00:00Z", "involvedObject": {"kind": "Pod", "name": "p", "namespace": "b"}, "reason": "R",
        "reportingComponent": "kubelet", "reportingInstance": "n1", "series": {"count": 1}, "type": "Normal",
    });
    let elsewhere = json!({"kind": "Pod", "name": "p"});
    for (field, value, wrong) in [
        ("note", json!(null), &[][..]),
        ("source", json!({}), &[]),
        ("source", json!({"component": "kubelet"}), &["source"]),
        ("eventTime", json!("2026-01-01T00:00:00.000000Z"), &[]),
        ("eventTime", json!("2026-01-01T00:00:00.000001Z"), &["eventTime"]),
        ("series", json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}), &[]),
        ("series", json!({"count": 0}), &["series.count", "series.lastObservedTime"]),
        ("involvedObject", elsewhere.clone(), &["involvedObject.namespace", "involvedObject"]),
    ] {
        let mut new = old.clone();
        new[field] = value;
        let told = v1.violations(&new, Some(&old));
        let fields: Vec<&str> = told.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(fields, wrong, "{field}: {}", new[field]);
    }
    let mut new = old;
    schema::path::remove(&mut new, "series");
    new["involvedObject"] = elsewhere;
    for (namespace, is_well) in [("b", false), ("default", true), ("kube-system", true)] {
        new["metadata"]["namespace"] = namespace.into();
        assert_eq!(v1.violations(&new, None).is_empty(), is_well, "{namespace}");
    }
}
