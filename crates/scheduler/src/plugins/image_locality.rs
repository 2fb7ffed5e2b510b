//! A node that has the images already starts sooner. Images that few nodes have count less, so that not all pods pile up
//! where the first one was.

use super::{MAX_SCORE, Round};
use crate::node::Node;

const MEBIBYTE: i64 = 1024 * 1024;
const LEAST_BYTES: i64 = 23 * MEBIBYTE;
const MOST_BYTES_A_CONTAINER: i64 = 1000 * MEBIBYTE;

pub fn score(round: &Round, nodes: &[&Node]) -> Option<Vec<i64>> {
    let total = i64::try_from(round.cluster.count()).unwrap_or(i64::MAX).max(1);
    let images: Vec<(String, i64)> = round
        .pod
        .images
        .iter()
        .map(|image| tagged(image))
        .map(|image| {
            let spread = i64::try_from(round.cluster.nodes_with_image(&image)).unwrap_or(0);
            (image, spread)
        })
        .filter(|(_, spread)| *spread > 0)
        .collect();
    if images.is_empty() {
        return None;
    }
    let most = MOST_BYTES_A_CONTAINER * i64::try_from(round.pod.containers).unwrap_or(1).max(1);
    let score = |node: &&Node| {
        let sum: i64 = images
            .iter()
            .map(|(image, spread)| node.images.get(image.as_str()).map_or(0, |bytes| bytes / total * spread))
            .sum();
        MAX_SCORE * (sum.clamp(LEAST_BYTES, most) - LEAST_BYTES) / (most - LEAST_BYTES)
    };
    Some(nodes.iter().map(score).collect())
}

/// A name without a tag or digest means `latest`.
fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}
