//! Every story there is, listed once.

mod admission;
mod clients;
mod command_line;
mod containers;
mod conversions;
mod crashes;
mod custom_resources;
mod ec2;
mod eks;
mod fargate;
mod front_door;
mod guarded;
mod guest;
mod hosts;
mod iam;
mod identity;
mod kubectl;
mod load;
mod main_job;
mod metrics;
mod network;
mod operators;
mod refusals;
mod servers;
mod stock_kernel;
mod stores;
mod streams;
mod suspend;
mod workloads;

use e2e::{Chapter, Story, Tale};

const CHAPTERS: &[Chapter] = &[
    Chapter {
        name: "three_nodes",
        options: "--nodes 3",
        stories: &[
            Story { name: "cron_job", tell: workloads::cron_job },
            Story { name: "main_job", tell: main_job::tell },
            Story { name: "daemon_set", tell: workloads::daemon_set },
            Story { name: "job", tell: workloads::job },
            Story { name: "metrics", tell: metrics::tell },
            Story { name: "names", tell: network::names },
            Story { name: "node_ports", tell: network::node_ports },
            Story { name: "scheduling", tell: workloads::scheduling },
            Story { name: "service_ranges", tell: network::service_ranges },
            Story { name: "stateful_set", tell: workloads::stateful_set },
        ],
    },
    Chapter {
        name: "one_node",
        options: "",
        stories: &[
            Story { name: "conversions", tell: conversions::tell },
            Story { name: "custom_resources", tell: custom_resources::kubectl },
            Story { name: "custom_resources_of_charts", tell: custom_resources::helm },
            Story { name: "client_helm", tell: clients::helm },
            Story { name: "client_javascript", tell: clients::javascript },
            Story { name: "client_kube", tell: clients::kube },
            Story { name: "client_python", tell: clients::python },
            Story { name: "eviction", tell: containers::eviction },
            Story { name: "exec_and_logs", tell: containers::exec_and_logs },
            Story { name: "extension", tell: guest::extension },
            Story { name: "kubectl_1_20", tell: kubectl::minor_20 },
            Story { name: "kubectl_1_32", tell: kubectl::minor_32 },
            Story { name: "kubectl_1_36", tell: kubectl::minor_36 },
            Story { name: "lifecycle", tell: containers::lifecycle },
            Story { name: "old_streams", tell: streams::old_streams },
            Story { name: "operators", tell: operators::tell },
            Story { name: "persistent_volumes", tell: containers::persistent_volumes },
            Story { name: "port_forward", tell: streams::port_forward },
            Story { name: "policies", tell: admission::policies },
            Story { name: "proxied", tell: streams::proxied },
            Story { name: "refusals", tell: refusals::tell },
            Story { name: "resize", tell: containers::resize },
            Story { name: "volumes", tell: containers::volumes },
            Story { name: "webhooks", tell: admission::webhooks },
        ],
    },
];

const TALES: &[Tale] = &[
    Tale { name: "crashes", tell: crashes::tell },
    Tale { name: "data_folder_full", tell: command_line::data_folder_full },
    Tale { name: "door", tell: command_line::door },
    Tale { name: "documented_commands", tell: command_line::documented_commands },
    Tale { name: "down_and_up", tell: command_line::down_and_up },
    Tale { name: "ec2", tell: ec2::tell },
    Tale { name: "eks", tell: eks::tell },
    Tale { name: "etcd", tell: stores::etcd },
    Tale { name: "fargate", tell: fargate::tell },
    Tale { name: "guarded", tell: guarded::tell },
    Tale { name: "hosts", tell: hosts::tell },
    Tale { name: "front_door", tell: front_door::tell },
    Tale { name: "iam", tell: iam::tell },
    Tale { name: "identity", tell: identity::tell },
    Tale { name: "images_of_registries_and_archives", tell: stores::images },
    Tale { name: "kernel_lacks", tell: command_line::kernel_lacks },
    Tale { name: "load", tell: load::tell },
    Tale { name: "machine_lacks", tell: command_line::machine_lacks },
    Tale { name: "nodes_that_fail", tell: command_line::nodes_that_fail },
    Tale { name: "stock_kernel", tell: stock_kernel::tell },
    Tale { name: "suspend", tell: suspend::tell },
    Tale { name: "two_servers", tell: servers::two_on_one_etcd },
    Tale { name: "two_sites", tell: command_line::two_sites },
];

fn main() -> std::process::ExitCode {
    e2e::main(CHAPTERS, TALES)
}
