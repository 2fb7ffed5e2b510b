//! The cluster's DNS server of one node.
