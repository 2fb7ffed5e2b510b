//! A host as most people have it: the kernel of a distribution and version 2 of control groups alone. In an emulator, so that it is the
//! same whatever runs the tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{Ignored, ekso_binary, kernel_folder, kubectl_binary, run, tool};

/// An emulator is some twenty times slower than what it emulates.
const PATIENCE_SECS: &str = "600";

/// What the first process does before it runs the steps. Ekso's names need no resolver, and modules come when they are asked for.
const INIT: &str = "#!/bin/sh
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devtmpfs dev /dev
mkdir /dev/pts /dev/shm
mount -t devpts pts /dev/pts
for dir in /dev/shm /run /tmp; do mount -t tmpfs tmpfs $dir; done
ip link set lo up
sh /steps 2>&1
poweroff -f
";

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: lives}
spec:
  containers:
  - {name: c, image: "box:1", command: [/bin/sleep, "1000"], resources: {limits: {memory: 64Mi, cpu: 200m}}}
---
apiVersion: v1
kind: Pod
metadata: {name: hungers}
spec:
  restartPolicy: Never
  containers:
  - {name: c, image: "box:1", command: [/bin/dd, if=/dev/zero, of=/dev/null, bs=100M, count=2], resources: {limits: {memory: 32Mi}}}
"#;

const RESIZED: &str = r#"{"spec":{"containers":[{"name":"c","resources":{"requests":{"memory":"80Mi","cpu":"300m"},"limits":{"memory":"80Mi","cpu":"300m"}}}]}}"#;

/// A command of a user, and what stands in what it says.
const STEPS: &[(&str, &str)] = &[
    ("cat /proc/self/cgroup", "0::/"),
    ("ls /sys/fs/cgroup", "memory.pressure"),
    ("ekso up", "cluster is up"),
    ("kubectl get nodes", " Ready "),
    ("ekso image import --rootfs /box --cmd '/bin/sleep 1000' box:1", "imported"),
    ("kubectl apply -f /pods.yaml", "pod/hungers created"),
    ("kubectl wait --for=condition=Ready pod/lives --timeout=120s", "condition met"),
    ("kubectl wait --for=jsonpath='{.status.phase}'=Failed pod/hungers --timeout=120s", "condition met"),
    ("kubectl get pod hungers", "OOMKilled"),
    // A pod sees its own group as the root.
    ("kubectl exec lives -- cat /proc/self/cgroup", "0::/\n"),
    ("kubectl exec lives -- cat /sys/fs/cgroup/memory.max", "67108864"),
    ("kubectl exec lives -- cat /sys/fs/cgroup/cpu.max", "20000 100000"),
    (
        "kubectl exec lives -- sh -c 'mknod /tmp/disk b 254 0; cat /tmp/disk' || true",
        "Operation not permitted",
    ),
    ("kubectl get --raw /api/v1/nodes/dev-1/proxy/stats/summary", "\"workingSetBytes\""),
    ("kubectl patch pod lives --subresource resize --patch-file /resized.json", "patched"),
    (
        "kubectl wait --for=jsonpath='{.status.containerStatuses[0].resources.limits.memory}'=80Mi pod/lives --timeout=60s",
        "condition met",
    ),
    ("kubectl exec lives -- cat /sys/fs/cgroup/memory.max", "83886080"),
    ("kubectl exec lives -- cat /sys/fs/cgroup/cpu.max", "30000 100000"),
    ("ekso down && ekso up", "cluster is up"),
    ("kubectl wait --for=condition=Ready pod/lives --timeout=120s", "condition met"),
    ("ekso delete", "everything of dev is removed"),
    ("find /sys/fs/cgroup -name 'ekso*'; echo none else", "none else\n"),
];

/// Stands before and after what a step says.
const MARK: &str = "~~~~";

pub fn tell() -> Result<()> {
    let Some(kernel) = kernel_folder() else {
        return Err(Ignored("it starts a kernel of Debian, for which this is no Debian on amd64").into());
    };
    let scratch = tempfile::tempdir().context("make a folder")?;
    let root = scratch.path().join("root");
    furnish(&root).context("furnish the disk")?;
    run(Command::new(tool("cp")?).arg("-a").arg(kernel.join("root/lib")).arg(&root), "")?.ok()?;
    let disk = scratch.path().join("disk");
    let mut made = Command::new(tool("mke2fs")?);
    made.args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&disk).arg("4G");
    run(&mut made, "")?.ok()?;
    let said = boot(&kernel, &disk)?;
    judge(&said)
}

/// The disk of the host: busybox, Ekso, kubectl and the modules.
fn furnish(root: &Path) -> Result<()> {
    for dir in
        ["bin", "sbin", "box/bin", "box/tmp", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var/lib"]
    {
        fs::create_dir_all(root.join(dir))?;
    }
    let busybox = tool("busybox")?;
    let applets = run(Command::new(&busybox).arg("--list"), "")?.ok()?;
    for bin in [root.join("bin"), root.join("box/bin")] {
        fs::copy(&busybox, bin.join("busybox"))?;
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            std::os::unix::fs::symlink("busybox", bin.join(applet))?;
        }
    }
    std::os::unix::fs::symlink("/bin/busybox", root.join("sbin/modprobe"))?;
    let ekso = ekso_binary()?;
    fs::copy(&ekso, root.join("bin/ekso"))?;
    // The binary of tests is not static, as a released one is.
    let libraries = run(Command::new(tool("ldd")?).arg(&ekso), "")?.stdout;
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let copy = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().context("a library is in a folder")?)?;
        fs::copy(library, copy)?;
    }
    fs::copy(kubectl_binary(36)?, root.join("bin/kubectl"))?;
    for (file, text) in [
        ("etc/hosts", "127.0.0.1 localhost\n"),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("init", INIT),
        ("pods.yaml", PODS),
        ("resized.json", RESIZED),
    ] {
        fs::write(root.join(file), text)?;
    }
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    // Every step stands on the ones before.
    let step = |command: &str| {
        format!("echo {MARK}; {command}\ncode=$?; echo \"(code $code)\"; [ $code = 0 ] || exit\n")
    };
    let steps: String = STEPS.iter().map(|(command, _)| step(command)).collect();
    fs::write(root.join("steps"), steps)?;
    Ok(())
}

/// Starts the emulator and waits until the host is off: what its console said.
fn boot(kernel: &Path, disk: &Path) -> Result<String> {
    let drive = format!("file={},if=virtio,format=raw,cache=unsafe", disk.display());
    let mut emulator = Command::new(tool("timeout")?);
    emulator.arg(PATIENCE_SECS).arg(tool("qemu-system-x86_64")?);
    emulator
        .args("-accel tcg,thread=multi -cpu max -smp 2 -m 2048 -nographic -no-reboot -nic none".split(' '));
    emulator.arg("-kernel").arg(kernel.join("vmlinuz")).arg("-initrd").arg(kernel.join("ramdisk.cpio"));
    emulator.args(["-drive", &drive, "-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all"]);
    Ok(run(&mut emulator, "")?.ok()?.replace('\r', ""))
}

fn judge(said: &str) -> Result<()> {
    let mut answers = said.split(MARK).skip(1);
    for (command, expected) in STEPS {
        let answer = answers.next().with_context(|| format!("the host ended before {command}: {said}"))?;
        ensure!(answer.contains(expected), "{command} should say {expected:?}, and says: {answer}");
        ensure!(answer.contains("(code 0)"), "{command} failed: {answer}");
    }
    Ok(())
}
