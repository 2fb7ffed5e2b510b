//! Everything that one data folder has on this host.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use netlink::NetNs;
use netlink::link::Links;
use netlink::netns;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::edge::Edge;
use crate::machine::{Link, Machine, read_json, valid_name, write_json};
use crate::{Error, Pool, Result, Vpc, VpcConfig, cgroup, host};

const RUN: &str = "/run/ekso";

/// What a site must remember: site.json in its data folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    id: String,
    pool: Pool,
}

/// A site: its id is part of the name of all it makes on the host.
#[derive(Clone, Debug)]
pub struct Site {
    id: String,
    data: PathBuf,
    run: PathBuf,
}

impl Site {
    /// Names a site: `id` is 1 to 8 lower-case letters and digits, `data` its folder, which is made if absent.
    pub fn open(id: &str, data: impl Into<PathBuf>) -> Result<Self> {
        let fits =
            (1..=8).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !fits {
            let why = "it must be 1 to 8 lower-case letters and digits";
            return Err(Error::Name { what: "site id", name: id.into(), why });
        }
        let site = Self { id: id.to_owned(), data: data.into(), run: Path::new(RUN).join(id) };
        for directory in [
            site.data.join("machines"),
            site.data.join("vpcs"),
            site.run.join("netns"),
            site.run.join("vpcs"),
        ] {
            fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
        }
        Ok(site)
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The parent of the machines' groups in every cgroup hierarchy.
    pub(crate) fn group(&self) -> String {
        format!("ekso-{}", self.id)
    }

    pub(crate) fn netns_path(&self, name: &str) -> PathBuf {
        self.run.join("netns").join(name)
    }

    pub(crate) fn machine_dir(&self, name: &str) -> PathBuf {
        self.data.join("machines").join(name)
    }

    /// Makes the edge, the link to the host, the host's table and every VPC, or completes them. To be called at every
    /// start of the server: a reboot takes all of it, a crash any part.
    pub fn up(&self) -> Result<()> {
        let _lock = self.lock()?;
        let pool = self.ensure_record()?.pool;
        let edge = self.edge()?;
        host::ensure_link(&self.id, pool, edge.ns(), host::uplink_mtu()?)?;
        edge.set_up(pool)?;
        host::apply_table(&self.id, pool)?;
        self.enable_forwarding()?;
        for config in self.vpcs()? {
            self.make_vpc(&edge, &config)?;
        }
        Ok(())
    }

    fn edge(&self) -> Result<Edge> {
        Ok(Edge::new(NetNs::ensure(self.run.join("edge"))?, host::uplink_mtu()?))
    }

    /// Every VPC, as last applied.
    pub fn vpcs(&self) -> Result<Vec<VpcConfig>> {
        let directory = self.data.join("vpcs");
        let mut vpcs: Vec<VpcConfig> = Vec::new();
        for entry in fs::read_dir(&directory).map_err(Error::file("list", &directory))? {
            let path = entry.map_err(Error::file("list", &directory))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                vpcs.extend(read_json(&path)?);
            }
        }
        vpcs.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(vpcs)
    }

    /// One VPC, as last applied.
    pub fn vpc_config(&self, id: &str) -> Result<Option<VpcConfig>> {
        read_json(&self.vpc_path(id))
    }

    fn vpc_path(&self, id: &str) -> PathBuf {
        self.data.join("vpcs").join(format!("{id}.json"))
    }

    fn vpc_ns(&self, id: &str) -> PathBuf {
        self.run.join("vpcs").join(id)
    }

    /// The namespace between the host and the VPCs, where [`Pool::issuers`] is. The site must be up.
    pub fn edge_ns(&self) -> Result<NetNs> {
        Ok(NetNs::open(self.run.join("edge"))?)
    }

    /// The router of a VPC that was applied.
    pub fn vpc(&self, id: &str) -> Result<Vpc> {
        Ok(Vpc::new(NetNs::open(self.vpc_ns(id))?, &self.id))
    }

    /// Makes a VPC what the configuration says, from whatever it is. The site must be up. Established connections go
    /// on; machines keep their links, and are out of reach if their interface is gone.
    pub fn apply_vpc(&self, config: &VpcConfig) -> Result<Vpc> {
        let _lock = self.lock()?;
        self.apply_locked(config)
    }

    /// Changes the configuration of a VPC that was applied, or of the one that `new` makes, and applies it. Nobody
    /// else changes any VPC of the site meanwhile: what `change` found free, it gets.
    pub fn change_vpc<T>(
        &self,
        id: &str,
        new: impl FnOnce() -> VpcConfig,
        change: impl FnOnce(&mut VpcConfig, &Addresses) -> Result<T>,
    ) -> Result<T> {
        let _lock = self.lock()?;
        let before = self.vpc_config(id)?;
        let mut config = before.clone().unwrap_or_else(new);
        let changed = change(&mut config, &self.public_addresses()?)?;
        if before.as_ref() != Some(&config) {
            self.apply_locked(&config)?;
        }
        Ok(changed)
    }

    fn apply_locked(&self, config: &VpcConfig) -> Result<Vpc> {
        config.check()?;
        // Written first: what a crash interrupts, the next start completes.
        write_json(&self.vpc_path(&config.id), config)?;
        self.make_vpc(&self.edge()?, config)
    }

    fn make_vpc(&self, edge: &Edge, config: &VpcConfig) -> Result<Vpc> {
        let vpc = Vpc::new(NetNs::ensure(self.vpc_ns(&config.id))?, &self.id);
        vpc.prepare()?;
        edge.connect(&config.id, vpc.ns())?;
        vpc.apply(config)?;
        edge.publish(&config.id, &config.public_addresses().collect::<Vec<_>>())?;
        Ok(vpc)
    }

    /// Removes a VPC. Its machines, if it has any, are cut off. Absent is fine.
    pub fn delete_vpc(&self, id: &str) -> Result<()> {
        let _lock = self.lock()?;
        if self.vpc_config(id)?.is_none() {
            return Ok(());
        }
        let path = self.vpc_ns(id);
        if netns::is_pinned(&path) {
            // A socket that is still open there would keep the namespace, and its links, alive.
            self.vpc(id)?.cut_off()?;
        }
        self.edge()?.disconnect(id)?;
        netns::remove(&path)?;
        remove_file(&self.vpc_path(id))
    }

    /// The pool, and which of its addresses VPCs have.
    pub fn public_addresses(&self) -> Result<Addresses> {
        let pool = self.record()?.map(|record| record.pool).ok_or(Error::Down)?;
        let taken = self.vpcs()?.iter().flat_map(|vpc| vpc.public_addresses().collect::<Vec<_>>()).collect();
        Ok(Addresses { pool, taken })
    }

    pub(crate) fn attach(&self, machine: &NetNs, link: &Link) -> Result<()> {
        let _lock = self.lock()?;
        let config = self
            .vpc_config(&link.vpc)?
            .ok_or_else(|| Error::Vpc { id: link.vpc.clone(), what: "it is not there".into() })?;
        self.vpc(&link.vpc)?.attach(&config, machine, link, host::uplink_mtu()?)
    }

    pub(crate) fn detach(&self, link: &Link) -> Result<()> {
        if !netns::is_pinned(&self.vpc_ns(&link.vpc)) {
            return Ok(());
        }
        self.vpc(&link.vpc)?.detach(link.address)
    }

    /// The site's pool; none before [`Site::up`].
    pub fn pool(&self) -> Result<Option<Pool>> {
        Ok(self.record()?.map(|record| record.pool))
    }

    fn record_path(&self) -> PathBuf {
        self.data.join("site.json")
    }

    fn record(&self) -> Result<Option<Record>> {
        read_json(&self.record_path())
    }

    /// The pool stays as first chosen.
    fn ensure_record(&self) -> Result<Record> {
        let known = self.record()?.filter(|record| record.id == self.id);
        if let Some(record) = known {
            return Ok(record);
        }
        let taken = host::taken_networks(&host::link_name(&self.id))?;
        let pool = Pool::choose(&self.id, &taken).ok_or(Error::NoFreePool)?;
        let record = Record { id: self.id.clone(), pool };
        write_json(&self.record_path(), &record)?;
        Ok(record)
    }

    /// The names of all machines, running or not, in order.
    pub fn machines(&self) -> Result<Vec<Machine>> {
        let directory = self.data.join("machines");
        let entries = match fs::read_dir(&directory) {
            // Before the first one, and after the last.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::file("list", &directory))?,
        };
        let mut machines = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::file("list", &directory))?.file_name();
            if let Some(name) = name.to_str().filter(|name| valid_name(name)) {
                machines.push(Machine::new(self, name)?);
            }
        }
        machines.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(machines)
    }

    /// A machine by name, which may not exist yet.
    pub fn machine(&self, name: &str) -> Result<Machine> {
        Machine::new(self, name)
    }

    /// One at a time changes VPCs.
    fn lock(&self) -> Result<fs::File> {
        lock(&self.data.join("lock"))
    }

    /// Ends all machines and removes everything that carries the site's id: namespaces, links, tables, groups,
    /// machines' folders. What else is in the data folder stays. Works on what a crash left, too.
    pub fn delete(&self) -> Result<()> {
        for machine in self.machines()? {
            machine.delete()?;
        }
        cgroup::remove(Path::new(&self.group()))?;
        for path in self.namespaces()? {
            netns::remove(&path)?;
        }
        Links::open()?.delete(&host::link_name(&self.id))?;
        host::delete_table(&self.id)?;
        restore_forwarding()?;
        remove_dir(&self.run)?;
        for directory in ["machines", "vpcs"] {
            remove_dir(&self.data.join(directory))?;
        }
        for path in [self.record_path(), self.data.join("lock")] {
            remove_file(&path)?;
        }
        match self.leftovers()? {
            left if left.is_empty() => Ok(()),
            left => Err(Error::Leftover { id: self.id.clone(), left }),
        }
    }

    /// Written down before it is changed, so that a crash between leaves the duty to restore it on record. The record
    /// is of the host, not of the site: the last site to go restores, whichever came first. A reboot resets both.
    fn enable_forwarding(&self) -> Result<()> {
        if host::forwarding_is_off()? {
            let mark = forwarding_mark()?;
            fs::write(&mark, "").map_err(Error::file("write", &mark))?;
            host::enable_forwarding()?;
        }
        Ok(())
    }

    fn namespaces(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for directory in ["netns", "vpcs"].map(|name| self.run.join(name)) {
            match fs::read_dir(&directory) {
                Ok(entries) => found.extend(entries.filter_map(|entry| Some(entry.ok()?.path()))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::file("list", &directory)(error)),
            }
        }
        found.extend(Some(self.run.join("edge")).filter(|edge| edge.exists()));
        Ok(found)
    }

    /// What is on the host under the site's id, in words.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let link = host::link_name(&self.id);
        if Links::open()?.find(&link)?.is_some() {
            left.push(format!("link {link}"));
        }
        let table = host::table_name(&self.id);
        if netlink::nft::tables()?.contains(&table) {
            left.push(format!("nftables table ip {table}"));
        }
        for hierarchy in cgroup::hierarchies()? {
            let group = hierarchy.mount.join(self.group());
            if group.exists() {
                left.push(format!("cgroup {}", group.display()));
            }
        }
        left.extend(self.namespaces()?.iter().map(|path| format!("namespace {}", path.display())));
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(Error::file("read", "/proc/self/mountinfo"))?;
        let ours = [self.run.join(""), self.data.join("machines").join("")];
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let points = points.filter(|point| ours.iter().any(|root| Path::new(point).starts_with(root)));
        left.extend(points.map(|point| format!("mount {point}")));
        Ok(left)
    }
}

/// A file that is there if a site turned forwarding on in this network namespace, which is the host's.
fn forwarding_mark() -> Result<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let namespace = "/proc/thread-self/ns/net";
    let number = fs::metadata(namespace).map_err(Error::file("look at", namespace))?.ino();
    Ok(Path::new(RUN).join(format!("forwarding-was-off-{number}")))
}

fn restore_forwarding() -> Result<()> {
    let mark = forwarding_mark()?;
    if mark.exists() && !host::has_site_tables()? {
        host::disable_forwarding()?;
        fs::remove_file(&mark).map_err(Error::file("remove", &mark))?;
    }
    Ok(())
}

/// Public addresses of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub pool: Pool,
    pub taken: Vec<Ipv4Addr>,
}

impl Addresses {
    /// The lowest that nobody has.
    pub fn free(&self) -> Result<Ipv4Addr> {
        let free = self.pool.assignable().find(|address| !self.taken.contains(address));
        free.ok_or_else(|| Error::NoFreeAddress(self.pool.to_string()))
    }
}

/// Absent is fine.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Waits for the lock of a file, which is let go with the file.
pub(crate) fn lock(path: &Path) -> Result<fs::File> {
    let file = fs::File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(Error::file("open", path))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|errno| Error::file("lock", path)(errno.into()))?;
    Ok(file)
}

pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}
