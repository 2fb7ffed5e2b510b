//! Node auto repair: which nodes of a group are replaced because they are broken, and how many at once.
//! <https://docs.aws.amazon.com/eks/latest/userguide/node-health.html>

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cluster::read;
use super::fault;
use crate::Fault;

/// Of groups of more nodes than this, too many broken ones are a reason to do nothing: the nodes may not be what is broken.
const SMALL_GROUP: usize = 5;
const THRESHOLD_PERCENT: u32 = 20;

/// `nodeRepairConfig` of a node group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeRepair {
    pub enabled: bool,
    /// With more broken nodes than this, none is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unhealthy_node_threshold_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unhealthy_node_threshold_percentage: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_nodes_repaired_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_nodes_repaired_percentage: Option<u32>,
}

impl NodeRepair {
    /// What an input asks for; nothing, if it says nothing.
    pub fn asked(input: &Value) -> Result<Self, Fault> {
        if input.is_null() {
            return Ok(Self::default());
        }
        let overrides = &input["nodeRepairConfigOverrides"];
        if !overrides.is_null() && *overrides != json!([]) {
            return Err(fault::unsupported(
                "A rule for a condition that the node monitoring agent reports (nodeRepairConfigOverrides)",
            ));
        }
        let asked: Self = read(input)?;
        for (count, percentage, name) in [
            (
                asked.max_unhealthy_node_threshold_count,
                asked.max_unhealthy_node_threshold_percentage,
                "maxUnhealthyNodeThreshold",
            ),
            (
                asked.max_parallel_nodes_repaired_count,
                asked.max_parallel_nodes_repaired_percentage,
                "maxParallelNodesRepaired",
            ),
        ] {
            if count.is_some() && percentage.is_some() {
                return Err(fault::invalid(format!(
                    "Only one of {name}Count and {name}Percentage can be specified"
                )));
            }
            if percentage.is_some_and(|percent| !(1..=100).contains(&percent)) {
                return Err(fault::invalid(format!("{name}Percentage must be from 1 to 100")));
            }
        }
        Ok(asked)
    }

    /// Whether so many of a group's nodes are broken that none is replaced.
    pub fn is_halted(&self, broken: usize, nodes: usize) -> bool {
        let percent = |percent: u32| broken * 100 > nodes * percent as usize;
        match (self.max_unhealthy_node_threshold_count, self.max_unhealthy_node_threshold_percentage) {
            (Some(count), _) => broken > count as usize,
            (None, Some(most)) => percent(most),
            (None, None) => nodes > SMALL_GROUP && percent(THRESHOLD_PERCENT),
        }
    }

    /// How many nodes of a group may be replaced at the same time: one at least.
    pub fn at_once(&self, nodes: usize) -> usize {
        let share = self.max_parallel_nodes_repaired_percentage.map(|percent| nodes * percent as usize / 100);
        let count = self.max_parallel_nodes_repaired_count.map(|count| count as usize);
        count.or(share).map_or(usize::MAX, |most| most.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_broken_nodes_stop_the_repair() {
        let of = |input: Value| NodeRepair::asked(&input).expect("a config");
        let (count, percent) = (
            of(json!({"maxUnhealthyNodeThresholdCount": 2})),
            of(json!({"maxUnhealthyNodeThresholdPercentage": 50})),
        );
        for (config, broken, nodes, is_halted) in [
            (NodeRepair::default(), 3, 3, false),
            (NodeRepair::default(), 5, 5, false),
            (NodeRepair::default(), 1, 6, false),
            (NodeRepair::default(), 2, 6, true),
            (NodeRepair::default(), 2, 10, false),
            (count.clone(), 2, 3, false),
            (count, 3, 100, true),
            (percent.clone(), 2, 4, false),
            (percent, 3, 4, true),
        ] {
            assert_eq!(config.is_halted(broken, nodes), is_halted, "{config:?} {broken} of {nodes}");
        }
        assert_eq!(NodeRepair::default().at_once(3), usize::MAX);
        assert_eq!(of(json!({"maxParallelNodesRepairedCount": 2})).at_once(10), 2);
        assert_eq!(of(json!({"maxParallelNodesRepairedPercentage": 10})).at_once(5), 1);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for (input, why) in [
            (
                json!({"enabled": true, "nodeRepairConfigOverrides": [{"repairAction": "Reboot"}]}),
                "(nodeRepairConfigOverrides) is not supported by Ekso",
            ),
            (
                json!({"maxParallelNodesRepairedCount": 1, "maxParallelNodesRepairedPercentage": 1}),
                "Only one of maxParallelNodesRepairedCount and maxParallelNodesRepairedPercentage can be specified",
            ),
            (
                json!({"maxUnhealthyNodeThresholdPercentage": 101}),
                "maxUnhealthyNodeThresholdPercentage must be from 1 to 100",
            ),
        ] {
            let fault = NodeRepair::asked(&input).expect_err("refused");
            assert!(fault.message.ends_with(why), "{}", fault.message);
        }
    }
}
