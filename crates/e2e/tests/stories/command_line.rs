//! `ekso` itself: what it does, and what it says when it cannot.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{Refused, Room, Site, ekso_binary, get, refuse, run, tool, until};

/// What is down keeps its state, and comes back as it was.
pub fn down_and_up() -> Result<()> {
    let site = Site::new()?;
    let cluster = site.up("again", "--nodes 2").context(site.logs())?;
    let room = Room { cluster: &cluster, namespace: "default".into() };
    room.kubectl("create deployment web --image=e2e:1 --replicas=2")?;
    room.kubectl("expose deployment web --type=NodePort --port=80 --target-port=8080")?;
    room.rolled_out("deployment/web")?;
    site.ekso("down --name again")?.ok()?;
    let status = cluster.status()?;
    ensure!(status["state"] == "Stopped", "{status}");
    site.ekso("up --name again")?.ok().context(site.logs())?;
    room.rolled_out("deployment/web")?;
    let door = room.node_ports("web")?[1];
    until("the Service answers again", || Ok(get(door, "/version").ok()))?;
    // Asked again, nothing changes; asked for fewer nodes, one goes.
    site.ekso("up --name again")?.ok()?;
    site.ekso("up --name again --nodes 1")?.ok()?;
    until("there is one node", || {
        Ok((room.kubectl("get nodes -o name")?.lines().count() == 1).then_some(()))
    })?;
    room.rolled_out("deployment/web")?;
    site.ekso("up --name another --api-port 0 --nodes 0")?.ok()?;
    site.ekso("delete")?
        .fails_with("there is no cluster named dev: choose with --name, there are: again, another")?;
    site.delete_all()?;
    // Nothing is left to delete.
    site.delete_all()
}

/// Two data folders on one host never meet.
pub fn two_sites() -> Result<()> {
    let (one, other) = (Site::new()?, Site::new()?);
    let first = one.up("dev", "").context(one.logs())?;
    let second = other.up("dev", "").context(other.logs())?;
    for cluster in [&first, &second] {
        cluster.kubectl("create deployment web --image=e2e:1")?;
        cluster.kubectl("rollout status deployment/web --timeout=120s")?;
    }
    let config = std::fs::read_to_string(one.kubeconfig())?;
    ensure!(
        config.contains("current-context: ekso-dev") || config.contains("\"current-context\": \"ekso-dev\""),
        "{config}"
    );
    one.delete("dev")?;
    second.kubectl("rollout restart deployment/web")?;
    second.kubectl("rollout status deployment/web --timeout=120s")?;
    other.delete("dev")
}

/// Each refusal names what is missing and how to mend it, has its exit code, and leaves nothing half-made.
pub fn machine_lacks() -> Result<()> {
    let site = Site::new()?;
    let not_root = |words: &str| -> Result<_> {
        // The binary's folder may be closed to others; a copy in an open place is not.
        let copy = std::path::PathBuf::from("/tmp").join(format!("ekso-e2e-copy-{}", std::process::id()));
        // By another process: a file that this one writes may be held open by what it starts meanwhile, and cannot be run.
        run(Command::new("cp").arg(ekso_binary()?).arg(&copy), "")?.ok()?;
        let mut command = Command::new(&copy);
        command.args(words.split_whitespace()).env("EKSO_DATA_DIR", site.dir()).uid(65_534).gid(65_534);
        let answer = run(&mut command, "");
        std::fs::remove_file(&copy)?;
        answer
    };
    for words in ["up", "down", "delete", "list", "status", "image list"] {
        let answer = not_root(words)?;
        answer.fails_with("needs root: run it with sudo")?;
        ensure!(answer.code == 4, "ekso {words} as nobody ends with {}", answer.code);
    }
    let doctor = not_root("doctor")?;
    ensure!(doctor.code == 4 && doctor.stdout.contains("run it with sudo"), "{doctor:?}");
    ensure!(!site.dir().exists(), "who may do nothing makes nothing");

    let doctor = site.ekso("doctor -o json")?;
    let findings: serde_json::Value = serde_json::from_str(&doctor.stdout).context("doctor's JSON")?;
    let findings = findings.as_array().context("doctor's JSON is a list")?;
    ensure!(
        findings.iter().all(|one| one["mend"].as_str().is_some_and(|mend| !mend.is_empty())),
        "{findings:?}"
    );
    ensure!(!site.dir().exists(), "doctor makes no site");

    let none = site.ekso("status --name none")?;
    none.fails_with("there is no cluster named none")?;
    ensure!(none.code == 3, "exit code {}", none.code);
    let wrong = site.ekso("up --nodes many")?;
    ensure!(wrong.code == 2, "exit code {}", wrong.code);

    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let refused = site.ekso(&format!("up --name taken --api-port {port} --nodes 0"))?;
    refused.fails_with(&format!("{port}"))?;
    refused.fails_with("--api-port")?;
    // One that never ran is not there to be deleted.
    site.is_gone()
}

/// What the kernel lacks is said by its name before anything is made, or nothing of it stays.
pub fn kernel_lacks() -> Result<()> {
    let site = Site::new()?;
    let up = "up --name bare --api-port 0";
    let mut few = Command::new(tool("setpriv")?);
    few.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]).arg(ekso_binary()?);
    few.args(up.split(' ')).env("EKSO_DATA_DIR", site.dir()).env("KUBECONFIG", site.kubeconfig());
    let answer = run(&mut few, "")?;
    answer.fails_with("root lacks CAP_NET_ADMIN here")?;
    ensure!(answer.code == 4 && !site.dir().exists(), "{answer:?}");
    for (refused, says) in [
        // overlayfs is the one that is mounted without a flag.
        (Refused { call: libc::SYS_mount, argument: 3, value: 0, errno: libc::ENODEV }, "modprobe overlay"),
        (
            Refused { call: libc::SYS_socket, argument: 2, value: 12, errno: libc::EPROTONOSUPPORT },
            "nftables cannot be used",
        ),
    ] {
        let mut command = site.command(up)?;
        refuse(&mut command, refused);
        let answer = run(&mut command, "")?;
        site.remember();
        answer.fails_with(says)?;
        ensure!(answer.code == 4, "{answer:?}");
        site.is_gone()?;
    }
    Ok(())
}

/// Who is neither root nor the daemon's own user is not answered, even if the door stands open.
pub fn door() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new()?;
    site.ekso("up --name door --api-port 0 --nodes 0")?.ok()?;
    let socket = site.dir().join("ekso.sock");
    for path in [site.scratch(), &site.dir(), &socket] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    }
    let ask = |user: u32| -> Result<e2e::Answer> {
        let mut curl = Command::new(tool("curl")?);
        curl.args(["--silent", "--http0.9", "--max-time", "20", "--unix-socket"]).arg(&socket);
        curl.args(["http://ekso/"]).current_dir("/").uid(user).gid(user);
        run(&mut curl, "")
    };
    let root = ask(0)?;
    ensure!(root.stdout.contains("does not understand"), "root is answered: {root:?}");
    let nobody = ask(65_534)?;
    ensure!(nobody.code != 0 && nobody.stdout.is_empty(), "nobody is answered: {nobody:?}");
    ensure!(site.logs().contains("neither root nor this daemon's user"), "{}", site.logs());
    std::fs::set_permissions(site.dir(), std::fs::Permissions::from_mode(0o700))?;
    site.delete("door")
}

/// A cluster whose nodes cannot be started is there to be looked at, and the failure says where.
pub fn nodes_that_fail() -> Result<()> {
    let site = Site::new()?;
    site.ekso("up --name lame --api-port 0 --nodes 0")?.ok()?;
    let machines = site.dir().join("vpc/machines");
    std::fs::create_dir_all(&machines)?;
    std::fs::write(machines.join("lame-1"), "no folder")?;
    std::fs::remove_file(site.kubeconfig())?;
    let failed = site.ekso("up --name lame --nodes 1")?;
    failed.fails_with(&machines.join("lame-1").to_string_lossy())?;
    failed.fails_with("The API answers: context \"ekso-lame\" is in")?;
    let cluster = e2e::Cluster { site: &site, name: "lame".into() };
    ensure!(cluster.kubectl("get --raw /readyz")? == "ok", "the API is there");
    std::fs::remove_file(machines.join("lame-1"))?;
    site.ekso("up --name lame")?.ok().context(site.logs())?;
    // However often its process was killed, `up` ends with one that runs, and its machine forgets the failures.
    for _ in 0..5 {
        let process = rustix::process::Pid::from_raw(cluster.node_pid("lame-1")?).context("a process")?;
        rustix::process::kill_process(process, rustix::process::Signal::KILL)?;
        site.ekso("up --name lame")?.ok().context(site.logs())?;
        cluster.node_pid("lame-1")?;
    }
    let log = std::fs::read_to_string(machines.join("lame-1/root/var/log/ekso/node.log"))?;
    let restarts: Vec<&str> = log.lines().filter(|line| line.contains("started again in")).collect();
    ensure!(restarts.len() >= 5 && restarts.iter().all(|line| line.ends_with("in 0 ms")), "{restarts:?}");
    site.delete("lame")
}

/// A full disk: an error that says so, no acknowledged write lost, and on it goes when there is room.
pub fn data_folder_full() -> Result<()> {
    let site = Site::new()?;
    std::fs::create_dir(site.dir())?;
    run(Command::new(tool("mount")?).args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(site.dir()), "")?
        .ok()?;
    let told = fill(&site);
    let deleted = site.ekso("delete --name full");
    let id = site.ekso("list")?;
    run(Command::new(tool("umount")?).arg("-l").arg(site.dir()), "")?.ok()?;
    told.with_context(|| format!("{id:?}"))?;
    deleted?.ok().map(drop)
}

fn fill(site: &Site) -> Result<()> {
    site.ekso("up --name full --api-port 0 --nodes 0")?.ok()?;
    let cluster = e2e::Cluster { site, name: "full".into() };
    let ballast = site.dir().join("ballast");
    let mut dd = Command::new("dd");
    dd.arg("if=/dev/zero").arg(format!("of={}", ballast.display())).arg("bs=64k");
    ensure!(run(&mut dd, "")?.code != 0, "the disk is full");
    let mut kept = Vec::new();
    let refusal = loop {
        let name = format!("map-{}", kept.len());
        let mut create =
            cluster.kubectl_command(36, &format!("create configmap {name} --from-file=x=/dev/stdin"))?;
        let answer = run(&mut create, &"x".repeat(512 << 10))?;
        if answer.code != 0 {
            break answer.stderr;
        }
        kept.push(name);
        ensure!(kept.len() < 200, "100 MB were written to a disk of 48 MB");
    };
    ensure!(
        refusal.contains("space") || refusal.contains("storage"),
        "the refusal should name the disk: {refusal}"
    );
    let seen = cluster.kubectl("get configmaps -o name")?;
    ensure!(kept.iter().all(|name| seen.contains(name.as_str())), "reads go on while the disk is full");
    std::fs::remove_file(&ballast)?;
    until("writes go on when there is room", || {
        let answer = run(&mut cluster.kubectl_command(36, "create configmap after")?, "")?;
        Ok((answer.code == 0).then_some(()))
    })?;
    site.ekso("down --name full")?.ok()?;
    site.ekso("up --name full")?.ok()?;
    let seen = cluster.kubectl("get configmaps -o name")?;
    ensure!(
        kept.iter().all(|name| seen.contains(name.as_str())),
        "what was acknowledged is there after a restart"
    );
    Ok(())
}

/// What the README tells people to type is what the binary understands.
pub fn documented_commands() -> Result<()> {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let text = std::fs::read_to_string(readme).context("read README.md")?;
    let mut checked = 0;
    // Commands stand on lines of their own, in code spans of the text, and behind pipes.
    let said = text.lines().flat_map(|line| line.split(['`', '|']));
    for line in said.map(|line| line.trim().trim_start_matches("$ ").trim_start_matches("sudo ")) {
        let Some(words) = line.strip_prefix("ekso ") else { continue };
        let words: Vec<&str> = words.split(" #").next().unwrap_or_default().split_whitespace().collect();
        let commands: Vec<&str> = words
            .iter()
            .copied()
            .take_while(|word| {
                word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && !word.starts_with('-')
            })
            .collect();
        // `image import` has two words, `completion bash` one and an argument.
        let depth = if commands.first() == Some(&"image") { 2 } else { 1 };
        let mut help = Command::new(ekso_binary()?);
        let help = run(help.args(&commands[..depth.min(commands.len())]).arg("--help"), "")?
            .ok()
            .context(line.to_owned())?;
        for option in words.iter().filter(|word| word.starts_with("--")) {
            let option = option.split('=').next().unwrap_or(option);
            ensure!(help.contains(option), "README: `{line}`: there is no {option}");
        }
        checked += 1;
    }
    ensure!(checked > 0, "the README shows no command");
    Ok(())
}
