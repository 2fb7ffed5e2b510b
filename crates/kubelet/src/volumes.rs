//! What a pod's volumes should hold.

use object::Time;
use plan::pod::{File, FileContent, HostPathKind, Volume, VolumeSource};
use schema::quantity::Quantity;

use crate::claims;
use crate::env::{self, Facts};
use crate::pod::{
    ConfigMapSource, Container, DownwardFile, KeyToPath, Projection, SecretSource, TokenProjection,
    Volume as Spec,
};

const DEFAULT_MODE: u32 = 0o644;
const TOKEN_SECONDS: i64 = 3_600;
const TOKEN_RENEWAL_SECONDS: i64 = 24 * 3_600;

/// Every volume, or the message of a FailedMount: which volume, and what it lacks.
pub fn volumes(facts: &Facts) -> Result<Vec<Volume>, String> {
    let fs_group = facts.pod.spec.security_context.fs_group;
    facts
        .pod
        .spec
        .volumes
        .iter()
        // Images are mounted by the runtime.
        .filter(|spec| spec.image.is_none())
        .map(|spec| {
            let source = match claims::claim_name(facts.pod, spec) {
                Some(claim) => claims::bound(facts, spec, &claim)?.source,
                None => source(facts, spec).map_err(|why| {
                    format!("MountVolume.SetUp failed for volume \"{}\" : {why}", spec.name)
                })?,
            };
            Ok(Volume { name: spec.name.clone(), source, fs_group })
        })
        .collect()
}

fn source(facts: &Facts, spec: &Spec) -> Result<VolumeSource, String> {
    if let Some(map) = &spec.config_map {
        return config_map_files(facts, map, map.default_mode).map(VolumeSource::Files);
    }
    if let Some(secret) = &spec.secret {
        return secret_files(facts, secret, secret.default_mode).map(VolumeSource::Files);
    }
    if let Some(downward) = &spec.downward_api {
        return downward_files(facts, &downward.items, downward.default_mode).map(VolumeSource::Files);
    }
    if let Some(projected) = &spec.projected {
        let mut files = Vec::new();
        for part in &projected.sources {
            files.extend(projection(facts, part, projected.default_mode)?);
        }
        return Ok(VolumeSource::Files(files));
    }
    if let Some(empty) = &spec.empty_dir {
        let size_limit_bytes = empty
            .size_limit
            .as_deref()
            .and_then(|text| text.parse::<Quantity>().ok())
            .and_then(|quantity| u64::try_from(quantity.units()).ok())
            .filter(|&bytes| bytes > 0);
        return Ok(VolumeSource::EmptyDir { in_memory: empty.medium == "Memory", size_limit_bytes });
    }
    if let Some(host) = &spec.host_path {
        let kind = host_path_kind(host.r#type.as_deref().unwrap_or_default())?;
        return Ok(VolumeSource::HostPath { path: host.path.clone().into(), kind });
    }
    let kind = spec.other.keys().next().map_or("none", String::as_str);
    Err(format!("no volume plugin matched: this node has none for \"{kind}\""))
}

pub fn host_path_kind(name: &str) -> Result<HostPathKind, String> {
    Ok(match name {
        "" => HostPathKind::Unchecked,
        "DirectoryOrCreate" => HostPathKind::DirectoryOrCreate,
        "Directory" => HostPathKind::Directory,
        "FileOrCreate" => HostPathKind::FileOrCreate,
        "File" => HostPathKind::File,
        "Socket" => HostPathKind::Socket,
        "CharDevice" => HostPathKind::CharDevice,
        "BlockDevice" => HostPathKind::BlockDevice,
        other => return Err(format!("hostPath type check failed: unknown type {other}")),
    })
}

fn projection(facts: &Facts, part: &Projection, default_mode: Option<u32>) -> Result<Vec<File>, String> {
    if let Some(map) = &part.config_map {
        return config_map_files(facts, map, default_mode);
    }
    if let Some(secret) = &part.secret {
        return secret_files(facts, secret, default_mode);
    }
    if let Some(downward) = &part.downward_api {
        return downward_files(facts, &downward.items, default_mode);
    }
    if let Some(TokenProjection { audience, expiration_seconds, path }) = &part.service_account_token {
        let (mode, uid) = token_access(facts, default_mode.unwrap_or(DEFAULT_MODE));
        let content = FileContent::Token {
            audience: audience.clone().filter(|audience| !audience.is_empty()),
            expiration_seconds: expiration_seconds.unwrap_or(TOKEN_SECONDS),
        };
        return Ok(vec![File { path: path.clone(), mode, uid, content }]);
    }
    Err("a projected source of a kind that this node does not know".into())
}

/// A token is for its reader only: 0600, owned by the one user that all containers run as, or group-readable with an fsGroup (KEP-2451).
fn token_access(facts: &Facts, mode: u32) -> (u32, Option<u32>) {
    let spec = &facts.pod.spec;
    if spec.security_context.fs_group.is_some() {
        return (0o640, None);
    }
    let user = |one: &Container| one.security_context.run_as_user.or(spec.security_context.run_as_user);
    let mut users = spec.containers.iter().chain(&spec.init_containers).map(user);
    match users.next().flatten() {
        Some(first) if users.all(|other| other == Some(first)) => (0o600, Some(first)),
        _ => (mode, None),
    }
}

fn config_map_files(facts: &Facts, source: &ConfigMapSource, mode: Option<u32>) -> Result<Vec<File>, String> {
    let namespace = &facts.pod.metadata.namespace;
    let Some(map) = env::config_map(facts.snapshot, namespace, &source.name) else {
        return if source.optional {
            Ok(Vec::new())
        } else {
            Err(format!("configmap \"{}\" not found", source.name))
        };
    };
    let plain = map.data.into_iter().map(|(key, text)| (key, text.into_bytes()));
    let binary = map.binary_data.into_iter().map(|(key, text)| (key, env::bytes(&text)));
    let what = || format!("configmap \"{}\"", source.name);
    pick(plain.chain(binary).collect(), source.items.as_deref(), mode, source.optional, what)
}

fn secret_files(facts: &Facts, source: &SecretSource, mode: Option<u32>) -> Result<Vec<File>, String> {
    let namespace = &facts.pod.metadata.namespace;
    let Some(data) = env::secret(facts.snapshot, namespace, &source.secret_name) else {
        let missing = format!("secret \"{}\" not found", source.secret_name);
        return if source.optional { Ok(Vec::new()) } else { Err(missing) };
    };
    let what = || format!("secret \"{}\"", source.secret_name);
    pick(data.into_iter().collect(), source.items.as_deref(), mode, source.optional, what)
}

/// All keys under their own names, or the chosen ones under chosen paths.
fn pick(
    data: Vec<(String, Vec<u8>)>,
    items: Option<&[KeyToPath]>,
    default_mode: Option<u32>,
    optional: bool,
    what: impl Fn() -> String,
) -> Result<Vec<File>, String> {
    let mode = default_mode.unwrap_or(DEFAULT_MODE);
    let file = |path: String, mode: u32, content: Vec<u8>| File {
        path,
        mode,
        uid: None,
        content: FileContent::Bytes(content),
    };
    let Some(items) = items else {
        return Ok(data.into_iter().map(|(key, content)| file(key, mode, content)).collect());
    };
    let mut files = Vec::new();
    for KeyToPath { key, path, mode: own } in items {
        match data.iter().find(|(known, _)| known == key) {
            Some((_, content)) => files.push(file(path.clone(), own.unwrap_or(mode), content.clone())),
            None if optional => {}
            None => return Err(format!("{} references non-existent config key: {key}", what())),
        }
    }
    Ok(files)
}

fn downward_files(facts: &Facts, items: &[DownwardFile], mode: Option<u32>) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    for DownwardFile { path, mode: own, field_ref, resource_field_ref } in items {
        let text = match (field_ref, resource_field_ref) {
            (Some(field), _) => env::field_value(facts, &field.field_path)?,
            (None, Some(field)) => env::resource_value(facts, &Container::default(), field)?,
            (None, None) => continue,
        };
        let content = FileContent::Bytes(text.into_bytes());
        files.push(File {
            path: path.clone(),
            mode: own.or(mode).unwrap_or(DEFAULT_MODE),
            uid: None,
            content,
        });
    }
    Ok(files)
}

/// When a token of a volume that was fetched now is fetched anew: four fifths of its time later, and a day later at the latest.
/// <https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken>
pub fn renew_token_at(now: Time, expires: Time) -> Time {
    let lifetime = expires.secs_since(now).max(0);
    now.plus_secs((lifetime * 4 / 5).min(TOKEN_RENEWAL_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_before_they_are_over() {
        let now = Time::from_secs(1_000);
        for (lifetime, wait) in [
            (600, 480),
            (3_607, 2_885),
            (24 * 3_600, 69_120),
            (30 * 3_600, 24 * 3_600),
            (365 * 24 * 3_600, 24 * 3_600),
            (-5, 0),
        ] {
            assert_eq!(renew_token_at(now, now.plus_secs(lifetime)), now.plus_secs(wait), "{lifetime}");
        }
    }
}
