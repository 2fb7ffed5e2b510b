//! The node's part of the cluster's network: addresses and links of pods, routes, service rules, DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plan::net::{Cidr, PodLink};
use plan::node::Sandbox;

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("the node has no pod CIDR yet")]
    NoCidr,
    #[error("no address is left in {0}")]
    Full(Cidr),
    #[error(transparent)]
    Link(#[from] datapath::Error),
}

/// Gives pods addresses of the node's block, and links.
///
/// Nothing is written down: the addresses in use are those that the runtime's sandboxes have.
#[derive(Default)]
pub struct PodNetwork {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cidr: Option<Cidr>,
    by_pod: BTreeMap<String, Ipv4Addr>,
    /// The last one given: the next is behind it, so that an address rests before it is used again.
    last: Option<Ipv4Addr>,
}

impl PodNetwork {
    /// Takes up what the pods of an earlier process have.
    pub fn adopt(&self, sandboxes: &[Sandbox]) {
        let mut state = self.lock();
        for sandbox in sandboxes.iter().filter(|sandbox| !sandbox.config.namespaces.host_network) {
            if let Some(IpAddr::V4(ip)) = sandbox.ips.first() {
                state.by_pod.insert(sandbox.config.pod_uid.clone(), *ip);
            }
        }
    }

    pub fn set_cidr(&self, cidr: Cidr) {
        self.lock().cidr = Some(cidr);
    }

    /// The pod's address, with its link made. The same pod gets the same address again.
    pub fn attach(&self, pod_uid: &str, netns: PathBuf) -> Result<Ipv4Addr, NetworkError> {
        let ip = self.lock().allocate(pod_uid)?;
        let link = PodLink { ip, host_link: PodLink::host_link_of(pod_uid), netns };
        datapath::pod::ensure(&link)?;
        Ok(ip)
    }

    pub fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        datapath::pod::remove(&PodLink::host_link_of(pod_uid))?;
        self.lock().by_pod.remove(pod_uid);
        Ok(())
    }

    /// Removes links and gives back addresses of pods that have no sandbox.
    pub fn retain_pods(&self, sandboxes: &[Sandbox]) {
        let pods: BTreeSet<&str> = sandboxes.iter().map(|sandbox| sandbox.config.pod_uid.as_str()).collect();
        self.lock().by_pod.retain(|uid, _| pods.contains(uid.as_str()));
        let links: BTreeSet<String> = pods.iter().map(|uid| PodLink::host_link_of(uid)).collect();
        for link in datapath::pod::list().unwrap_or_default() {
            if !links.contains(&link)
                && let Err(error) = datapath::pod::remove(&link)
            {
                tracing::warn!(link, %error, "a link without a pod could not be removed");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn allocate(&mut self, pod_uid: &str) -> Result<Ipv4Addr, NetworkError> {
        if let Some(ip) = self.by_pod.get(pod_uid) {
            return Ok(*ip);
        }
        let cidr = self.cidr.ok_or(NetworkError::NoCidr)?;
        let size = 1u64 << (32 - u32::from(cidr.prefix()));
        let first = u64::from(u32::from(cidr.address()));
        let used: BTreeSet<Ipv4Addr> = self.by_pod.values().copied().collect();
        let after = self
            .last
            .filter(|last| cidr.contains(*last))
            .map_or(0, |last| u64::from(u32::from(last)) - first);
        // The first address of the block is the network's, the last its broadcast.
        let free = (1..size)
            .map(|step| (after + step) % size)
            .filter(|offset| *offset > 0 && *offset < size - 1)
            .find_map(|offset| {
                let ip = Ipv4Addr::from(u32::try_from(first + offset).ok()?);
                (!used.contains(&ip)).then_some(ip)
            });
        let ip = free.ok_or(NetworkError::Full(cidr))?;
        self.by_pod.insert(pod_uid.to_owned(), ip);
        self.last = Some(ip);
        Ok(ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_rest_before_they_are_given_again_and_run_out_cleanly() {
        let mut state = State { cidr: Some("10.0.0.0/29".parse().expect("a range")), ..State::default() };
        let names = ["a", "b", "c", "d", "e", "f"];
        let given: Vec<String> =
            names.iter().map(|pod| state.allocate(pod).expect(pod).to_string()).collect();
        assert_eq!(given, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(state.allocate("a").expect("again").to_string(), "10.0.0.1");
        assert!(matches!(state.allocate("g"), Err(NetworkError::Full(_))));
        state.by_pod.remove("b");
        state.by_pod.remove("e");
        assert_eq!(state.allocate("g").expect("free").to_string(), "10.0.0.2");
        assert_eq!(state.allocate("h").expect("free").to_string(), "10.0.0.5");
    }
}
