//! AWS's own managed policies: those that clusters, nodes and their users need by name, with the documents that AWS publishes.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use object::Time;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::policy::{Document, Use};

/// A policy of AWS.
#[derive(Debug, Deserialize)]
pub struct Managed {
    pub name: String,
    pub path: String,
    /// `v10`: the only version there is here.
    pub version: String,
    pub created: Time,
    pub updated: Time,
    document: Box<RawValue>,
}

impl Managed {
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::aws:policy{}{}", self.path, self.name)
    }

    /// `ANPA…`, made of its name: it is the same everywhere.
    pub fn id(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.name.as_bytes());
        let letter = |byte: &u8| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(*byte) % 32]);
        format!("ANPA{}", digest.as_ref().iter().take(17).map(letter).collect::<String>())
    }

    pub fn document(&self) -> &str {
        self.document.get()
    }
}

type Row = (Managed, Arc<Document>);

/// By ARN. The text is part of the program, and a test reads all of it.
static ALL: LazyLock<HashMap<String, Row>> = LazyLock::new(|| {
    let read = |line: &str| {
        let managed: Managed = serde_json::from_str(line).ok()?;
        let document = Document::parse(managed.document(), Use::Identity).ok()?;
        Some((managed.arn(), (managed, Arc::new(document))))
    };
    include_str!("../../data/managed-policies.jsonl").lines().filter_map(read).collect()
});

pub fn find(arn: &str) -> Option<&'static Managed> {
    ALL.get(arn).map(|(managed, _)| managed)
}

/// The compiled document of a policy.
pub(super) fn compiled(arn: &str) -> Option<&'static Arc<Document>> {
    ALL.get(arn).map(|(_, document)| document)
}

/// All of them, in no order.
pub fn all() -> impl Iterator<Item = &'static Managed> {
    ALL.values().map(|(managed, _)| managed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_of_aws_is_one() {
        let lines = include_str!("../../data/managed-policies.jsonl").lines().count();
        assert_eq!(all().count(), lines);
        let node = find("arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy").expect("there");
        assert!(node.document().contains("eks:DescribeCluster"));
        assert!(find("arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy").is_some());
        assert_eq!(node.id().len(), 21);
    }
}
