//! What happens inside and around containers on a node.

use anyhow::{Context, Result, ensure};
use e2e::{Room, run, until};

pub fn exec_and_logs(room: &Room) -> Result<()> {
    room.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: { name: shell }
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - { name: shell, image: "e2e:1", command: [sh, -c, "echo one; echo two >&2; exec sleep 100000"], env: [{ name: COLOUR, value: blue }] }
  - { name: second, image: "e2e:1", command: [sleep, "100000"] }
---
apiVersion: v1
kind: Pod
metadata: { name: short }
spec:
  restartPolicy: Never
  containers: [{ name: short, image: "e2e:1", command: [sh, -c, "for i in 1 2 3; do echo line $i; done; exit 3"] }]
"#,
    )?;
    room.wait("pod/shell", "condition=Ready")?;
    ensure!(room.sh("shell", "echo $COLOUR; id -u")? == "blue\n0\n", "exec");
    let failed = run(room.command("exec shell -- sh -c")?.arg("echo no >&2; exit 7"), "")?;
    ensure!(failed.code == 7 && failed.stderr.contains("no\n"), "an exit code comes through: {failed:?}");
    let big: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    let echoed = run(&mut room.command("exec -i shell -c second -- cat")?, &big)?.ok()?;
    ensure!(echoed == big, "input comes back whole: {} of {} bytes", echoed.len(), big.len());
    room.try_kubectl("exec shell -- nothing")?.fails_with("executable file not found")?;

    let logs = room.kubectl("logs shell -c shell")?;
    ensure!(logs == "one\ntwo\n", "{logs:?}");
    ensure!(room.kubectl("logs shell -c second")?.is_empty(), "no log");
    room.wait("pod/short", "jsonpath={.status.phase}=Failed")?;
    ensure!(
        room.kubectl("logs -f short")? == "line 1\nline 2\nline 3\n",
        "a log that is followed ends with its container"
    );
    ensure!(room.kubectl("logs short --tail 1")? == "line 3\n", "--tail");
    let code = room.field("pod/short", "{.status.containerStatuses[0].state.terminated.exitCode}")?;
    ensure!(code == "3", "exit code {code}");

    let here = room.cluster.site.scratch().join("copied");
    std::fs::write(&here, &big).context("write a file")?;
    let to = format!("cp {} shell:/tmp/there -c shell", here.display());
    room.kubectl(&to)?;
    ensure!(room.sh("shell -c shell", "wc -c < /tmp/there")?.trim() == big.len().to_string(), "kubectl cp");
    Ok(())
}

/// Restarts, probes, init containers, limits, a graceful end.
pub fn lifecycle(room: &Room) -> Result<()> {
    room.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: { name: crasher }
spec:
  containers: [{ name: c, image: "e2e:1", command: [sh, -c, "echo life; exit 1"] }]
---
apiVersion: v1
kind: Pod
metadata: { name: greedy }
spec:
  restartPolicy: Never
  containers: [{ name: c, image: "e2e:1", command: [sh, -c, "a=x; while true; do a=$a$a; done"], resources: { limits: { memory: 32Mi } } }]
---
apiVersion: v1
kind: Pod
metadata: { name: prepared }
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
  - { name: first, image: "e2e:1", command: [sh, -c, "echo a > /work/order"], volumeMounts: [{ name: work, mountPath: /work }] }
  - { name: second, image: "e2e:1", command: [sh, -c, "echo b >> /work/order"], volumeMounts: [{ name: work, mountPath: /work }] }
  containers: [{ name: c, image: "e2e:1", volumeMounts: [{ name: work, mountPath: /work }] }]
  volumes: [{ name: work, emptyDir: {} }]
---
apiVersion: v1
kind: Pod
metadata: { name: sick }
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: e2e:1
    command: [sh, -c, "touch /tmp/well; exec sleep 100000"]
    livenessProbe: { exec: { command: [test, -e, /tmp/well] }, periodSeconds: 1, failureThreshold: 1 }
    readinessProbe: { exec: { command: [test, -e, /tmp/ready] }, periodSeconds: 1 }
---
apiVersion: v1
kind: Pod
metadata: { name: absent }
spec:
  terminationGracePeriodSeconds: 0
  containers: [{ name: c, image: "registry.invalid/none:1" }]
---
apiVersion: v1
kind: Pod
metadata: { name: polite }
spec:
  terminationGracePeriodSeconds: 30
  containers: [{ name: c, image: "e2e:1", command: [sh, -c, "trap 'exit 0' TERM; while true; do sleep 0.1; done"] }]
"#,
    )?;
    room.wait("pod/prepared", "condition=Ready")?;
    ensure!(room.sh("prepared", "cat /work/order")? == "a\nb\n", "init containers run in order");

    room.wait("pod/greedy", "jsonpath={.status.phase}=Failed")?;
    let reason = room.field("pod/greedy", "{.status.containerStatuses[0].state.terminated.reason}")?;
    ensure!(reason == "OOMKilled", "{reason}");

    room.wait(
        "pod/crasher",
        "jsonpath={.status.containerStatuses[0].state.waiting.reason}=CrashLoopBackOff",
    )?;
    ensure!(room.kubectl("logs crasher --previous")? == "life\n", "the log of the life before");

    room.wait("pod/sick", "jsonpath={.status.phase}=Running")?;
    ensure!(
        room.field("pod/sick", "{.status.containerStatuses[0].ready}")? == "false",
        "not ready before its probe says so"
    );
    room.sh("sick", "touch /tmp/ready")?;
    room.wait("pod/sick", "condition=Ready")?;
    room.sh("sick", "rm -f /tmp/well || unlink /tmp/well || kill 1")?;
    room.wait("pod/sick", "jsonpath={.status.containerStatuses[0].restartCount}=1")?;

    until("the image that is nowhere is told of", || {
        let reason = room.field("pod/absent", "{.status.containerStatuses[0].state.waiting.reason}")?;
        Ok(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()).then_some(()))
    })?;

    room.wait("pod/polite", "condition=Ready")?;
    room.kubectl("delete pod/polite --timeout=20s")
        .context("it ends on SIGTERM, long before its grace is over")?;
    Ok(())
}

/// What is mounted into pods, and that it follows its source.
pub fn volumes(room: &Room) -> Result<()> {
    room.apply(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: { name: config }
data: { colour: blue }
---
apiVersion: v1
kind: Secret
metadata: { name: secret }
stringData: { word: sesame }
---
apiVersion: v1
kind: Pod
metadata: { name: reader, labels: { app: reader } }
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: e2e:1
    envFrom: [{ configMapRef: { name: config } }, { secretRef: { name: secret, optional: true } }]
    env:
    - { name: MY_IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
    - { name: MY_MEMORY, valueFrom: { resourceFieldRef: { resource: limits.memory } } }
    resources: { limits: { memory: 32Mi } }
    volumeMounts:
    - { name: config, mountPath: /config }
    - { name: secret, mountPath: /secret }
    - { name: all, mountPath: /all }
    - { name: host, mountPath: /host }
    - { name: memory, mountPath: /memory }
  volumes:
  - { name: config, configMap: { name: config } }
  - { name: secret, secret: { secretName: secret, defaultMode: 0400 } }
  - { name: host, hostPath: { path: /var/tmp/story, type: DirectoryOrCreate } }
  - { name: memory, emptyDir: { medium: Memory } }
  - name: all
    projected:
      sources:
      - downwardAPI: { items: [{ path: labels, fieldRef: { fieldPath: metadata.labels } }] }
      - serviceAccountToken: { path: token, audience: somebody }
"#,
    )?;
    room.wait("pod/reader", "condition=Ready")?;
    let ip = room.field("pod/reader", "{.status.podIP}")?;
    for (script, expected) in [
        ("cat /config/colour", "blue"),
        ("cat /secret/word", "sesame"),
        ("stat -L -c %a /secret/word", "400"),
        ("grep -c '^app=\"reader\"$' /all/labels", "1"),
        // What a binding copies from the node.
        ("grep -c '^topology.kubernetes.io/zone=\"us-east-1' /all/labels", "1"),
        ("wc -c < /all/token | grep -c '[0-9][0-9][0-9]'", "1"),
        ("cat /var/run/secrets/kubernetes.io/serviceaccount/namespace", "volumes"),
        ("echo $colour $word $MY_MEMORY", "blue sesame 33554432"),
        ("echo $MY_IP", &ip),
        ("grep -c ' /memory tmpfs' /proc/mounts", "1"),
        ("echo kept > /host/file && cat /host/file", "kept"),
        ("touch /config/new 2>&1 | grep -c 'Read-only'", "1"),
    ] {
        let answer = room.sh("reader", script)?;
        ensure!(answer.trim() == expected, "{script}: {answer:?}, and should be {expected:?}");
    }
    ensure!(!std::path::Path::new("/var/tmp/story").exists(), "hostPath is the machine's, not this host's");
    let patch = r#"{"data":{"colour":"green"}}"#;
    run(room.command("patch configmap/config --patch")?.arg(patch), "")?.ok()?;
    until("the mounted file follows its ConfigMap", || {
        Ok((room.sh("reader", "cat /config/colour")? == "green").then_some(()))
    })
}

/// Claims bound to folders of the node, and images as volumes.
pub fn persistent_volumes(room: &Room) -> Result<()> {
    let name = &room.namespace;
    room.apply(&PERSISTENT.replace("$N", name))?;
    until("the folder that is not there is told of", || {
        let events =
            room.kubectl("get events --field-selector involvedObject.name=local -o jsonpath={..message}")?;
        Ok(events.contains("MountVolume.NewMounter initialization failed").then_some(()))
    })?;
    let writer = |pod: &str| WRITER.replace("$N", name).replace("$POD", pod);
    room.apply(&writer("first"))?;
    room.wait("pod/first", "condition=Ready")?;
    let read = room.sh("first", "cat /page/version /image/www/version")?;
    ensure!(read == "version 2\nversion 2\n", "an image, and a part of it: {read:?}");
    room.try_kubectl("exec first -- touch /image/x")?.fails_with("Read-only file system")?;
    room.wait("pod/local", "condition=Ready")?;
    let group = room.sh("local", "touch /data/x; stat -c %g /data /data/x")?;
    ensure!(group == "2000\n2000\n", "fsGroup: {group:?}");
    room.kubectl("delete pod/first")?;
    room.apply(&writer("second"))?;
    room.wait("pod/second", "condition=Ready")?;
    ensure!(room.sh("second", "cat /data/log")? == "first\nsecond\n", "what was written stays");
    room.kubectl("delete pod/second pod/local pvc/host pvc/local")?;
    room.wait(&format!("pv/{name}-host"), "jsonpath={.status.phase}=Released")?;
    room.kubectl(&format!("delete pv/{name}-host pv/{name}-local"))?;
    Ok(())
}

const PERSISTENT: &str = r#"
apiVersion: v1
kind: PersistentVolume
metadata: { name: $N-host }
spec:
  capacity: { storage: 1Gi }
  accessModes: [ReadWriteOnce]
  storageClassName: $N-host
  hostPath: { path: /var/lib/$N/host, type: DirectoryOrCreate }
---
apiVersion: v1
kind: PersistentVolume
metadata: { name: $N-local }
spec:
  capacity: { storage: 1Gi }
  accessModes: [ReadWriteOnce]
  storageClassName: $N-local
  local: { path: /var/lib/$N/local }
  nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions: [{ key: kubernetes.io/hostname, operator: Exists }] }] } }
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: host }
spec: { accessModes: [ReadWriteOnce], storageClassName: $N-host, resources: { requests: { storage: 1Gi } } }
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: local }
spec: { accessModes: [ReadWriteOnce], storageClassName: $N-local, resources: { requests: { storage: 1Gi } } }
---
apiVersion: v1
kind: Pod
metadata: { name: local }
spec:
  terminationGracePeriodSeconds: 0
  securityContext: { fsGroup: 2000 }
  containers: [{ name: c, image: "e2e:1", volumeMounts: [{ name: data, mountPath: /data }] }]
  volumes: [{ name: data, persistentVolumeClaim: { claimName: local } }]
"#;

const WRITER: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: $POD }
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: e2e:1
    command: [sh, -c, "mkdir -p /above/local; echo $POD >> /data/log; exec sleep 100000"]
    volumeMounts:
    - { name: data, mountPath: /data, subPath: part }
    - { name: above, mountPath: /above }
    - { name: image, mountPath: /image }
    - { name: image, mountPath: /page, subPath: www }
  volumes:
  - { name: data, persistentVolumeClaim: { claimName: host } }
  - { name: above, hostPath: { path: /var/lib/$N } }
  - { name: image, image: { reference: "e2e:2" } }
"#;

/// Limits of a container change while it runs (KEP-1287).
pub fn resize(room: &Room) -> Result<()> {
    room.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: { name: grows }
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: e2e:1
    command: [sleep, "100000"]
    resources: { requests: { cpu: 10m, memory: 16Mi }, limits: { cpu: 100m, memory: 32Mi } }
"#,
    )?;
    room.wait("pod/grows", "condition=Ready")?;
    let ask = |cpu: &str, memory: &str| {
        let resources =
            format!(r#"{{"requests":{{"cpu":"{cpu}"}},"limits":{{"cpu":"{cpu}","memory":"{memory}"}}}}"#);
        let patch = format!(r#"{{"spec":{{"containers":[{{"name":"c","resources":{resources}}}]}}}}"#);
        let mut command = room.command("patch pod grows --subresource resize -p")?;
        run(command.arg(patch), "")?.ok()
    };
    let has = |what: &str, cpu: &str| {
        let path = "jsonpath={.status.containerStatuses[0].resources.limits.cpu}";
        room.wait("pod/grows", &format!("{path}={cpu}")).context(what.to_owned())
    };
    let limit =
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    ask("50m", "64Mi")?;
    has("more", "50m")?;
    ensure!(room.sh("grows", limit)?.trim() == (64 << 20).to_string(), "the group has the limit");
    ask("40m", "24Mi")?;
    has("less", "40m")?;
    ensure!(room.sh("grows", limit)?.trim() == (24 << 20).to_string(), "the group has the limit");
    let refused = ask("9000", "24Mi").expect_err("no node is so large").to_string();
    ensure!(refused.contains("Node didn't have enough allocatable resources: cpu"), "{refused}");
    ask("30m", "24Mi")?;
    has("less again", "30m")?;
    let restarts = room.field("pod/grows", "{.status.containerStatuses[0].restartCount}")?;
    ensure!(restarts == "0", "it was restarted {restarts} times");
    Ok(())
}

/// A pod that fills more of the disk than it may.
pub fn eviction(room: &Room) -> Result<()> {
    room.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: { name: fills }
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - { name: c, image: "e2e:1", command: [sh, -c, "yes | head -c 4000000 > /v/x; exec sleep 100000"], volumeMounts: [{ name: v, mountPath: /v }] }
  volumes: [{ name: v, emptyDir: { sizeLimit: 1Mi } }]
---
apiVersion: v1
kind: Pod
metadata: { name: writes }
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: e2e:1
    command: [sh, -c, "yes | head -c 4000000 > /x; exec sleep 100000"]
    resources: { limits: { ephemeral-storage: 2Mi } }
"#,
    )?;
    for (pod, message) in [
        ("fills", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
        ("writes", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
    ] {
        room.wait(&format!("pod/{pod}"), "jsonpath={.status.reason}=Evicted")?;
        let told = room.field(&format!("pod/{pod}"), "{.status.phase}:{.status.message}")?;
        ensure!(told == format!("Failed:{message}"), "{pod}: {told:?}");
    }
    Ok(())
}
