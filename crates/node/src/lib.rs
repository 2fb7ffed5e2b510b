//! The loop of one node: fills a snapshot from watches, asks kubelet and network, hands their ops to runtime and datapath, reports status.
