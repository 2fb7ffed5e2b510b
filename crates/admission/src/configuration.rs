//! `AdmissionConfiguration`, `apiserver.config.k8s.io/v1`: what plugins are told at the start.
//! <https://kubernetes.io/docs/reference/config-api/apiserver-config.v1/#apiserver-k8s-io-v1-AdmissionConfiguration>

use serde::Deserialize;
use serde_json::Value;

use crate::plugins::pod_security::settings::Settings;
use crate::plugins::resource_quota::limited::{self, Limited};

/// What it says; empty for a cluster that has none.
#[derive(Debug, Default)]
pub struct Configuration {
    pub(crate) pod_security: Settings,
    pub(crate) limited: Vec<Limited>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    plugins: Vec<PluginView>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PluginView {
    name: String,
    path: String,
    configuration: Value,
}

/// The forms of a plugin's own configuration: (plugin, group, versions, kind).
const FORMS: [(&str, &str, &[&str], &str); 2] = [
    (
        "PodSecurity",
        "pod-security.admission.config.k8s.io",
        &["v1", "v1beta1", "v1alpha1"],
        "PodSecurityConfiguration",
    ),
    ("ResourceQuota", "resourcequota.admission.k8s.io", &["v1", "v1beta1", "v1alpha1"], "Configuration"),
];

impl Configuration {
    /// Reads the file. `open` reads another one that it names, as it stands there: relative to the folder of the first.
    ///
    /// # Errors
    /// What is wrong, with the place where it stands. A plugin that is not there is told something to no avail, and so is refused.
    pub fn read(file: Value, open: impl Fn(&str) -> Result<Value, String>) -> Result<Self, String> {
        let file: File =
            serde_json::from_value(file).map_err(|error| format!("strict decoding error: {error}"))?;
        let is_known = matches!(
            (&*file.api_version, &*file.kind),
            ("apiserver.config.k8s.io/v1" | "apiserver.k8s.io/v1alpha1", "AdmissionConfiguration")
        );
        if !is_known {
            return Err(format!(
                "it is of apiVersion {:?} and kind {:?}: expected apiserver.config.k8s.io/v1 and AdmissionConfiguration",
                file.api_version, file.kind
            ));
        }
        let mut made = Self::default();
        for (index, plugin) in file.plugins.iter().enumerate() {
            let at = format!("plugins[{index}]");
            // The first of a name is the one that is read, upstream.
            if let Some(first) = file.plugins[..index].iter().position(|one| one.name == plugin.name) {
                return Err(format!(
                    "{at}.name: Duplicate value: {:?}: plugins[{first}] has it",
                    plugin.name
                ));
            }
            let told = match (&plugin.configuration, &*plugin.path) {
                (Value::Null, "") => continue,
                (Value::Null, path) => open(path).map_err(|why| format!("{at}.path: {why}"))?,
                (told, _) => told.clone(),
            };
            made.take(&plugin.name, told).map_err(|why| format!("{at}: {why}"))?;
        }
        Ok(made)
    }

    fn take(&mut self, plugin: &str, told: Value) -> Result<(), String> {
        let Some(form) = FORMS.iter().find(|form| form.0 == plugin) else {
            let names: Vec<String> = FORMS.iter().map(|form| format!("{:?}", form.0)).collect();
            return Err(format!(
                "name: Unsupported value: {plugin:?}: this server has no such plugin, or none that could be told anything; supported values: {}",
                names.join(", ")
            ));
        };
        let content = content(form, told).map_err(|why| format!("configuration of {plugin}: {why}"))?;
        let wrong = match plugin {
            "PodSecurity" => Settings::read(content).map(|read| self.pod_security = read),
            _ => limited::read(content).map(|read| self.limited = read),
        };
        wrong.map_err(|wrong| format!("configuration of {plugin}: {}", wrong.join("; ")))
    }
}

/// What stands below the head of a plugin's configuration.
fn content(form: &(&str, &str, &[&str], &str), told: Value) -> Result<Value, String> {
    let (_, group, versions, kind) = form;
    let text = |name: &str| told[name].as_str().unwrap_or_default();
    let version = text("apiVersion").strip_prefix(group).and_then(|rest| rest.strip_prefix('/'));
    if text("kind") != *kind || !version.is_some_and(|version| versions.contains(&version)) {
        return Err(format!(
            "it is of apiVersion {:?} and kind {:?}: expected {group}/v1 and {kind}",
            text("apiVersion"),
            text("kind")
        ));
    }
    let mut members = told.as_object().cloned().unwrap_or_default();
    members.retain(|name, _| name != "apiVersion" && name != "kind");
    Ok(members.into())
}
