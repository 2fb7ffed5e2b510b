//! What must be right on the host for machines to work, each with how to mend it.
//!
//! What can be tried is tried, in namespaces that are gone afterwards: a module that loads on demand is there, and a
//! feature that a security policy forbids is not.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;

use netlink::link::{Links, Veth};
use netlink::netns::run_in_new;
use netlink::nft::{
    self, BaseChain, Batch, Cmp, Data, DynsetOp, Element, Expr, Hook, Kind, Register, Set, Type, Values,
};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, unshare_unsafe};

use crate::{Site, cgroup, host};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Some things will not work.
    Warning,
    /// No machine will work.
    Error,
}

/// Something that is not right, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check that found it: a name of [`CHECKS`].
    pub check: &'static str,
    pub level: Level,
    pub what: String,
    pub mend: String,
}

/// What checks look at.
pub struct Subject<'a> {
    pub site: &'a Site,
}

/// One check: it hands back what is wrong, with how to mend it.
type Check = fn(&Subject<'_>) -> Vec<(Level, String, String)>;

/// Every check, by name.
pub const CHECKS: &[(&str, Check)] = &[
    ("cgroups", cgroups),
    ("disk", disk),
    ("firewall", firewall),
    ("inotify", inotify),
    ("links", links),
    ("namespaces", namespaces),
    ("nftables", nftables),
    ("overlay", overlay),
    ("pool", pool),
    ("resolvers", resolvers),
    ("root", root),
];

/// The checks that take no time: worth a look before anything is made.
pub const AT_ONCE: &[&str] = &["cgroups", "namespaces", "overlay", "root"];

/// Runs every check. Nothing found is a healthy host.
pub fn examine(subject: &Subject<'_>) -> Vec<Finding> {
    examine_some(subject, &CHECKS.iter().map(|(check, _)| *check).collect::<Vec<_>>())
}

/// Runs the checks of these names.
pub fn examine_some(subject: &Subject<'_>, names: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for &(check, run) in CHECKS.iter().filter(|(check, _)| names.contains(check)) {
        let found = run(subject).into_iter();
        findings.extend(found.map(|(level, what, mend)| Finding { check, level, what, mend }));
    }
    findings
}

type Found = Vec<(Level, String, String)>;

fn one(level: Level, what: impl Into<String>, mend: impl Into<String>) -> Found {
    vec![(level, what.into(), mend.into())]
}

fn root(_: &Subject<'_>) -> Found {
    if !rustix::process::geteuid().is_root() {
        return one(
            Level::Error,
            "this is not root: namespaces, mounts and links need it",
            "run it with sudo",
        );
    }
    let missing = missing_capabilities();
    if missing.is_empty() {
        return Vec::new();
    }
    let what = format!("root may not do everything here: it lacks {}", missing.join(", "));
    one(Level::Error, what, "run it on the host itself, or in a container that is privileged")
}

/// What of root's rights this process lacks and machines need: a container or a service may take some away.
pub fn missing_capabilities() -> Vec<&'static str> {
    const NEEDED: &[(&str, CapabilitySet)] = &[
        ("CAP_CHOWN", CapabilitySet::CHOWN),
        ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
        ("CAP_MKNOD", CapabilitySet::MKNOD),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_NET_RAW", CapabilitySet::NET_RAW),
        ("CAP_SETGID", CapabilitySet::SETGID),
        ("CAP_SETUID", CapabilitySet::SETUID),
        ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
        ("CAP_SYS_CHROOT", CapabilitySet::SYS_CHROOT),
    ];
    // Who cannot be asked is met at the first step that fails.
    let Ok(held) = capabilities(None) else { return Vec::new() };
    let missing = NEEDED.iter().filter(|(_, capability)| !held.effective.contains(*capability));
    missing.map(|(name, _)| *name).collect()
}

/// Controllers that the node's runtime sets limits by.
const CONTROLLERS: &[&str] = &["cpu", "cpuset", "memory", "pids"];

fn cgroups(_: &Subject<'_>) -> Found {
    let hierarchies = match cgroup::hierarchies() {
        Ok(hierarchies) if !hierarchies.is_empty() => hierarchies,
        _ => {
            return one(
                Level::Error,
                "no cgroup hierarchy is mounted",
                "mount -t cgroup2 none /sys/fs/cgroup",
            );
        }
    };
    let mut present = String::new();
    for hierarchy in &hierarchies {
        if hierarchy.unified {
            present += &fs::read_to_string(hierarchy.mount.join("cgroup.controllers")).unwrap_or_default();
        } else if let Some(name) = hierarchy.mount.file_name() {
            present += &name.to_string_lossy().replace(',', " ");
        }
        present.push(' ');
    }
    let missing = CONTROLLERS.iter().filter(|wanted| !present.split_whitespace().any(|c| c == **wanted));
    let finding = |controller: &&str| {
        let mend = match *controller {
            "memory" => "add cgroup_enable=memory to the kernel's command line and restart".to_owned(),
            other => format!(
                "use a kernel with the {other} controller, or one that does not disable it (cgroup_disable=)"
            ),
        };
        (Level::Warning, format!("cgroups have no {controller} controller: its limits do not hold"), mend)
    };
    missing.map(finding).collect()
}

fn disk(subject: &Subject<'_>) -> Found {
    const WANTED_BYTES: u64 = 10 << 30;
    let path = subject.site.data();
    let Ok(stat) = rustix::fs::statvfs(path) else { return Vec::new() };
    let free = stat.f_bavail * stat.f_frsize;
    if free >= WANTED_BYTES {
        return Vec::new();
    }
    let what = format!("{} has {} MiB left; images and containers want 10 GiB", path.display(), free >> 20);
    one(Level::Warning, what, "make room, or give ekso a data folder on a larger disk")
}

/// Our accepting does not overrule another table's drop.
fn firewall(subject: &Subject<'_>) -> Found {
    let link = host::link_name(subject.site.id());
    let mend = |table: &str| {
        if table == "filter" {
            return format!(
                "iptables -I FORWARD -i {link} -j ACCEPT && iptables -I FORWARD -o {link} -m conntrack --ctstate \
                 RELATED,ESTABLISHED -j ACCEPT (with Docker: in chain DOCKER-USER)"
            );
        }
        if table == "firewalld" {
            return format!(
                "firewall-cmd --permanent --zone=trusted --add-interface={link} && firewall-cmd --reload"
            );
        }
        format!("accept what is forwarded from and to {link} in nftables table {table}")
    };
    let chains = nft::base_chains().unwrap_or_default();
    let dropping = chains.into_iter().filter(|chain| chain.hook == Hook::Forward as u32 && chain.drops);
    let finding = |chain: nft::FoundChain| {
        let what = format!(
            "nftables table {} drops what its chain {} does not allow to be forwarded: machines may not reach the internet",
            chain.table, chain.name
        );
        (Level::Warning, what, mend(&chain.table))
    };
    let mut found: Found = dropping.map(finding).collect();
    // Tables of the old kind are not listed by anyone; that they exist is all there is to see.
    let legacy = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        let what = "iptables-legacy has a filter table, which may drop what machines send to the internet";
        found.push((Level::Warning, what.to_owned(), mend("filter")));
    }
    found
}

/// Settings that many pods use up, and what they should be at least.
const INOTIFY: &[(&str, u64)] =
    &[("fs.inotify.max_user_instances", 512), ("fs.inotify.max_user_watches", 131_072)];

fn inotify(_: &Subject<'_>) -> Found {
    let mut found = Vec::new();
    for (name, wanted) in INOTIFY {
        let Some(value) = netlink::sysctl::get(name).ok().and_then(|value| value.parse::<u64>().ok()) else {
            continue;
        };
        if value < *wanted {
            let what =
                format!("{name} is {value}: pods that watch files will fail with \"too many open files\"");
            found.push((
                Level::Warning,
                what,
                format!("sysctl -w {name}={wanted}, and in /etc/sysctl.d to keep it"),
            ));
        }
    }
    found
}

fn links(_: &Subject<'_>) -> Found {
    let tried = run_in_new(|| {
        let mut links = Links::open()?;
        links.add_veth(&Veth { name: "a", mtu: 1500, peer_name: "b", peer_ns: None })?;
        let bridge = links.ensure_bridge("c", 1500)?;
        let port = links.get("a")?;
        links.set_master(port.index, bridge.index)
    });
    match tried {
        Ok(Ok(())) => Vec::new(),
        Ok(Err(error)) | Err(error) => one(
            Level::Error,
            format!("links cannot be made: {error}"),
            "modprobe veth bridge, or a kernel that has them",
        ),
    }
}

fn namespaces(_: &Subject<'_>) -> Found {
    const KINDS: &[&str] = &["cgroup", "ipc", "mnt", "net", "pid", "uts"];
    const WANTED: u64 = 1000;
    let mut found = Vec::new();
    for kind in KINDS {
        if !Path::new("/proc/self/ns").join(kind).exists() {
            found.push((
                Level::Error,
                format!("the kernel has no {kind} namespaces"),
                "use a kernel that has them".into(),
            ));
        }
        let name = format!("user.max_{kind}_namespaces");
        let limit = netlink::sysctl::get(&name).ok().and_then(|value| value.parse::<u64>().ok());
        if let Some(limit) = limit.filter(|limit| *limit < WANTED) {
            found.push((
                Level::Warning,
                format!("{name} is {limit}: each pod needs one"),
                format!("sysctl -w {name}={WANTED}"),
            ));
        }
    }
    found
}

/// Everything that the rules of nodes are made of, tried in one transaction.
fn nftables(_: &Subject<'_>) -> Found {
    let tried = run_in_new(|| {
        let mut batch = Batch::new("try");
        batch.add_table();
        batch.add_base_chain("nat", BaseChain { kind: Kind::Nat, hook: Hook::Postrouting, priority: 100 });
        batch.add_base_chain("filter", BaseChain { kind: Kind::Filter, hook: Hook::Input, priority: 0 });
        let address = &[Type::Ipv4Addr];
        let remembers = Set::fixed("clients", address, Values::Data(&[Type::Mark]));
        batch.add_set(&Set { dynamic_timeout_ms: Some(1000), size: Some(16), ..remembers });
        let numbers =
            [0u32, 1].map(|n| Element::pair(n.to_ne_bytes().into(), Data::Value(vec![10, 0, 0, n as u8])));
        let (set, id) = batch.anonymous_map(&[Type::Integer], Values::Data(address), &numbers);
        let choose = Expr::Lookup { set, id: Some(id), key: 1, to: Some(Register::Data(1)), invert: false };
        batch.add_rule(
            "nat",
            &[
                Expr::Network { offset: 12, length: 4, to: 0 },
                Expr::Random { modulus: 2, to: 1 },
                choose,
                Expr::Dynset {
                    op: DynsetOp::Update,
                    set: "clients".into(),
                    key: 0,
                    data: Some(1),
                    timeout_ms: Some(1000),
                },
                Expr::Masquerade,
            ],
        );
        batch.add_rule(
            "filter",
            &[
                Expr::AddressType { source: false, to: 0 },
                Expr::Cmp { op: Cmp::Eq, reg: 0, value: vec![2, 0, 0, 0] },
                Expr::Reject,
            ],
        );
        batch.commit()
    });
    match tried {
        Ok(Ok(())) => Vec::new(),
        Ok(Err(error)) | Err(error) => {
            let mend = "modprobe nf_tables nft_chain_nat nft_masq nft_numgen nft_fib_ipv4 nft_reject_ipv4, or a kernel \
                        with nftables (5.10 or later)";
            one(Level::Error, format!("nftables cannot be used: {error}"), mend)
        }
    }
}

/// Containers' changes lie in the data folder: not every file system takes that part.
fn overlay(subject: &Subject<'_>) -> Found {
    let folder = subject.site.data().join(".overlay-try");
    let tried = try_overlay(&folder);
    // There is none if it could not be made; an empty one that stays does no harm.
    let _ = fs::remove_dir_all(&folder);
    match tried {
        Ok(()) => Vec::new(),
        Err(error) => {
            let what = format!(
                "containers cannot have their files under {}: {error}",
                subject.site.data().display()
            );
            one(
                Level::Error,
                what,
                "modprobe overlay; use a data folder on ext4, xfs or btrfs (not overlay, NFS or FUSE)",
            )
        }
    }
}

fn try_overlay(folder: &Path) -> io::Result<()> {
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| folder.join(name));
    for directory in [&lower, &upper, &work, &merged] {
        fs::create_dir_all(directory)?;
    }
    fs::write(lower.join("file"), "below")?;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let options = std::ffi::CString::new(options)?;
    thread::scope(|scope| {
        let tried = scope.spawn(|| {
            // SAFETY: only the mount namespace and working directory of this thread change, and it ends here.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            mount("overlay", &merged, "overlay", MountFlags::empty(), Some(&*options))?;
            fs::write(merged.join("file"), "above")
        });
        tried.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn pool(subject: &Subject<'_>) -> Found {
    let link = host::link_name(subject.site.id());
    let (Ok(Some(pool)), Ok(taken)) = (subject.site.pool(), host::taken_networks(&link)) else {
        return Vec::new();
    };
    if !pool.collides(&taken) {
        return Vec::new();
    }
    let what = format!(
        "the site's pool {pool} is also routed elsewhere: `ip route get {}` shows where",
        pool.edge()
    );
    one(
        Level::Error,
        what,
        "remove the other route, or delete and create the site: it takes a pool that is free",
    )
}

fn resolvers(_: &Subject<'_>) -> Found {
    if !host::resolvers().is_empty() {
        return Vec::new();
    }
    let what =
        "no DNS server is known that machines could reach: those on the host's loopback are out of reach";
    one(Level::Warning, what, "add a nameserver that is not on loopback to /etc/resolv.conf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_in_order_and_leave_nothing() {
        assert!(CHECKS.is_sorted_by_key(|(name, _)| *name));
        if !rustix::process::geteuid().is_root() {
            println!("skipped: namespaces need root");
            return;
        }
        let data = tempfile::tempdir().unwrap();
        let site = Site::open("doctor01", data.path()).unwrap();
        let findings = examine(&Subject { site: &site });
        // What this host lacks is its business; that it can run machines at all is what the other tests need.
        let broken: Vec<_> = findings.iter().filter(|f| matches!(f.check, "links" | "nftables")).collect();
        assert!(broken.is_empty(), "{broken:?}");
        assert!(findings.iter().all(|finding| !finding.mend.is_empty()));
        assert!(!data.path().join(".overlay-try").exists());
        site.delete().unwrap();
        println!("{findings:#?}");
    }

    #[test]
    fn a_pool_that_others_route_is_found() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: namespaces need root");
            return;
        }
        let data = tempfile::tempdir().unwrap();
        let site = Site::open("doctor02", data.path()).unwrap();
        run_in_new(|| {
            site.up().unwrap();
            assert_eq!(pool(&Subject { site: &site }), Vec::new());
            let mut links = Links::open().unwrap();
            links.add_veth(&Veth { name: "vpn", mtu: 1500, peer_name: "far", peer_ns: None }).unwrap();
            let vpn = links.get("vpn").unwrap().index;
            links.set_up(vpn).unwrap();
            let far = links.get("far").unwrap().index;
            links.set_up(far).unwrap();
            let network = site.pool().unwrap().unwrap().network();
            links.replace_route(&netlink::link::Route::to(network, 25, vpn)).unwrap();
            let found = pool(&Subject { site: &site });
            assert_eq!(found.len(), 1);
            site.delete().unwrap();
        })
        .unwrap();
    }

    #[test]
    fn a_firewall_that_drops_is_found() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: namespaces need root");
            return;
        }
        let data = tempfile::tempdir().unwrap();
        let site = Site::open("doctor03", data.path()).unwrap();
        run_in_new(|| {
            let quiet = firewall(&Subject { site: &site });
            let status = std::process::Command::new("nft")
                .args(["add table inet firewalld; add chain inet firewalld FORWARD { type filter hook forward priority 10; policy drop; }"])
                .status();
            if !status.is_ok_and(|status| status.success()) {
                println!("skipped: no nft to make somebody else's firewall with");
                return;
            }
            let found = firewall(&Subject { site: &site });
            assert_eq!(found.len(), quiet.len() + 1);
            assert!(found[0].2.contains("firewall-cmd") && found[0].2.contains("ek-doctor03"), "{found:?}");
        })
        .unwrap();
        site.delete().unwrap();
    }
}
