//! Everything that one data folder has on this host.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use netlink::NetNs;
use netlink::link::Links;
use netlink::netns;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::machine::{Machine, valid_name};
use crate::{Error, Pool, Result, Router, VpcConfig, cgroup, host};

const RUN: &str = "/run/ekso";
const ROUTER: &str = "router";

/// What a site must remember: site.json in its data folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    id: String,
    pool: Pool,
    vpc: VpcConfig,
}

impl Record {
    fn next_addresses(&self, assigned: &[Addresses]) -> Result<Addresses> {
        let public = self.pool.assignable().find(|public| !assigned.iter().any(|a| a.public == *public));
        let public = public.ok_or_else(|| Error::NoFreeAddress(self.pool.to_string()))?;
        // The first addresses after the gateway's are left for endpoints; the last is the subnet's broadcast.
        const RESERVED: u32 = 9;
        let gateway = u32::from(self.vpc.gateway);
        let host_bits = u32::MAX.checked_shr(u32::from(self.vpc.subnet_prefix)).unwrap_or(0);
        let mut candidates = (gateway + RESERVED..gateway | host_bits).map(Ipv4Addr::from);
        let private = candidates.find(|private| !assigned.iter().any(|a| a.private == *private));
        let subnet = || format!("{}/{}", self.vpc.gateway, self.vpc.subnet_prefix);
        Ok(Addresses { private: private.ok_or_else(|| Error::NoFreeAddress(subnet()))?, public })
    }
}

/// A machine's two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// In the VPC's subnet.
    pub private: Ipv4Addr,
    /// Of the site's pool; the host reaches the machine at it.
    pub public: Ipv4Addr,
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
        for directory in [site.data.join("machines"), site.run.join("netns")] {
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

    /// Makes the router, the link to the host and the host's table, or completes them. To be called at every start
    /// of the server: a reboot takes all of it, a crash any part.
    pub fn up(&self, config: &VpcConfig) -> Result<Router> {
        let record = self.ensure_record(config)?;
        let ns = NetNs::ensure(self.netns_path(ROUTER))?;
        let router = Router::ensure(ns, &self.id, record.pool, &record.vpc)?;
        host::apply_table(&self.id, record.pool)?;
        self.enable_forwarding()?;
        self.map_addresses(&router)?;
        Ok(router)
    }

    /// The site's pool; none before [`Site::up`].
    pub fn pool(&self) -> Result<Option<Pool>> {
        Ok(self.record()?.map(|record| record.pool))
    }

    fn record_path(&self) -> PathBuf {
        self.data.join("site.json")
    }

    fn record(&self) -> Result<Option<Record>> {
        let path = self.record_path();
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|source| Error::Record { path, source })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path)(error)),
        }
    }

    /// The VPC and the pool stay as first chosen.
    fn ensure_record(&self, config: &VpcConfig) -> Result<Record> {
        let known = self.record()?.filter(|record| record.id == self.id);
        if let Some(record) = known {
            return Ok(record);
        }
        let taken = host::taken_networks(&host::link_name(&self.id))?;
        let pool = Pool::choose(&self.id, &taken).ok_or(Error::NoFreePool)?;
        let record = Record { id: self.id.clone(), pool, vpc: config.clone() };
        write_record(&self.record_path(), &record)?;
        Ok(record)
    }

    /// The names of all machines, running or not, in order.
    pub fn machines(&self) -> Result<Vec<Machine>> {
        let directory = self.data.join("machines");
        let mut machines = Vec::new();
        for entry in fs::read_dir(&directory).map_err(Error::file("list", &directory))? {
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

    /// The addresses of every machine that has some.
    fn assigned(&self) -> Result<Vec<Addresses>> {
        let addresses = self.machines()?.into_iter().map(|machine| machine.addresses());
        let addresses: Result<Vec<_>> = addresses.collect();
        Ok(addresses?.into_iter().flatten().collect())
    }

    /// The machine's addresses: those it has, or the next that no machine has, which are its own from now on until it
    /// is deleted.
    pub fn addresses_for(&self, name: &str) -> Result<Addresses> {
        let _lock = self.lock()?;
        let machine = self.machine(name)?;
        if let Some(addresses) = machine.addresses()? {
            return Ok(addresses);
        }
        let Some(record) = self.record()? else {
            let why = "the site is not up";
            return Err(Error::Name { what: "machine", name: name.to_owned(), why });
        };
        let addresses = record.next_addresses(&self.assigned()?)?;
        machine.write_addresses(addresses)?;
        Ok(addresses)
    }

    /// Makes the router map exactly the addresses that machines have.
    pub(crate) fn map_addresses(&self, router: &Router) -> Result<()> {
        let _lock = self.lock()?;
        router.map_addresses(&self.assigned()?)
    }

    /// One at a time changes what addresses there are, or tells the router.
    fn lock(&self) -> Result<fs::File> {
        lock(&self.data.join("lock"))
    }

    /// Opens the router of a site that is up.
    pub(crate) fn router(&self) -> Result<Router> {
        let record = self.record()?.ok_or_else(|| Error::Name {
            what: "site",
            name: self.id.clone(),
            why: "it is not up",
        })?;
        let ns = NetNs::open(self.netns_path(ROUTER))?;
        Router::ensure(ns, &self.id, record.pool, &record.vpc)
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
        remove_dir(&self.data.join("machines"))?;
        for path in [self.record_path(), self.data.join("lock")] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", &path)(error));
                }
                _ => {}
            }
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
        let directory = self.run.join("netns");
        match fs::read_dir(&directory) {
            Ok(entries) => Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::file("list", &directory)(error)),
        }
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

fn write_record(path: &Path, record: &Record) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(record)
        .map_err(|source| Error::Record { path: path.to_owned(), source })?;
    Ok(files::write(path, 0o600, &bytes)?)
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
