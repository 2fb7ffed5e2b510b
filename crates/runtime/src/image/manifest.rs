//! The JSON of images: OCI image-spec (index, manifest, configuration) and Docker's schema 2, which differ in media types only.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// What registries accept for a manifest; also the most we read of a configuration.
pub(super) const DOCUMENT_BYTES: u64 = 4 << 20;
/// Overlayfs takes no more lower directories than this.
pub(super) const MAX_LAYERS: usize = 500;

pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const OCI_LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Operating system, architecture and its variant, in Go's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: String,
}

impl Platform {
    pub fn new(architecture: &str) -> Platform {
        let variant = if architecture == "arm64" { "v8" } else { "" };
        Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    /// That of this machine.
    pub fn host() -> Platform {
        Platform::new(match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        })
    }

    /// Whether an image made for `offered` runs here. An absent variant is the architecture's first: arm64 is arm64/v8.
    fn runs(&self, offered: &Platform) -> bool {
        let variant = |p: &Platform| match (p.architecture.as_str(), p.variant.as_str()) {
            ("arm64", "" | "8") => "v8".to_string(),
            ("amd64", "v1") => String::new(),
            (_, variant) => variant.to_string(),
        };
        self.os == offered.os
            && self.architecture == offered.architecture
            && variant(self) == variant(offered)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(super) annotations: std::collections::BTreeMap<String, String>,
}

impl Descriptor {
    pub(super) fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            platform: None,
            annotations: Default::default(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u32,
    pub(super) media_type: String,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

#[derive(Clone, Debug)]
pub(super) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("{what}: {why}")]
    Malformed { what: &'static str, why: String },
    #[error(
        "media type {0:?} is no longer supported: push the image again with a client that writes schema 2 or OCI"
    )]
    Schema1(String),
    #[error("not an image: its configuration is of type {0:?}")]
    Artifact(String),
    #[error("no match for platform in manifest: wanted {wanted}, offered {offered}")]
    NoPlatform { wanted: Platform, offered: String },
}

fn malformed(what: &'static str) -> impl Fn(serde_json::Error) -> ManifestError {
    move |error| ManifestError::Malformed { what, why: error.to_string() }
}

/// Reads an index or a manifest. `media_type` is what a registry or a descriptor said, and may be empty.
/// One document must not be readable as both (CVE-2021-41190).
pub(super) fn parse(bytes: &[u8], media_type: &str) -> Result<Document, ManifestError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Either {
        #[serde(default)]
        schema_version: u32,
        media_type: Option<String>,
        manifests: Option<Vec<Descriptor>>,
        config: Option<Descriptor>,
        layers: Option<Vec<Descriptor>>,
    }
    let media_type = media_type.split(';').next().unwrap_or("").trim();
    if media_type.starts_with("application/vnd.docker.distribution.manifest.v1+") {
        return Err(ManifestError::Schema1(media_type.to_string()));
    }
    let either: Either = serde_json::from_slice(bytes).map_err(malformed("manifest"))?;
    let wrong = |why: &str| ManifestError::Malformed { what: "manifest", why: why.to_string() };
    if either.schema_version == 1 {
        return Err(ManifestError::Schema1(
            "application/vnd.docker.distribution.manifest.v1+json".to_string(),
        ));
    }
    let known = |t: &&str| [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].contains(t);
    let inside = either.media_type.as_deref().filter(|t| !t.is_empty());
    if let (Some(inside), Some(outside)) = (inside.filter(|t| known(t)), Some(media_type).filter(known))
        && inside != outside
    {
        return Err(wrong(&format!("it says it is {inside:?}, but came as {outside:?}")));
    }
    match (either.manifests, either.config, either.layers) {
        (Some(manifests), None, None)
            if !matches!(inside.unwrap_or(media_type), OCI_MANIFEST | DOCKER_MANIFEST) =>
        {
            Ok(Document::Index(manifests))
        }
        (None, Some(config), Some(layers))
            if !matches!(inside.unwrap_or(media_type), OCI_INDEX | DOCKER_LIST) =>
        {
            if layers.len() > MAX_LAYERS {
                return Err(wrong(&format!("{} layers, more than {MAX_LAYERS}", layers.len())));
            }
            let media_type = inside.unwrap_or(media_type).to_string();
            Ok(Document::Manifest(Manifest { schema_version: 2, media_type, config, layers }))
        }
        _ => Err(wrong("neither an index (manifests) nor a manifest (config and layers)")),
    }
}

/// The entries of an index that run on a platform, in its order; attestations and the like never do.
/// Entries that name no platform come last: their configuration will tell.
pub(super) fn for_platform<'a>(
    index: &'a [Descriptor],
    wanted: &Platform,
) -> Result<Vec<&'a Descriptor>, ManifestError> {
    let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|offered| wanted.runs(offered));
    let unsaid = |d: &&Descriptor| d.platform.is_none();
    let found: Vec<_> = index.iter().filter(fits).chain(index.iter().filter(unsaid)).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let mut offered: Vec<String> =
        index.iter().filter_map(|d| d.platform.as_ref()).map(Platform::to_string).collect();
    offered.retain(|platform| platform != "unknown/unknown");
    let offered = if offered.is_empty() { "none".to_string() } else { offered.join(", ") };
    Err(ManifestError::NoPlatform { wanted: wanted.clone(), offered })
}

/// The parts of an image's configuration that are used here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<String>,
    pub(super) architecture: String,
    pub(super) os: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) variant: String,
    pub(super) config: Option<RunConfig>,
    pub(super) rootfs: RootFs,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct RootFs {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) diff_ids: Vec<Digest>,
}

/// Absent and `null` are the same in every field.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct RunConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) volumes: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) working_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stop_signal: Option<String>,
}

/// Reads the configuration of a manifest, and checks that it describes as many layers.
pub(super) fn parse_config(bytes: &[u8], manifest: &Manifest) -> Result<Config, ManifestError> {
    let kind = manifest.config.media_type.as_str();
    if !matches!(kind, OCI_CONFIG | DOCKER_CONFIG | "") {
        return Err(ManifestError::Artifact(kind.to_string()));
    }
    let config: Config = serde_json::from_slice(bytes).map_err(malformed("image configuration"))?;
    let (said, have) = (config.rootfs.diff_ids.len(), manifest.layers.len());
    if said != have {
        let why = format!("it describes {said} layers, the manifest has {have}");
        return Err(ManifestError::Malformed { what: "image configuration", why });
    }
    Ok(config)
}

/// The order of an image without an index: does its configuration fit the machine?
pub(super) fn check_platform(config: &Config, wanted: &Platform) -> Result<(), ManifestError> {
    let offered = Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
    };
    // Old images say nothing.
    if config.architecture.is_empty() || wanted.runs(&offered) {
        return Ok(());
    }
    Err(ManifestError::NoPlatform { wanted: wanted.clone(), offered: offered.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(platform: Option<(&str, &str)>) -> Descriptor {
        let mut d = Descriptor::new(OCI_MANIFEST, Digest::of(format!("{platform:?}").as_bytes()), 1);
        d.platform = platform.map(|(architecture, variant)| Platform {
            os: if architecture == "unknown" { "unknown" } else { "linux" }.into(),
            architecture: architecture.into(),
            variant: variant.into(),
        });
        d
    }

    #[test]
    fn a_platform_is_chosen() {
        let index = [
            descriptor(Some(("unknown", ""))),
            descriptor(Some(("arm64", "v8"))),
            descriptor(Some(("arm", "v7"))),
            descriptor(Some(("amd64", ""))),
        ];
        let first =
            |architecture| for_platform(&index, &Platform::new(architecture)).map(|found| found[0].digest);
        assert_eq!(first("amd64"), Ok(index[3].digest));
        assert_eq!(first("arm64"), Ok(index[1].digest));
        let error = first("riscv64").unwrap_err().to_string();
        assert_eq!(
            error,
            "no match for platform in manifest: wanted linux/riscv64, offered linux/arm64/v8, linux/arm/v7, linux/amd64"
        );
        assert_eq!(for_platform(&[descriptor(None)], &Platform::host()).unwrap().len(), 1);
    }

    #[test]
    fn documents_are_told_apart() {
        let d = serde_json::to_value(descriptor(None)).unwrap();
        let manifest = serde_json::json!({"schemaVersion": 2, "config": d, "layers": [d]});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [d]});
        let parse =
            |value: &serde_json::Value, media_type: &str| parse(value.to_string().as_bytes(), media_type);
        assert!(matches!(parse(&manifest, ""), Ok(Document::Manifest(_))));
        assert!(matches!(parse(&manifest, DOCKER_MANIFEST), Ok(Document::Manifest(_))));
        assert!(matches!(
            parse(&index, "application/vnd.oci.image.index.v1+json; charset=utf-8"),
            Ok(Document::Index(_))
        ));
        assert!(parse(&index, OCI_MANIFEST).is_err(), "an index that came as a manifest");
        let mut both = index.clone();
        both["config"] = d.clone();
        both["layers"] = serde_json::json!([]);
        assert!(parse(&both, "").is_err(), "both at once");
        assert!(matches!(
            parse(&serde_json::json!({"schemaVersion": 1}), ""),
            Err(ManifestError::Schema1(_))
        ));
        let mut typed = manifest.clone();
        typed["mediaType"] = OCI_MANIFEST.into();
        assert!(parse(&typed, DOCKER_MANIFEST).is_err(), "two names for one thing");
    }
}
