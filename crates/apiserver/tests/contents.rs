//! Objects in the other encodings than JSON: protobuf, YAML, CBOR.

mod common;

use apiserver::{decode_cbor, decode_protobuf, decode_yaml, protobuf_identity};
use common::Cluster;
use common::client::{Client, Reply};
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PARTIAL: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

async fn get(client: &Client, path: &str, accept: &str) -> Reply {
    client.send("GET", path, &[("accept", accept)], "").await
}

/// Apart: the content of every field of a message that has bytes.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(message: &mut &[u8]) -> u64 {
        let length = message.iter().position(|byte| *byte < 0x80).expect("the end of a number") + 1;
        let (number, rest) = message.split_at(length);
        *message = rest;
        number.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let content = varint(&mut message);
        if tag & 7 == 2 {
            let (content, rest) = message.split_at(content as usize);
            message = rest;
            found.push((tag >> 3, content));
        }
    }
    found
}

/// The items of a list, each as the protobuf of a type.
fn items(type_name: &str, body: &[u8]) -> Vec<Value> {
    let raw = fields(&body[4..]).into_iter().find(|(number, _)| *number == 2).expect("raw").1;
    let found = fields(raw).into_iter().filter(|(number, _)| *number == 2);
    found
        .map(|(_, item)| {
            let mut whole = b"k8s\0\x12".to_vec();
            let mut length = item.len();
            while length >= 0x80 {
                whole.push(length as u8 | 0x80);
                length >>= 7;
            }
            whole.push(length as u8);
            whole.extend_from_slice(item);
            decode_protobuf(type_name, &whole).expect("an item")
        })
        .collect()
}

/// The frames of a watch: type, and the object's envelope.
fn events(mut stream: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((head, rest)) = stream.split_first_chunk::<4>() {
        let (event, rest) = rest.split_at(u32::from_be_bytes(*head) as usize);
        stream = rest;
        let parts = fields(event);
        let object = fields(parts[1].1)[0].1.to_vec();
        found.push((String::from_utf8(parts[0].1.to_vec()).expect("text"), object));
    }
    found
}

#[tokio::test]
async fn objects_are_told_in_protobuf() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    let made = client
        .send(
            "POST",
            CONFIG_MAPS,
            &[("accept", PROTOBUF), ("content-type", "application/json")],
            json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}}).to_string(),
        )
        .await;
    assert_eq!((made.code, made.header("content-type")), (201, PROTOBUF));
    let json = get(&client, &format!("{CONFIG_MAPS}/a"), "application/json").await.json();
    assert_eq!(decode_protobuf("core.v1.ConfigMap", &made.bytes), Ok(json.clone()));

    // Sent back as it was read, with another value.
    let told = get(&client, &format!("{CONFIG_MAPS}/a"), PROTOBUF).await;
    let at = told.bytes.windows(3).position(|part| part == [0x12, 1, b'v']).expect("the value") + 2;
    let mut changed = told.bytes.to_vec();
    changed[at] = b'w';
    let headers = [("accept", "application/json"), ("content-type", PROTOBUF)];
    let put = client.send("PUT", &format!("{CONFIG_MAPS}/a"), &headers, changed).await;
    assert_eq!((put.code, &put.json()["data"]), (200, &json!({"k": "w"})));

    let missing = get(&client, &format!("{CONFIG_MAPS}/none"), PROTOBUF).await;
    assert_eq!((missing.code, missing.header("content-type")), (404, PROTOBUF));
    let status = decode_protobuf("meta.v1.Status", &missing.bytes).expect("a status");
    assert_eq!(status["message"], "configmaps \"none\" not found");
    assert_eq!(status["details"]["name"], "none");

    let partial = get(&client, &format!("{CONFIG_MAPS}/a"), PARTIAL).await;
    let identity = ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata".to_owned());
    assert_eq!(protobuf_identity(&partial.bytes), Ok(identity));
    let partial = decode_protobuf("core.v1.ConfigMap", &partial.bytes).expect("metadata");
    assert_eq!((&partial["metadata"]["labels"], partial.get("data")), (&json!({"x": "y"}), None));

    let deleted = client.send("DELETE", &format!("{CONFIG_MAPS}/a"), &[("accept", PROTOBUF)], "").await;
    let status = decode_protobuf("meta.v1.Status", &deleted.bytes).expect("a status");
    assert_eq!((deleted.code, &status["status"]), (200, &json!("Success")));
}

/// Beyond what is kept between measuring and sending, a list is encoded twice; both must say the same.
#[tokio::test]
async fn lists_of_any_length_are_told_in_protobuf() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    for (count, size) in [(0, 0), (3, 10), (12, 500_000)] {
        client.delete(CONFIG_MAPS).await;
        for number in 0..count {
            let object =
                json!({"metadata": {"name": format!("m{number:02}")}, "data": {"k": "x".repeat(size)}});
            assert_eq!(client.post(CONFIG_MAPS, &object).await.code, 201);
        }
        let list = get(&client, CONFIG_MAPS, PROTOBUF).await;
        assert_eq!(list.header("content-type"), PROTOBUF);
        let identity = ("v1".to_owned(), "ConfigMapList".to_owned());
        assert_eq!(protobuf_identity(&list.bytes), Ok(identity));
        let expected = get(&client, CONFIG_MAPS, "application/json").await.json();
        let found = items("core.v1.ConfigMap", &list.bytes);
        assert_eq!(json!(found), expected["items"], "{count} of {size}");
        assert!(list.bytes.ends_with(&[0x1a, 0, 0x22, 0]), "the end of the envelope");
    }
    let partial = get(&client, CONFIG_MAPS, &PARTIAL.replace("Metadata", "MetadataList")).await;
    let names: Vec<Value> = items("core.v1.ConfigMap", &partial.bytes)
        .iter()
        .map(|item| item["metadata"]["name"].clone())
        .collect();
    assert_eq!((names.len(), &names[11]), (12, &json!("m11")));
    assert!(partial.bytes.len() < 20_000, "metadata only");
}

#[tokio::test]
async fn a_watch_is_framed_in_protobuf() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    for name in ["a", "b"] {
        client
            .post(CONFIG_MAPS, &json!({"metadata": {"name": name}, "data": {"k": "x".repeat(40_000)}}))
            .await;
    }
    let path = format!(
        "{CONFIG_MAPS}?watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let answer = get(&client, &path, PROTOBUF).await;
    assert_eq!(answer.header("content-type"), "application/vnd.kubernetes.protobuf;stream=watch");
    let told = events(&answer.bytes);
    let names: Vec<&str> = told.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["ADDED", "ADDED", "BOOKMARK", "BOOKMARK"]);
    let object = |at: usize| decode_protobuf("core.v1.ConfigMap", &told[at].1).expect("an object");
    assert_eq!(object(1)["metadata"]["name"], "b");
    assert_eq!(object(2)["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");

    let partial = get(&client, &path, PARTIAL).await;
    let told = events(&partial.bytes);
    let identity = ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata".to_owned());
    assert_eq!(protobuf_identity(&told[0].1), Ok(identity));
    let expired = get(&client, &format!("{CONFIG_MAPS}?watch=1&resourceVersion=x"), PROTOBUF).await;
    assert_eq!(expired.code, 500, "as upstream");
    let yaml = get(&client, &path, "application/yaml").await;
    let words = "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    assert_eq!(yaml.code, 406);
    assert_eq!(decode_yaml(&yaml.bytes).expect("YAML")["message"], words);
}

#[tokio::test]
async fn objects_are_told_in_yaml() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    client.post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}, "data": {"k": "yes", "l": "1\n2"}})).await;
    for path in [CONFIG_MAPS.to_owned(), format!("{CONFIG_MAPS}/a")] {
        let answer = get(&client, &path, "application/yaml").await;
        assert_eq!(answer.header("content-type"), "application/yaml");
        let json = get(&client, &path, "application/json").await.json();
        assert_eq!(decode_yaml(&answer.bytes), Ok(json));
        assert!(answer.text.starts_with("apiVersion: v1\n"), "{}", answer.text);
    }
    let table = "application/yaml;as=Table;g=meta.k8s.io;v=v1beta1";
    let answer = decode_yaml(&get(&client, CONFIG_MAPS, table).await.bytes).expect("YAML");
    assert_eq!(
        (&answer["apiVersion"], &answer["rows"][0]["cells"][0]),
        (&json!("meta.k8s.io/v1beta1"), &json!("a"))
    );
}

#[tokio::test]
async fn cbor_is_behind_its_switch() {
    let headers = [("accept", "application/cbor"), ("content-type", "application/cbor")];
    // {"metadata": {"name": "a"}, "data": {"k": "v"}}
    let body = b"\xd9\xd9\xf7\xa2\x48metadata\xa1\x44name\x41a\x44data\xa1\x41k\x41v";
    let off = Cluster::start().await;
    let client = Client::admin(&off);
    let refused = client.send("POST", CONFIG_MAPS, &headers[1..], body).await;
    assert_eq!(refused.code, 415);
    let accepted = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let words = "the body of the request was in an unknown format - accepted media types include: ";
    assert_eq!(refused.json()["message"], format!("{words}{accepted}"));
    assert_eq!(get(&client, CONFIG_MAPS, "application/cbor").await.code, 406);
    let patch = [("content-type", "application/apply-patch+cbor")];
    assert_eq!(
        client.send("PATCH", &format!("{CONFIG_MAPS}/a?fieldManager=m"), &patch, body).await.code,
        415
    );

    let on = Cluster::start_with(|config| config.cbor = true).await;
    let client = Client::admin(&on);
    let made = client.send("POST", CONFIG_MAPS, &headers, body).await;
    assert_eq!((made.code, made.header("content-type")), (201, "application/cbor"));
    assert_eq!(decode_cbor(&made.bytes).expect("CBOR")["data"], json!({"k": "v"}));
    let list = decode_cbor(&get(&client, CONFIG_MAPS, "application/cbor").await.bytes).expect("CBOR");
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]["name"]),
        (&json!("ConfigMapList"), &json!("a"))
    );
    let watch = get(&client, &format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"), "application/cbor").await;
    assert_eq!(watch.header("content-type"), "application/cbor-seq");
    assert_eq!(decode_cbor(&watch.bytes).expect("one item")["type"], "ADDED");
    let applied = client.send("PATCH", &format!("{CONFIG_MAPS}/a?fieldManager=m&force=true"), &[headers[0], patch[0]],
        b"\xa4\x4aapiVersion\x42v1\x44kind\x49ConfigMap\x48metadata\xa1\x44name\x41a\x44data\xa1\x41k\x41w").await;
    assert_eq!(decode_cbor(&applied.bytes).expect("CBOR")["data"], json!({"k": "w"}), "{}", applied.text);
    let none = get(&client, &format!("{CONFIG_MAPS}/none"), "application/cbor").await;
    assert_eq!(
        (none.code, decode_cbor(&none.bytes).expect("CBOR")["reason"].clone()),
        (404, json!("NotFound"))
    );
}
