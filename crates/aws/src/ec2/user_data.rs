//! What an instance is told to become: `NodeConfig` of nodeadm, or the arguments of the older bootstrap script, alone or as parts of a
//! MIME message. It is read, never run.
//!
//! <https://awslabs.github.io/amazon-eks-ami/nodeadm/>

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// How an instance joins a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bootstrap {
    /// The cluster's name.
    pub cluster: String,
    /// `https://…`; that of the cluster's description if nothing is said.
    pub api_server: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// `key=value:effect`, as the kubelet's flag has them.
    pub taints: Vec<String>,
    pub max_pods: Option<u32>,
}

/// Reads user data, as it was given: base64. None if it says nothing of a cluster.
pub fn read(user_data: &str) -> Option<Bootstrap> {
    let text = String::from_utf8(STANDARD.decode(user_data.trim()).ok()?).ok()?;
    let mut bootstrap = Bootstrap::default();
    for part in parts(&text) {
        if part.contains("node.eks.aws/") {
            node_config(part, &mut bootstrap);
        } else {
            script(part, &mut bootstrap);
        }
    }
    (!bootstrap.cluster.is_empty()).then_some(bootstrap)
}

const BOUNDARY: &str = "//";

/// User data, base64, of a `NodeConfig` and the parts of what a user has given besides, which come first. None if the latter is no MIME
/// message.
pub fn compose(node_config: &str, given: Option<&str>) -> Option<String> {
    let mut message = format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\n");
    if let Some(given) = given {
        let text = String::from_utf8(STANDARD.decode(given.trim()).ok()?).ok()?;
        for part in sections(&text)? {
            message += &format!("\n--{BOUNDARY}\n{}\n", part.trim());
        }
    }
    message +=
        &format!("\n--{BOUNDARY}\nContent-Type: application/node.eks.aws\n\n{node_config}\n--{BOUNDARY}--\n");
    Some(STANDARD.encode(message))
}

/// The parts of a MIME message, without their headers; the whole text if it is none.
fn parts(text: &str) -> Vec<&str> {
    let Some(sections) = sections(text) else { return vec![text] };
    let split = sections
        .into_iter()
        .filter_map(|part| part.split_once("\n\n").or_else(|| part.split_once("\r\n\r\n")));
    split.map(|(_, body)| body).collect()
}

/// The parts of a MIME message, as they are; none if it is none.
fn sections(text: &str) -> Option<Vec<&str>> {
    let boundary = text.lines().take(20).find_map(|line| {
        let (_, rest) = line.split_once("boundary=")?;
        Some(rest.trim().trim_end_matches(';').trim_matches('"'))
    });
    let mark = format!("--{}", boundary.filter(|boundary| !boundary.is_empty())?);
    // What ends the last part is two dashes more; what follows it is nothing.
    let whole = text.split(mark.as_str()).skip(1);
    Some(whole.take_while(|part| !part.starts_with("--")).collect())
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeConfig {
    spec: Spec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    cluster: Cluster,
    kubelet: Kubelet,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Cluster {
    name: String,
    api_server_endpoint: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Kubelet {
    config: KubeletConfig,
    flags: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct KubeletConfig {
    max_pods: Option<u32>,
    register_with_taints: Vec<Taint>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Taint {
    key: String,
    value: String,
    effect: String,
}

fn node_config(text: &str, into: &mut Bootstrap) {
    let Ok(config) = serde_saphyr::from_str::<NodeConfig>(text) else { return };
    let Spec { cluster, kubelet } = config.spec;
    if !cluster.name.is_empty() {
        into.cluster = cluster.name;
    }
    into.api_server = cluster.api_server_endpoint.or(into.api_server.take());
    into.max_pods = kubelet.config.max_pods.or(into.max_pods);
    let taints = kubelet.config.register_with_taints.into_iter();
    into.taints.extend(taints.map(|taint| format!("{}={}:{}", taint.key, taint.value, taint.effect)));
    for flag in &kubelet.flags {
        kubelet_flag(flag, into);
    }
}

/// `--node-labels=a=b,c=d`, `--register-with-taints=…`, `--max-pods=…`
fn kubelet_flag(flag: &str, into: &mut Bootstrap) {
    let Some((name, value)) = flag.trim().split_once('=') else { return };
    let list = value.split(',').map(str::trim).filter(|one| !one.is_empty());
    match name.trim_start_matches('-') {
        "node-labels" => {
            let labels = list.filter_map(|one| one.split_once('='));
            into.labels.extend(labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        "register-with-taints" => into.taints.extend(list.map(str::to_owned)),
        "max-pods" => into.max_pods = value.parse().ok().or(into.max_pods),
        _ => {}
    }
}

/// `/etc/eks/bootstrap.sh CLUSTER --kubelet-extra-args '--node-labels=…' --apiserver-endpoint …`
fn script(text: &str, into: &mut Bootstrap) {
    let joined = text.replace("\\\n", " ");
    let Some(line) = joined.lines().find(|line| line.contains("bootstrap.sh")) else { return };
    let mut words = words(line).into_iter().skip_while(|word| !word.ends_with("bootstrap.sh")).skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--kubelet-extra-args" => {
                let flags = words.next().unwrap_or_default();
                flags.split_whitespace().for_each(|flag| kubelet_flag(flag, into));
            }
            "--apiserver-endpoint" => into.api_server = words.next(),
            // What has a value that means nothing here.
            flag if flag.starts_with("--") => drop(words.next()),
            cluster if into.cluster.is_empty() => into.cluster = cluster.to_owned(),
            _ => {}
        }
    }
}

/// The words of a line of a shell script, without substitutions.
fn words(line: &str) -> Vec<String> {
    let (mut all, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, letter) if letter.is_whitespace() => all.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    all.extend(word);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<Bootstrap>) {
        assert_eq!(read(&STANDARD.encode(text)), expected, "{text}");
    }

    #[test]
    fn every_way_to_say_it() {
        let shop = Bootstrap { cluster: "shop".into(), ..Bootstrap::default() };
        check("#!/bin/bash\necho hello\n", None);
        check("#!/bin/bash\n/etc/eks/bootstrap.sh shop\n", Some(shop.clone()));
        let told = Bootstrap {
            api_server: Some("https://10.0.0.9".into()),
            labels: [("a", "b"), ("c", "d")].map(|(key, value)| (key.into(), value.into())).into(),
            taints: vec!["k=v:NoSchedule".into()],
            max_pods: Some(20),
            ..shop
        };
        check(
            "/etc/eks/bootstrap.sh shop --b64-cluster-ca QQ== \\\n --apiserver-endpoint https://10.0.0.9 --kubelet-extra-args '--node-labels=a=b,c=d --register-with-taints=k=v:NoSchedule --max-pods=20'",
            Some(told.clone()),
        );
        let config = "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  cluster:\n    name: shop\n    apiServerEndpoint: https://10.0.0.9\n    certificateAuthority: QQ==\n    cidr: 10.100.0.0/16\n  kubelet:\n    config:\n      maxPods: 20\n      registerWithTaints:\n      - {key: k, value: v, effect: NoSchedule}\n    flags:\n    - --node-labels=a=b,c=d\n";
        check(config, Some(told.clone()));
        let mime = format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n--//\nContent-Type: application/node.eks.aws\n\n{config}\n--//\nContent-Type: text/x-shellscript\n\n#!/bin/bash\ntrue\n--//--\n"
        );
        check(&mime, Some(told.clone()));
        let given = Some(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/x-shellscript\n\n#!/bin/sh\ntrue\n--x--\n",
        );
        let composed =
            compose(config, given.map(|text| STANDARD.encode(text)).as_deref()).expect("a message");
        assert_eq!(read(&composed), Some(told));
        let text = String::from_utf8(STANDARD.decode(composed).expect("base64")).expect("text");
        assert!(text.contains("#!/bin/sh\ntrue\n"), "{text}");
        assert_eq!(compose(config, Some(&STANDARD.encode("#!/bin/sh\n"))), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            let _ = read(&STANDARD.encode(text));
        }
    }
}
