//! The files of `/etc` that a pod's containers share.

use plan::node::{DnsConfig, HostAlias, SandboxConfig};
use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// Writes `hosts`, `hostname` and `resolv.conf` into the sandbox's directory.
pub fn write(sandbox: &Path, config: &SandboxConfig, ips: &[IpAddr]) -> io::Result<()> {
    write_hosts(sandbox, config, ips)?;
    let hostname = match config.namespaces.host_network {
        true => machine_name(),
        false => config.hostname.clone(),
    };
    in_place(&sandbox.join("hostname"), &format!("{hostname}\n"))?;
    let resolv = match config.dns == DnsConfig::default() {
        true => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        false => resolv_conf(&config.dns),
    };
    in_place(&sandbox.join("resolv.conf"), &resolv)
}

/// What the machine calls itself.
pub fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub fn write_hosts(sandbox: &Path, config: &SandboxConfig, ips: &[IpAddr]) -> io::Result<()> {
    let machine = match config.namespaces.host_network {
        true => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
        false => String::new(),
    };
    in_place(&sandbox.join("hosts"), &hosts(config, ips, &machine))
}

/// Containers have the file itself mounted, so it may not be replaced by another.
fn in_place(path: &Path, text: &str) -> io::Result<()> {
    std::fs::write(path, text)
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    let mut line = |words: &str, list: &[String]| {
        if !list.is_empty() {
            // Writing to memory does not fail.
            let _ = writeln!(text, "{words} {}", list.join(" "));
        }
    };
    line("search", &dns.searches);
    dns.servers.iter().for_each(|server| line("nameserver", std::slice::from_ref(server)));
    line("options", &dns.options);
    text
}

/// What the kubelet writes: `pkg/kubelet/kubelet_pods.go`, ensureHostsFile.
fn hosts(config: &SandboxConfig, ips: &[IpAddr], machine: &str) -> String {
    let mut text = String::new();
    if config.namespaces.host_network {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(machine);
    } else {
        text.push_str(
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n",
        );
        let names = match &config.host_names[..] {
            [] => config.hostname.clone(),
            names => names.join("\t"),
        };
        text.extend(ips.iter().map(|ip| format!("{ip}\t{names}\n")));
    }
    if !config.host_aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        let line = |alias: &HostAlias| format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t"));
        text.extend(config.host_aliases.iter().map(line));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::node::HostAlias;

    #[test]
    fn resolver() {
        let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let dns = DnsConfig {
            servers: list(&["10.100.0.10", "1.1.1.1"]),
            searches: list(&["ns.svc.cluster.local", "svc.cluster.local"]),
            options: list(&["ndots:5"]),
        };
        assert_eq!(
            resolv_conf(&dns),
            "search ns.svc.cluster.local svc.cluster.local\nnameserver 10.100.0.10\nnameserver 1.1.1.1\noptions ndots:5\n"
        );
    }

    #[test]
    fn names_of_a_pod() {
        let alias = HostAlias { ip: "10.0.0.1".into(), hostnames: vec!["a".into(), "b".into()] };
        let config =
            SandboxConfig { hostname: "web-0".into(), host_aliases: vec![alias], ..Default::default() };
        let check = |config: &SandboxConfig, names: &str| {
            let text = hosts(config, &["10.244.0.5".parse().unwrap()], "");
            let end = format!(
                "allrouters\n10.244.0.5\t{names}\n\n# Entries added by HostAliases.\n10.0.0.1\ta\tb\n"
            );
            assert!(text.ends_with(&end), "{text}");
        };
        check(&config, "web-0");
        let host_names = vec!["web-0.web.ns.svc.cluster.local".into(), "web-0".into()];
        check(&SandboxConfig { host_names, ..config }, "web-0.web.ns.svc.cluster.local\tweb-0");
    }
}
