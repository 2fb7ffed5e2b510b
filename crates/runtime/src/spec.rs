//! How to start a container, with everything decided: what the runtime writes down and the child process reads.
//!
//! A monitor may be older than the runtime that writes, so fields may be added but not renamed, and each has a default.

use plan::node::{
    ContainerConfig, Device, ImageConfig, ImageVolume, Mount, NamespaceOptions, SandboxConfig,
    SecurityContext,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// Unpacked layers, the lowest first.
    pub layers: Vec<PathBuf>,
    pub process: Process,
    /// `user[:group]` of the image.
    pub image_user: String,
    pub security: SecurityContext,
    pub namespaces: NamespaceOptions,
    /// In the order in which they are made: shallow ones first.
    pub volumes: Vec<Volume>,
    pub devices: Vec<Device>,
    /// The pod's `/dev/shm`.
    pub shm: PathBuf,
    /// Cgroup directories to join.
    pub cgroups: Vec<PathBuf>,
    /// The same by the name under which the container sees them; a single empty name for version 2.
    pub cgroup_views: Vec<(String, PathBuf)>,
    /// Whether the container gets a cgroup namespace.
    pub cgroup_namespace: bool,
    pub oom_score_adj: Option<i32>,
}

/// What is mounted on the image's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Volume {
    Host(Mount),
    Image(ImageVolume),
}

impl Volume {
    pub fn container_path(&self) -> &str {
        match self {
            Volume::Host(mount) => &mount.container_path,
            Volume::Image(image) => &image.container_path,
        }
    }
}

/// What runs, in a container that starts or in one that runs already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    pub args: Vec<String>,
    /// `NAME=value`, each name once.
    pub env: Vec<String>,
    pub working_dir: String,
    pub tty: bool,
}

/// What the runtime knows of a container's place besides its configuration.
pub struct Place<'a> {
    /// The container's directory.
    pub directory: &'a Path,
    /// The sandbox's directory.
    pub sandbox: &'a Path,
    pub shm: PathBuf,
    pub cgroups: Vec<PathBuf>,
    pub cgroup_views: Vec<(String, PathBuf)>,
    pub cgroup_namespace: bool,
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// # Errors
/// Neither the pod nor the image says what to run.
pub fn resolve(
    sandbox: &SandboxConfig,
    config: &ContainerConfig,
    image: &ImageConfig,
    layers: Vec<PathBuf>,
    place: Place,
) -> Result<Spec, String> {
    let working_dir = [&config.working_dir, &image.working_dir].into_iter().find(|dir| !dir.is_empty());
    let process = Process {
        args: command(config, image)?,
        env: environment(sandbox, config, image),
        working_dir: working_dir.cloned().unwrap_or_else(|| "/".into()),
        tty: config.tty,
    };
    Ok(Spec {
        layers,
        process,
        image_user: image.user.clone(),
        security: config.security.clone(),
        namespaces: sandbox.namespaces,
        volumes: volumes(config, image, &place),
        devices: config.devices.clone(),
        shm: place.shm,
        cgroups: place.cgroups,
        cgroup_views: place.cgroup_views,
        cgroup_namespace: place.cgroup_namespace && !config.security.privileged,
        oom_score_adj: config.resources.oom_score_adj,
    })
}

/// The table of "Define a Command and Arguments for a Container".
fn command(config: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>, String> {
    let (command, args) = (&config.command, &config.args);
    let args: Vec<String> = if !command.is_empty() {
        command.iter().chain(args).cloned().collect()
    } else if !args.is_empty() {
        image.entrypoint.iter().chain(args).cloned().collect()
    } else {
        image.entrypoint.iter().chain(&image.cmd).cloned().collect()
    };
    if args.is_empty() { Err("no command specified".into()) } else { Ok(args) }
}

fn environment(sandbox: &SandboxConfig, config: &ContainerConfig, image: &ImageConfig) -> Vec<String> {
    let mut env: Vec<String> = vec![format!("PATH={DEFAULT_PATH}")];
    match sandbox.namespaces.host_network || sandbox.hostname.is_empty() {
        true => set(&mut env, format!("HOSTNAME={}", crate::etc::machine_name())),
        false => set(&mut env, format!("HOSTNAME={}", sandbox.hostname)),
    }
    if config.tty {
        set(&mut env, "TERM=xterm".into());
    }
    for entry in &image.env {
        set(&mut env, entry.clone());
    }
    for (name, value) in &config.env {
        set(&mut env, format!("{name}={value}"));
    }
    env
}

/// Replaces the entry of the same name, or appends.
pub fn set(env: &mut Vec<String>, entry: String) {
    let name = |entry: &str| entry.split('=').next().unwrap_or("").to_string();
    let wanted = name(&entry);
    match env.iter_mut().find(|old| name(old) == wanted) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

fn volumes(config: &ContainerConfig, image: &ImageConfig, place: &Place) -> Vec<Volume> {
    let mut ours: Vec<Mount> = Vec::new();
    let read_only = config.security.read_only_root_filesystem;
    for file in ["hostname", "hosts", "resolv.conf"] {
        ours.push(file_mount(place.sandbox.join(file), &format!("/etc/{file}"), read_only));
    }
    if !config.termination_message_path.is_empty() {
        let file = place.directory.join("termination-log");
        ours.push(file_mount(file, &config.termination_message_path, false));
    }
    // On a writable root the image's own directories do.
    if read_only {
        for (number, volume) in image.volumes.iter().enumerate() {
            ours.push(file_mount(place.directory.join("volumes").join(number.to_string()), volume, false));
        }
    }
    let theirs = config.mounts.iter().cloned().map(Volume::Host);
    let theirs: Vec<Volume> = theirs.chain(config.image_volumes.iter().cloned().map(Volume::Image)).collect();
    let same = |a: &str, b: &str| Path::new(a).components().eq(Path::new(b).components());
    ours.retain(|ours| !theirs.iter().any(|theirs| same(&ours.container_path, theirs.container_path())));
    let mut volumes: Vec<Volume> = ours.into_iter().map(Volume::Host).chain(theirs).collect();
    volumes.sort_by_key(|volume| Path::new(volume.container_path()).components().count());
    volumes
}

fn file_mount(host_path: PathBuf, container_path: &str, read_only: bool) -> Mount {
    Mount { host_path, container_path: container_path.into(), read_only, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn commands() {
        let check = |command_: &[&str], args: &[&str], want: &[&str]| {
            let config =
                ContainerConfig { command: strings(command_), args: strings(args), ..Default::default() };
            let image =
                ImageConfig { entrypoint: strings(&["/ep"]), cmd: strings(&["c"]), ..Default::default() };
            assert_eq!(command(&config, &image).unwrap(), strings(want));
        };
        check(&[], &[], &["/ep", "c"]);
        check(&["/cmd"], &[], &["/cmd"]);
        check(&[], &["a"], &["/ep", "a"]);
        check(&["/cmd"], &["a"], &["/cmd", "a"]);
        let nothing = command(&ContainerConfig::default(), &ImageConfig::default());
        assert_eq!(nothing.unwrap_err(), "no command specified");
    }

    #[test]
    fn later_environment_wins() {
        let sandbox = SandboxConfig { hostname: "pod".into(), ..Default::default() };
        let image = ImageConfig { env: strings(&["PATH=/bin", "A=1"]), ..Default::default() };
        let config = ContainerConfig { env: vec![("A".into(), "2".into())], ..Default::default() };
        assert_eq!(environment(&sandbox, &config, &image), strings(&["PATH=/bin", "HOSTNAME=pod", "A=2"]));
    }

    #[test]
    fn a_pods_mount_replaces_ours_and_shallow_ones_come_first() {
        let place = Place {
            directory: Path::new("/c"),
            sandbox: Path::new("/s"),
            shm: PathBuf::new(),
            cgroups: vec![],
            cgroup_views: vec![],
            cgroup_namespace: false,
        };
        let mount = |path: &str| file_mount("/host".into(), path, false);
        let config = ContainerConfig {
            termination_message_path: "/dev/termination-log".into(),
            mounts: vec![mount("/data/deep/er"), mount("/etc/hosts/"), mount("/data")],
            ..Default::default()
        };
        let volumes = volumes(&config, &ImageConfig::default(), &place);
        let paths: Vec<&str> = volumes.iter().map(Volume::container_path).collect();
        assert_eq!(
            paths,
            [
                "/data",
                "/etc/hostname",
                "/etc/resolv.conf",
                "/dev/termination-log",
                "/etc/hosts/",
                "/data/deep/er"
            ]
        );
        assert_eq!(volumes[4], Volume::Host(mount("/etc/hosts/")));
    }
}
