//! State in a real etcd; images of a real registry and of archives.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Elsewhere, Etcd, Room, Site, run, start, tool, until};

pub fn etcd() -> Result<()> {
    let site = Site::new()?;
    let etcd = Etcd::start(site.scratch())?;
    // What upstream's server wrote before: runtime.Unknown { typeMeta: {v1, ConfigMap}, raw: {metadata: {name, namespace}, data: {k: v}} }.
    let theirs = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x20\x0a\x16\x0a\x09upstreams\x1a\x07default\x22\0\x12\x06\x0a\x01k\x12\x01v\x1a\0\x22\0";
    etcd.put("/registry/configmaps/default/upstreams", theirs)?;
    let cluster = site.up("etcd", &format!("--store {}", etcd.url())).context(site.logs())?;
    let room = Room { cluster: &cluster, namespace: "default".into() };
    room.kubectl("create deployment web --image=e2e:1 --replicas=2")?;
    room.rolled_out("deployment/web")?;
    // The keys are the standard ones.
    ensure!(etcd.count("/registry/deployments/default/web")? == 1, "the key in etcd");
    ensure!(room.field("configmap/upstreams", "{.data.k}")? == "v", "what upstream wrote");
    room.kubectl("label configmap upstreams now=ours")?;
    site.ekso("down --name etcd")?.ok()?;
    site.ekso("up --name etcd")?.ok()?;
    room.rolled_out("deployment/web")?;
    ensure!(
        room.field("configmap/upstreams", "{.metadata.labels.now}/{.data.k}")? == "ours/v",
        "after a restart"
    );
    spoiled(&room, &etcd, theirs)?;
    site.delete("etcd")?;
    // The state of a cluster whose keys are gone is nobody's to serve, and nothing is half-made.
    let refused = site.ekso(&format!("up --name etcd --api-port 0 --nodes 0 --store {}", etcd.url()))?;
    refused.fails_with("copy ca.crt, ca.key and sa.key")?;
    site.is_gone()?;
    // Nor is what cannot be read.
    etcd.put("/registry/configmaps/default/secret", b"k8s:enc:aescbc:v1:key1:?")?;
    let refused = site.ekso(&format!("up --name etcd --api-port 0 --nodes 0 --store {}", etcd.url()))?;
    refused.fails_with("configmaps default/secret: it is encrypted")?;
    site.is_gone()
}

/// Of what somebody wrote there that cannot be read, no older state is given or changed, until it can be read or is gone. Whatever else
/// there is answers. Upstream's words differ with the decoder; the code is theirs.
fn spoiled(room: &Room, etcd: &Etcd, readable: &[u8]) -> Result<()> {
    const KEY: &str = "/registry/configmaps/default/upstreams";
    let all = "/api/v1/namespaces/default/configmaps";
    let revision = room.field("configmap/upstreams", "{.metadata.resourceVersion}")?;
    let watch = format!("get --raw {all}?watch=true&resourceVersion={revision}&timeoutSeconds=120");
    std::thread::scope(|scope| -> Result<()> {
        let watched = scope.spawn(|| room.try_kubectl(&watch));
        etcd.put(KEY, b"k8s\0?")?;
        let words = "(InternalError): Internal error occurred: what is stored of configmaps default/upstreams cannot be read";
        for asked in [
            "get configmap upstreams",
            "get configmaps",
            "get configmaps -A -l a=b",
            "label configmap upstreams now=theirs",
            "delete configmap upstreams",
        ] {
            room.try_kubectl(asked)?.fails_with(words)?;
        }
        for asked in ["?resourceVersion=0", "?watch=true&resourceVersion=0", "/upstreams?resourceVersion=0"] {
            room.try_kubectl(&format!("get --raw {all}{asked}"))?.fails_with(words)?;
        }
        room.try_kubectl("create configmap upstreams")?.fails_with("\"upstreams\" already exists")?;
        room.kubectl("get configmaps -n kube-system")?;
        room.kubectl("create configmap another")?;
        let told = watched.join().map_err(|_| anyhow::anyhow!("the watch panicked"))??.ok()?;
        ensure!(told.contains("\"code\":410"), "who watched before is to list again: {told}");
        Ok(())
    })?;
    etcd.put(KEY, readable)?;
    ensure!(room.field("configmap/upstreams", "{.data.k}")? == "v", "what can be read again");
    etcd.put(KEY, b"{")?;
    room.try_kubectl("get configmap upstreams")?.fails_with("cannot be read")?;
    etcd.delete(KEY)?;
    room.try_kubectl("get configmap upstreams")?.fails_with("not found")?;
    room.kubectl("get configmaps").map(drop)
}

pub fn images() -> Result<()> {
    let site = Site::new()?;
    let elsewhere = Elsewhere::new(0)?;
    let config = site.scratch().join("registry.yml");
    let root = site.scratch().join("registry");
    let registry = format!("{}:5000", elsewhere.address);
    let text = format!(
        "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: {registry} }}\n",
        root.display()
    );
    std::fs::write(&config, text)?;
    let mut serve = elsewhere.command(&tool("docker-registry")?)?;
    let _server = start(serve.arg("serve").arg(&config), &site.scratch().join("registry.log"))?;
    until("the registry answers", || Ok(std::net::TcpStream::connect(&registry).ok()))?;
    let registries =
        format!("--insecure-registry {registry} --registry-mirror registry.invalid=http://{registry}");
    site.ekso(&format!("up --name images --api-port 0 {registries}"))?.ok().context(site.logs())?;
    let cluster = Cluster { site: &site, name: "images".into() };
    let layout = layout_of_busybox(&site)?;
    let copy = |to: &str| -> Result<()> {
        let mut skopeo = Command::new(tool("skopeo")?);
        skopeo.args([
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            &format!("oci:{}:1", layout.display()),
            to,
        ]);
        run(&mut skopeo, "")?.ok().map(drop)
    };
    copy(&format!("docker://{registry}/team/box:1"))?;
    let archive = site.scratch().join("saved.tar");
    copy(&format!("docker-archive:{}:saved:1", archive.display()))?;
    site.ekso(&format!("image import {}", archive.display()))?.ok()?;
    let listed = site.ekso("image list")?.ok()?;
    ensure!(listed.contains("saved:1"), "{listed}");

    let room = Room { cluster: &cluster, namespace: "default".into() };
    for (name, image) in [
        ("pulled", format!("{registry}/team/box:1")),
        ("mirrored", "registry.invalid/team/box:1".to_owned()),
        ("saved", "saved:1".to_owned()),
    ] {
        room.kubectl(&format!("run {name} --image={image} --command -- sleep 100000"))?;
        room.wait(&format!("pod/{name}"), "condition=Ready")?;
        ensure!(room.sh(name, "cat /etc/made-by")? == "skopeo\n", "{name}");
    }
    let id = room.field("pod/pulled", "{.status.containerStatuses[0].imageID}")?;
    ensure!(id.contains("team/box@sha256:"), "imageID {id}");
    // What a pod says goes behind an entrypoint, and takes the place of the words that an image has for it.
    let mut import = site.command("image import --cmd")?;
    import
        .args(["true", "--entrypoint", "/bin/sh -c", "--rootfs"])
        .arg(site.scratch().join("box"))
        .arg("entry:1");
    run(&mut import, "")?.ok()?;
    let mut start = room.command("run entry --image=entry:1 --restart=Never --")?;
    run(start.arg("echo behind the entrypoint"), "")?.ok()?;
    room.wait("pod/entry", "jsonpath={.status.phase}=Succeeded")?;
    ensure!(room.kubectl("logs entry")? == "behind the entrypoint\n", "what the pod said");
    let hostile = hostile_archive(&site)?;
    let refused = site.ekso(&format!("image import {}", hostile.display()))?;
    ensure!(refused.code == 1 && !Path::new("/tmp/ekso-e2e-escaped").exists(), "{refused:?}");
    site.delete("images")
}

/// An OCI layout with one layer, made with tar and skopeo's own rules: `umoci` is not on every machine.
fn layout_of_busybox(site: &Site) -> Result<PathBuf> {
    let rootfs = site.scratch().join("box");
    std::fs::create_dir_all(rootfs.join("bin"))?;
    std::fs::create_dir_all(rootfs.join("etc"))?;
    std::fs::copy(tool("busybox")?, rootfs.join("bin/busybox"))?;
    for applet in ["cat", "sh", "sleep"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet))?;
    }
    std::fs::write(rootfs.join("etc/made-by"), "skopeo\n")?;
    let layer = site.scratch().join("layer.tar");
    run(Command::new("tar").arg("-C").arg(&rootfs).arg("-cf").arg(&layer).arg("."), "")?.ok()?;
    let layout = site.scratch().join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let store = |content: &[u8]| -> Result<(String, usize)> {
        let aside = site.scratch().join("blob");
        std::fs::write(&aside, content)?;
        let digest = run(Command::new("sha256sum").arg(&aside), "")?.ok()?;
        let digest = digest.split_whitespace().next().context("a digest")?.to_owned();
        std::fs::rename(&aside, blobs.join(&digest))?;
        Ok((digest, content.len()))
    };
    let (layer, layer_size) = store(&std::fs::read(&layer)?)?;
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]}});
    let (config, config_size) = store(config.to_string().as_bytes())?;
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": format!("sha256:{config}"), "size": config_size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": format!("sha256:{layer}"), "size": layer_size}]});
    let (manifest, manifest_size) = store(manifest.to_string().as_bytes())?;
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": format!("sha256:{manifest}"), "size": manifest_size, "annotations": {"org.opencontainers.image.ref.name": "1"}}]});
    std::fs::write(layout.join("index.json"), index.to_string())?;
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(layout)
}

/// An archive with a name that leads out of it.
fn hostile_archive(site: &Site) -> Result<PathBuf> {
    let folder = site.scratch().join("hostile");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("ekso-e2e-escaped"), "out")?;
    let archive = site.scratch().join("hostile.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C")
        .arg(&folder)
        .arg("-P")
        .arg("--transform=s,^,../../../../../../tmp/,")
        .arg("-cf")
        .arg(&archive)
        .arg("ekso-e2e-escaped");
    run(&mut tar, "")?.ok()?;
    Ok(archive)
}
