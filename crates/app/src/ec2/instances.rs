//! Instances become machines.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws::control::fargate::COMPUTE_TYPE;
use aws::ec2::instance;
use aws::ec2::instance_type::{self, InstanceType};
use aws::ec2::record::{Instance, NetworkInterface, State, Subnet, Vpc, Wanted};
use aws::ec2::user_data::{self, Bootstrap};
use aws::ec2::{interface, place, pods};
use aws::eks::{ClusterRecord, VERSIONS};
use aws::login::node;
use aws::state::{self, Changes};
use machines::{Bind, Limits, Link, Machine, MachineSpec};
use object::{Snapshot, Time};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};

use super::{Doer, Ec2Error, Join, images};

/// When a machine is looked at again whose end cannot be watched.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What an instance needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Start,
    Restart,
    Stop,
    Terminate,
    /// Its record is of no more use.
    Forget,
    /// It is what it should be, and the account does not say so yet.
    Observe(State),
    /// It went down by itself.
    WentDown,
    /// The cluster whose node it is was stopped: its machine is, too, and the account goes on saying that it runs.
    Sleep,
}

/// `seen`: whether it ran before in this life of the daemon, and how many of its reboots were done. After a restart of the host, machines
/// come back; what ends later has ended by itself. `is_asleep`: whether the cluster whose node it is was stopped.
fn step(instance: &Instance, is_running: bool, is_asleep: bool, seen: Option<u32>, now: Time) -> Step {
    if is_asleep && instance.wanted == Wanted::Running {
        return if is_running { Step::Sleep } else { Step::Nothing };
    }
    match (instance.wanted, instance.state) {
        (Wanted::Terminated, State::Terminated) => {
            let is_past = instance::forgotten_at(instance).is_none_or(|at| at <= now);
            if is_past { Step::Forget } else { Step::Nothing }
        }
        (Wanted::Terminated, _) => Step::Terminate,
        (Wanted::Stopped, State::Stopped) if !is_running => Step::Nothing,
        (Wanted::Stopped, _) => Step::Stop,
        (Wanted::Running, State::Running) => match (is_running, seen) {
            (true, Some(done)) if done < instance.reboots => Step::Restart,
            (true, _) => Step::Nothing,
            (false, Some(_)) => Step::WentDown,
            (false, None) => Step::Start,
        },
        (Wanted::Running, _) if is_running => Step::Observe(State::Running),
        (Wanted::Running, _) => Step::Start,
    }
}

/// The machine of an instance; its name on the host.
pub fn machine_name(instance: &Instance) -> &str {
    instance.site_node.as_ref().map_or(&instance.instance_id, |node| &node.name)
}

/// The cluster whose node it is, or is to be.
fn cluster_of(instance: &Instance) -> Option<&String> {
    let site_node = instance.site_node.as_ref().map(|node| &node.cluster);
    site_node.or(instance.fargate.as_ref().map(|task| &task.cluster)).or(instance.joined.as_ref())
}

/// The instances that are nodes of a cluster.
pub fn nodes_of(account: &Snapshot, cluster: &str) -> Vec<Instance> {
    let all = state::list::<Instance>(account, "").into_iter().map(|kept| kept.record);
    let is_node =
        |one: &Instance| one.state != State::Terminated && cluster_of(one).is_some_and(|its| its == cluster);
    all.filter(is_node).collect()
}

/// When the next of these is to be forgotten. One that should have been is not waited for: whoever works on it, or fails to, says so.
fn next_look<'a>(instances: impl Iterator<Item = &'a Instance>, now: Time) -> Option<Time> {
    instances.filter_map(instance::forgotten_at).filter(|at| *at > now).min()
}

/// Begins what each instance needs, each in a task of its own. When it is worth another look though nothing happens.
pub fn pass(doer: &Arc<Doer>, account: &Snapshot) -> Option<Time> {
    let mut asleep: BTreeMap<String, bool> = BTreeMap::new();
    let listed = state::list::<Instance>(account, "");
    let next = next_look(listed.iter().map(|kept| &kept.record), doer.account.now());
    for kept in listed {
        let (id, machine) = (kept.record.instance_id.clone(), machine_name(&kept.record).to_owned());
        if !doer.state().busy.insert(machine.clone()) {
            continue;
        }
        // What was listed may be past: somebody may have worked on it until just now.
        let Some(kept) = state::get::<Instance>(&doer.account.snapshot(), "", &id) else {
            doer.release(&machine);
            continue;
        };
        let instance = kept.record;
        let is_running = doer.machine(&instance).is_ok_and(|machine| machine.running().is_some());
        let seen = doer.state().seen.get(&id).copied();
        let is_asleep = cluster_of(&instance).is_some_and(|cluster| {
            *asleep.entry(cluster.clone()).or_insert_with(|| doer.is_stopped(cluster))
        });
        let step = step(&instance, is_running, is_asleep, seen, doer.account.now());
        if step == Step::Nothing {
            if is_running {
                doer.state().seen.entry(id).or_insert(instance.reboots);
                doer.watch(&instance);
            }
            doer.release(&machine);
            continue;
        }
        let doer = doer.clone();
        tokio::spawn(async move {
            let what = format!("{step:?}");
            let done = doer.take(&instance, step).await;
            doer.release(&machine);
            match done {
                Ok(()) => {
                    info!(instance = id, what, "the instance is a step further");
                    doer.look();
                }
                // Another look at once would see the same: it is tried again in a while, or when the account changes.
                Err(failure) => {
                    warn!(instance = id, what, %failure, "the instance could not be changed");
                    doer.failed.notify_one();
                }
            }
        });
    }
    next
}

impl Doer {
    pub fn machine(&self, instance: &Instance) -> Result<Machine, machines::Error> {
        self.machines.machine(machine_name(instance))
    }

    /// Has machines looked at again when this one ends.
    fn watch(self: &Arc<Self>, instance: &Instance) {
        let name = machine_name(instance).to_owned();
        if !self.state().watched.insert(name.clone()) {
            return;
        }
        let doer = self.clone();
        tokio::spawn(async move {
            if let Err(failure) = doer.until_end(&name).await {
                warn!(machine = name, %failure, "the end of a machine cannot be watched");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            doer.state().watched.remove(&name);
            doer.look();
        });
    }

    /// Returns when a machine has ended.
    async fn until_end(&self, name: &str) -> Result<(), Ec2Error> {
        let Some(end) = self.machines.machine(name)?.end()? else { return Ok(()) };
        let failed = |source| Ec2Error::Watch { machine: name.to_owned(), source };
        // SAFETY: the descriptor is owned, and stays open until the AsyncFd drops it.
        let end = unsafe { AsyncFd::register_with_interest(end, Interest::READABLE) };
        let end = end.map_err(|refused| failed(refused.into()))?;
        end.readable().await.map(drop).map_err(failed)
    }

    /// Whether a cluster is one that is there and was stopped.
    fn is_stopped(&self, cluster: &str) -> bool {
        self.site.cluster(cluster).ok().flatten().is_some_and(|spec| !spec.up)
    }

    /// Waits until nobody works on a machine, and has nobody begin.
    async fn hold(&self, machine: &str) {
        loop {
            let released = self.released.notified();
            if self.state().busy.insert(machine.to_owned()) {
                return;
            }
            released.await;
        }
    }

    fn release(&self, machine: &str) {
        self.state().busy.remove(machine);
        self.released.notify_waiters();
    }

    /// Stops the machines of a cluster's nodes, side by side; whoever asks has written that the cluster is stopped.
    pub async fn sleep(self: &Arc<Self>, cluster: &str) -> Result<(), Ec2Error> {
        self.each(nodes_of(&self.account.snapshot(), cluster), Step::Sleep).await
    }

    /// Removes the machines of a cluster's nodes that are to be terminated, side by side.
    pub async fn end(self: &Arc<Self>, cluster: &str) -> Result<(), Ec2Error> {
        let mut ending = nodes_of(&self.account.snapshot(), cluster);
        ending.retain(|one| one.wanted == Wanted::Terminated);
        self.each(ending, Step::Terminate).await
    }

    /// Waits until nobody works on any machine.
    pub async fn rest(&self) {
        loop {
            let released = self.released.notified();
            if self.state().busy.is_empty() {
                return;
            }
            released.await;
        }
    }

    async fn each(self: &Arc<Self>, instances: Vec<Instance>, step: Step) -> Result<(), Ec2Error> {
        let begin = |instance: Instance| {
            let doer = self.clone();
            tokio::spawn(async move {
                let machine = machine_name(&instance).to_owned();
                doer.hold(&machine).await;
                // Whoever held it may have done the same.
                let known = state::get::<Instance>(&doer.account.snapshot(), "", &instance.instance_id);
                let done = match known.filter(|kept| kept.record.state != State::Terminated) {
                    Some(kept) => doer.take(&kept.record, step).await,
                    None => Ok(()),
                };
                doer.release(&machine);
                // A pass meanwhile has left it out.
                doer.look();
                done
            })
        };
        let tasks: Vec<_> = instances.into_iter().map(begin).collect();
        for task in tasks {
            task.await??;
        }
        Ok(())
    }

    async fn take(&self, instance: &Instance, step: Step) -> Result<(), Ec2Error> {
        let id = &instance.instance_id;
        match step {
            Step::Nothing => Ok(()),
            Step::Start => self.start(instance).await,
            Step::Restart => {
                self.stop(instance).await?;
                self.start(instance).await
            }
            Step::Sleep => {
                self.stop(instance).await?;
                self.state().seen.remove(id);
                Ok(())
            }
            Step::Stop => {
                self.stop(instance).await?;
                self.state().seen.remove(id);
                self.observe(id, State::Stopped, None).await
            }
            Step::Terminate => self.terminate(instance).await,
            Step::Forget => self.forget(id).await,
            Step::Observe(observed) => self.observe(id, observed, None).await,
            Step::WentDown => {
                self.stop(instance).await?;
                self.state().seen.remove(id);
                let message = "Client.InstanceInitiatedShutdown: Instance initiated shutdown";
                let reason = ("Client.InstanceInitiatedShutdown".to_owned(), message.to_owned());
                self.observe(id, State::Stopped, Some(reason)).await
            }
        }
    }

    async fn observe(
        &self,
        id: &str,
        observed: State,
        reason: Option<(String, String)>,
    ) -> Result<(), Ec2Error> {
        let decide = |context: &mut aws::Context| {
            instance::observe(context.state, context.now, id, observed, reason.clone())
        };
        self.account.change(decide).await?;
        Ok(())
    }

    async fn forget(&self, id: &str) -> Result<(), Ec2Error> {
        let decide = |context: &mut aws::Context| {
            let mut changes = Changes::default();
            state::get::<Instance>(context.state, "", id).iter().for_each(|kept| changes.delete(kept));
            changes
        };
        self.account.change(decide).await?;
        Ok(())
    }

    /// Starts an instance; why it cannot be is told in its state.
    async fn start(&self, instance: &Instance) -> Result<(), Ec2Error> {
        let failure = match self.try_start(instance).await {
            // The cluster of a node that is there will be, too, and then it is tried again.
            Err(failure @ Ec2Error::NoCluster(_)) if cluster_of(instance).is_some() => return Err(failure),
            Err(failure) => failure,
            Ok(()) => return Ok(()),
        };
        let code = match &failure {
            Ec2Error::Refused(_) | Ec2Error::NoCluster(_) => "Client.NodeRefused",
            _ => "Server.InternalError",
        };
        let reason = (code.to_owned(), format!("{code}: {failure}"));
        self.observe(&instance.instance_id, instance.state, Some(reason)).await?;
        Err(failure)
    }

    async fn try_start(&self, instance: &Instance) -> Result<(), Ec2Error> {
        let id = &instance.instance_id;
        self.account.change(|context| instance::readdress(context, id)).await?;
        // The addresses that it was just given are its router's business too.
        self.bring_vpc(&instance.vpc_id).await?;
        let account = self.account.snapshot();
        let bootstrap = bootstrap(instance);
        let cluster = bootstrap.as_ref().map(|wish| &*wish.cluster);
        if let Some(cluster) = cluster {
            self.admit(&account, instance, cluster).await?;
        }
        if let Some(old) = instance.joined.as_deref().filter(|old| Some(*old) != cluster) {
            self.leave(instance, old).await?;
        }
        self.account.change(|context| instance::joins(context.state, id, cluster)).await?;
        let spec = self.spec(&account, instance, bootstrap.as_ref()).await?;
        let machine = self.machine(instance)?;
        tokio::task::spawn_blocking(move || machine.start(&spec)).await??;
        self.state().seen.insert(id.clone(), instance.reboots);
        self.observe(id, State::Running, None).await
    }

    async fn stop(&self, instance: &Instance) -> Result<(), Ec2Error> {
        let machine = self.machine(instance)?;
        Ok(tokio::task::spawn_blocking(move || machine.stop()).await??)
    }

    async fn terminate(&self, instance: &Instance) -> Result<(), Ec2Error> {
        let id = &instance.instance_id;
        let machine = self.machine(instance)?;
        tokio::task::spawn_blocking(move || machine.delete()).await??;
        // It may have joined since this pass began.
        let known = state::get::<Instance>(&self.account.snapshot(), "", id);
        if let Some(cluster) = known.and_then(|kept| kept.record.joined) {
            self.leave(instance, &cluster).await?;
        }
        let dir = self.instance_dir(id);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(files::FileError::new("remove", &dir, error).into());
            }
            _ => {}
        }
        self.state().seen.remove(id);
        self.observe(id, State::Terminated, None).await
    }

    /// Whether an instance becomes a node of the cluster that its user data names.
    async fn admit(&self, account: &Snapshot, instance: &Instance, cluster: &str) -> Result<(), Ec2Error> {
        let record = state::get::<ClusterRecord>(account, "", cluster);
        let objects = self.clusters.objects(cluster).await;
        let none = || Ec2Error::NoCluster(cluster.to_owned());
        let (record, objects) = record.zip(objects).ok_or_else(none)?;
        node::admit(account, &objects, &record.record, instance).map_err(Ec2Error::Refused)
    }

    /// An instance is no node of a cluster any more.
    async fn leave(&self, instance: &Instance, cluster: &str) -> Result<(), Ec2Error> {
        images::release(&self.site.cluster_images(cluster), instance.node_name())?;
        self.clusters.left(cluster, instance.node_name(), instance.provider_part()).await;
        Ok(())
    }

    /// What an instance is handed that is not its root.
    fn instance_dir(&self, id: &str) -> PathBuf {
        self.site.dir.join("instances").join(id)
    }

    async fn spec(
        &self,
        account: &Snapshot,
        instance: &Instance,
        bootstrap: Option<&Bootstrap>,
    ) -> Result<MachineSpec, Ec2Error> {
        let id = &instance.instance_id;
        let none = || Ec2Error::NoInterface(id.clone());
        let first = interface::primary_of(account, id).ok_or_else(none)?.record;
        let subnet = state::get::<Subnet>(account, "", &first.subnet_id).ok_or_else(none)?.record;
        let kind = instance_type::find(&instance.instance_type);
        let dir = self.instance_dir(id);
        files::make_dir(&dir)?;
        let mut binds = vec![Bind { source: dir.clone(), target: "/etc/ekso".into(), read_only: true }];
        let command = match bootstrap {
            None => vec!["/usr/bin/ekso".to_owned(), "machine-idle".to_owned()],
            Some(joined) => {
                let join = self.clusters.join(&joined.cluster, instance.node_name()).await;
                let join = join.ok_or_else(|| Ec2Error::NoCluster(joined.cluster.clone()))?;
                files::write(&dir.join("token"), 0o600, join.token.as_bytes())?;
                let images = images::folder(&self.site, &joined.cluster).await?;
                binds.push(Bind { source: images, target: "/var/lib/ekso/images".into(), read_only: false });
                let public = aws::ec2::public_of(account, &first);
                let vpc = state::get::<Vpc>(account, "", &instance.vpc_id).ok_or_else(none)?.record;
                let region = &self.account.identity.region;
                let node =
                    Node { instance, interface: &first, vpc: &vpc, kind: kind.as_ref(), joined, region };
                node.command(&join, public)
            }
        };
        let limits = size(instance, kind.as_ref()).map_or(Limits::default(), |(cpu_milli, memory_bytes)| {
            Limits { memory_bytes: Some(memory_bytes), cpu_millis: Some(cpu_milli) }
        });
        Ok(MachineSpec {
            link: Link { vpc: instance.vpc_id.clone(), address: first.private_ip, subnet: subnet.cidr_block },
            hostname: Some(instance.node_name().to_owned()),
            command,
            env: Vec::new(),
            binds,
            limits,
            nameservers: resolvers(),
            hosts: Vec::new(),
            stop_grace_ms: 10_000,
        })
    }
}

/// The host's resolvers that a machine can reach: not those that listen on the host's own loopback.
fn resolvers() -> Vec<Ipv4Addr> {
    let known = machines::resolvers().into_iter().filter_map(|address| match address {
        IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    });
    known.collect()
}

/// Thousandths of a CPU and bytes of memory that a machine has; none for as large as the host.
fn size(instance: &Instance, kind: Option<&InstanceType>) -> Option<(u64, u64)> {
    let (cpu_milli, memory_mib) = match (&instance.fargate, kind) {
        (Some(task), _) => (task.cpu_milli, task.memory_mib),
        (None, kind) => kind.map(|kind| (kind.cpus * 1000, kind.memory_mib))?,
    };
    Some((u64::from(cpu_milli), u64::from(memory_mib) << 20))
}

/// What its user data wishes, or the site's owner, or what Fargate has.
fn bootstrap(instance: &Instance) -> Option<Bootstrap> {
    if let Some(node) = &instance.site_node {
        return Some(Bootstrap { cluster: node.cluster.clone(), ..Bootstrap::default() });
    }
    if let Some(task) = &instance.fargate {
        let (key, value) = COMPUTE_TYPE;
        return Some(Bootstrap {
            cluster: task.cluster.clone(),
            labels: [(key.to_owned(), value.to_owned())].into(),
            taints: vec![format!("{key}={value}:NoSchedule")],
            max_pods: Some(1),
            ..Bootstrap::default()
        });
    }
    user_data::read(instance.user_data.as_deref()?)
}

/// An instance that is a node.
struct Node<'a> {
    instance: &'a Instance,
    interface: &'a NetworkInterface,
    vpc: &'a Vpc,
    kind: Option<&'a InstanceType>,
    joined: &'a Bootstrap,
    region: &'a str,
}

impl Node<'_> {
    fn command(&self, join: &Join, public: Option<Ipv4Addr>) -> Vec<String> {
        let mut words: Vec<String> = vec!["/usr/bin/ekso".into(), "node".into()];
        let mut say = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
        say("--server", format!("https://{}", join.server));
        say("--token-file", "/etc/ekso/token".into());
        say("--name", self.instance.node_name().to_owned());
        say("--node-ip", self.interface.private_ip.to_string());
        if let Some(public) = public {
            say("--external-ip", public.to_string());
        }
        if let Some(prefix) = self.interface.prefix {
            say("--pod-cidr", prefix.to_string());
        }
        for range in self.vpc.ranges() {
            say("--cluster-cidr", range.to_string());
        }
        say("--root-dir", "/var/lib/ekso/node".into());
        say("--image-dir", "/var/lib/ekso/images".into());
        say("--cluster-dns", join.dns.to_string());
        say("--minor", self.minor().unwrap_or(join.minor).to_string());
        for (flag, value) in join.registries.flags() {
            say(flag, value);
        }
        say("--provider-id", self.instance.provider_id());
        if let Some((cpu_milli, memory_bytes)) = size(self.instance, self.kind) {
            say("--cpu-milli", cpu_milli.to_string());
            say("--memory-bytes", memory_bytes.to_string());
        }
        if let Some(most) = self.joined.max_pods.or_else(|| self.kind.map(pods::most)) {
            say("--max-pods", most.to_string());
        }
        if let Some(task) = &self.instance.fargate {
            say("--only-pod", task.pod_uid.clone());
        }
        for (key, value) in self.labels() {
            say("--label", format!("{key}={value}"));
        }
        for taint in &self.joined.taints {
            say("--taint", taint.clone());
        }
        words
    }

    /// Nodes are of the version of their image; the site's own of their cluster's.
    fn minor(&self) -> Option<u8> {
        let image =
            place::image(&self.instance.image_id).ok().filter(|_| self.instance.site_node.is_none())?;
        VERSIONS.iter().find(|row| row.name == image.version).map(|row| row.minor)
    }

    /// Those of the user data, and those that EKS' nodes have.
    fn labels(&self) -> Vec<(String, String)> {
        // What Fargate's are made of, nobody is told.
        let kind = Some(&self.instance.instance_type).filter(|_| self.instance.fargate.is_none());
        let keys = ["beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"];
        let of_kind = kind.into_iter().flat_map(|kind| keys.map(|key| (key, kind.clone())));
        let of_place = place::labels(self.region, &self.instance.availability_zone);
        let given = self.joined.labels.iter().map(|(key, value)| (key.clone(), value.clone()));
        let own = of_kind.chain(of_place).map(|(key, value)| (key.to_owned(), value));
        own.chain(given).collect()
    }
}

#[cfg(test)]
mod tests {
    use aws::ec2::record::MetadataOptions;

    use super::*;

    fn instance(wanted: Wanted, state: State) -> Instance {
        Instance {
            instance_id: "i-1".into(),
            reservation_id: String::new(),
            client_token: String::new(),
            launch_index: 0,
            image_id: String::new(),
            instance_type: "t3.medium".into(),
            vpc_id: String::new(),
            subnet_id: String::new(),
            availability_zone: "us-east-1a".into(),
            private_dns_name: String::new(),
            key_name: None,
            profile: None,
            user_data: None,
            metadata: MetadataOptions { is_enabled: true, hop_limit: 1, shows_tags: false },
            is_spot: false,
            disable_api_termination: false,
            ebs_optimized: false,
            launched: Time::from_secs(0),
            wanted,
            reboots: 1,
            state,
            joined: None,
            site_node: None,
            fargate: None,
            reason: None,
            terminated: (state == State::Terminated).then(|| Time::from_secs(100)),
            tags: Default::default(),
        }
    }

    #[test]
    fn every_state_leads_to_what_is_wanted() {
        use State::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
        for (wanted, state, is_running, seen, now, expected) in [
            (Wanted::Running, Pending, false, None, 0, Step::Start),
            (Wanted::Running, Pending, true, None, 0, Step::Observe(Running)),
            (Wanted::Running, Running, true, Some(1), 0, Step::Nothing),
            (Wanted::Running, Running, true, Some(0), 0, Step::Restart),
            // After a restart of the host, machines come back.
            (Wanted::Running, Running, false, None, 0, Step::Start),
            (Wanted::Running, Running, false, Some(1), 0, Step::WentDown),
            (Wanted::Stopped, Stopping, true, Some(1), 0, Step::Stop),
            (Wanted::Stopped, Stopped, false, None, 0, Step::Nothing),
            (Wanted::Stopped, Stopped, true, None, 0, Step::Stop),
            (Wanted::Terminated, ShuttingDown, true, Some(1), 0, Step::Terminate),
            (Wanted::Terminated, Terminated, false, None, 200, Step::Nothing),
            (Wanted::Terminated, Terminated, false, None, 100 + 3_601, Step::Forget),
        ] {
            let found = step(&instance(wanted, state), is_running, false, seen, Time::from_secs(now));
            assert_eq!(found, expected, "{wanted:?} {state:?} {is_running} {seen:?}");
        }
        // A node of a cluster that was stopped.
        for (wanted, state, is_running, expected) in [
            (Wanted::Running, Running, true, Step::Sleep),
            (Wanted::Running, Running, false, Step::Nothing),
            (Wanted::Running, Pending, false, Step::Nothing),
            (Wanted::Terminated, ShuttingDown, false, Step::Terminate),
        ] {
            let found = step(&instance(wanted, state), is_running, true, Some(1), Time::from_secs(0));
            assert_eq!(found, expected, "{wanted:?} {state:?} {is_running}");
        }
    }

    #[test]
    fn what_should_have_been_forgotten_is_not_waited_for() {
        let [first, second] = [100, 200].map(|ended| Instance {
            terminated: Some(Time::from_secs(ended)),
            ..instance(Wanted::Terminated, State::Terminated)
        });
        let at = |instance| instance::forgotten_at(instance).expect("it has ended");
        let running = instance(Wanted::Running, State::Running);
        for (now, expected) in [
            (Time::from_secs(150), Some(at(&first))),
            (at(&first), Some(at(&second))),
            (at(&second).plus_secs(1), None),
        ] {
            assert_eq!(next_look([&running, &second, &first].into_iter(), now), expected, "{now:?}");
        }
    }
}
