//! What a server is told by files (who is believed, who may, what is written down, what is sealed), and what a cluster is told by its
//! account: a provider of OpenID Connect. One cluster; the issuer and the webhooks are on another host, over TLS.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{
    Answer, Cluster, Elsewhere, Kms, Site, Wanted, issue, kubectl_binary, python_binary, run, start, tool,
    until,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const NAME: &str = "guarded";
/// A Secret holds this, and in base64 that.
const HIDDEN: [&str; 2] = ["the-hidden-thing", "dGhlLWhpZGRlbi10aGluZw=="];

pub fn tell() -> Result<()> {
    let site = Site::new()?;
    let elsewhere = Elsewhere::new(1)?;
    let act = Act {
        issuer: format!("https://{}", elsewhere.address),
        files: site.scratch().join("files"),
        site: &site,
    };
    act.prepare(&elsewhere)?;
    let mut serve = elsewhere.command(&python_binary()?)?;
    serve.arg(act.script()?).args(["serve", &elsewhere.address.to_string(), &act.path("")]);
    let _server = start(&mut serve, &site.scratch().join("elsewhere.log"))?;
    until("the other host answers", || Ok(TcpStream::connect((elsewhere.address, 443)).ok()))?;
    let told = act.play();
    told.map_err(|failure| {
        let said = std::fs::read_to_string(site.scratch().join("elsewhere.log")).unwrap_or_default();
        failure.context(format!("{}\n{said}", site.logs()))
    })?;
    site.delete(NAME)
}

struct Act<'a> {
    site: &'a Site,
    issuer: String,
    /// Where the server's files are, and the other host's.
    files: PathBuf,
}

impl Act<'_> {
    fn play(&self) -> Result<()> {
        self.up(&self.options())?.ok()?;
        let cluster = Cluster { site: self.site, name: NAME.to_owned() };
        self.authentication(&cluster)?;
        self.authorization(&cluster)?;
        self.admission(&cluster)?;
        self.fairness(&cluster)?;
        self.encryption(&cluster)?;
        let mut kms = self.sealed_by_kms(&cluster)?;
        self.audit(&cluster)?;
        self.rotated(&cluster)?;
        self.provider(&cluster)?;
        self.without_kms(&cluster, &mut kms)
    }

    fn path(&self, name: &str) -> String {
        self.files.join(name).display().to_string()
    }

    /// A file, whole at every moment.
    fn put(&self, name: &str, content: &Value) -> Result<()> {
        let aside = self.files.join("aside");
        std::fs::write(&aside, content.to_string())?;
        std::fs::rename(&aside, self.files.join(name)).context("put a file in its place")
    }

    /// The other host's certificate and the issuer's key; every file.
    fn prepare(&self, elsewhere: &Elsewhere) -> Result<()> {
        std::fs::create_dir_all(&self.files)?;
        let openssl = |words: &str| -> Result<()> {
            let mut command = Command::new(tool("openssl")?);
            run(command.args(words.split(' ')).current_dir(&self.files), "")?.ok().map(drop)
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
        openssl(&format!("req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=elsewhere-ca"))?;
        let names = format!("IP:{}", elsewhere.address);
        let (from, to) = ("-1 hour", "+1 day");
        issue(
            &self.files,
            &self.files,
            &Wanted { subject: "/CN=elsewhere", usage: "serverAuth", names: &names, from, to },
        )?;
        for name in ["issuer.key", "another.key"] {
            openssl(&format!("genrsa -out {name} 2048"))?;
        }
        std::fs::write(self.files.join("keys.json"), self.python(&["keys", &self.path("issuer.key")])?)?;
        self.put("authentication", &self.authentication_file("shop")?)?;
        self.put("authorization", &self.authorization_file())?;
        self.put("admission", &admission_file())?;
        self.put("encryption", &encryption_file(&json!([aesgcm("one", 1)])))?;
        self.put("policy", &policy_file())?;
        for hook in ["access", "audit"] {
            let cluster =
                json!({"server": format!("{}/{hook}", self.issuer), "certificate-authority": "ca.crt"});
            let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "hook", "cluster": cluster}]});
            self.put(&format!("{hook}.kubeconfig"), &kubeconfig)?;
        }
        Ok(())
    }

    fn options(&self) -> String {
        let flags = [
            ("authentication-config", "authentication"),
            ("authorization-config", "authorization"),
            ("admission-control-config-file", "admission"),
            ("encryption-provider-config", "encryption"),
            ("audit-policy-file", "policy"),
            ("audit-log-path", "audit.log"),
            ("audit-webhook-config-file", "audit.kubeconfig"),
        ];
        let flags = flags.map(|(flag, file)| format!("--{flag} {}", self.path(file)));
        format!("--api-port 0 --aws-port 0 {}", flags.join(" "))
    }

    /// The issuers that a cluster's users name are believed by the authorities of the host.
    fn up(&self, options: &str) -> Result<Answer> {
        let mut up = self.site.command(&format!("up --name {NAME} {options}"))?;
        let answer = run(up.env("SSL_CERT_FILE", self.path("ca.crt")), "")?;
        self.site.remember();
        Ok(answer)
    }

    fn script(&self) -> Result<PathBuf> {
        let path = self.files.join("guarded.py");
        std::fs::write(&path, include_str!("guarded.py"))?;
        Ok(path)
    }

    fn python(&self, words: &[&str]) -> Result<String> {
        run(Command::new(python_binary()?).arg(self.script()?).args(words), "")?.ok()
    }

    /// A token of the issuer, with these claims instead of the usual ones.
    fn token(&self, changed: Value) -> Result<String> {
        self.signed("issuer.key", changed)
    }

    fn signed(&self, key: &str, changed: Value) -> Result<String> {
        let mut claims = json!({
            "iss": self.issuer, "aud": "kubectl", "sub": "jane", "groups": ["devs"], "team": "shop", "exp": 3600,
        });
        for (name, value) in changed.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let token = self.python(&["sign", &self.path(key), &claims.to_string()])?;
        Ok(token.trim().to_owned())
    }

    fn authority(&self) -> PathBuf {
        self.site.dir().join("clusters").join(NAME).join("pki/ca.crt")
    }

    fn endpoint(&self, cluster: &Cluster) -> Result<String> {
        Ok(cluster.status()?["endpoint"].as_str().context("an endpoint")?.to_owned())
    }

    /// kubectl of whoever has this token, and nothing else.
    fn kubectl(&self, cluster: &Cluster, token: &str, words: &str) -> Result<Answer> {
        let mut command = Command::new(kubectl_binary(36)?);
        command.env_clear().env("KUBECONFIG", "/dev/null").env("HOME", self.site.scratch());
        command.arg("--certificate-authority").arg(self.authority());
        command.args(["--server", &self.endpoint(cluster)?, "--token", token]).args(words.split(' '));
        run(&mut command, "")
    }

    fn who(&self, cluster: &Cluster, token: &str) -> Result<String> {
        let words = "auth whoami -o jsonpath={.status.userInfo.username}";
        self.kubectl(cluster, token, words)?.ok()
    }

    /// Nobody comes in with what is not a token of the issuer for this audience and now.
    fn refuses_others(&self, cluster: &Cluster, audience: &str) -> Result<()> {
        for (what, token) in [
            ("another audience", self.token(json!({"aud": "another"}))?),
            ("expired", self.token(json!({"aud": audience, "exp": -60}))?),
            ("another issuer", self.token(json!({"aud": audience, "iss": "https://203.0.113.250"}))?),
            ("another key", self.signed("another.key", json!({"aud": audience}))?),
            ("not of the team", self.token(json!({"aud": audience, "team": "bank"}))?),
        ] {
            self.is_stranger(cluster, &token).context(what)?;
        }
        Ok(())
    }

    fn is_stranger(&self, cluster: &Cluster, token: &str) -> Result<()> {
        self.kubectl(cluster, token, "auth whoami")?.fails_with("You must be logged in to the server")
    }

    fn authentication_file(&self, team: &str) -> Result<Value> {
        let authority = std::fs::read_to_string(self.files.join("ca.crt"))?;
        Ok(json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]},
            "jwt": [{
                "issuer": {"url": self.issuer, "audiences": ["kubectl"], "certificateAuthority": authority},
                "claimValidationRules": [{"expression": format!("claims.team == '{team}'"), "message": "not of the team"}],
                "claimMappings": {
                    "username": {"claim": "sub", "prefix": "oidc:"}, "groups": {"claim": "groups", "prefix": "oidc:"},
                },
                "userValidationRules": [{"expression": "!user.username.startsWith('oidc:system:')", "message": "reserved"}],
            }],
        }))
    }

    fn authentication(&self, cluster: &Cluster) -> Result<()> {
        let jane = self.token(json!({}))?;
        ensure!(self.who(cluster, &jane)? == "oidc:jane", "who jane is");
        self.refuses_others(cluster, "kubectl")?;
        self.is_stranger(cluster, &self.token(json!({"sub": "system:admin"}))?).context("a reserved name")?;
        // Without a certificate and a token, one path answers.
        let curl = |path: &str| -> Result<String> {
            let mut curl = Command::new(tool("curl")?);
            curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"]).arg(self.authority());
            run(curl.arg(format!("{}{path}", self.endpoint(cluster)?)), "")?.ok()
        };
        ensure!(
            (curl("/livez")?, curl("/version")?) == ("200".to_owned(), "401".to_owned()),
            "anonymous by path"
        );
        // The file is followed, and what is wrong with it changes nothing.
        self.put("wrong", &json!({"kind": "Nothing"}))?;
        let wrong = self.up(&format!("--authentication-config {}", self.path("wrong")))?;
        wrong.fails_with("expected apiserver.config.k8s.io/v1 and AuthenticationConfiguration")?;
        self.put("authentication", &json!({"kind": "Nothing"}))?;
        ensure!(self.who(cluster, &jane)? == "oidc:jane", "with a file that is wrong");
        self.put("authentication", &self.authentication_file("bank")?)?;
        until("the changed file is followed", || Ok(self.is_stranger(cluster, &jane).ok()))?;
        self.put("authentication", &self.authentication_file("shop")?)?;
        until("the file is followed again", || Ok(self.who(cluster, &jane).ok())).map(drop)
    }

    fn authorization_file(&self) -> Value {
        json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
            "authorizers": [
                {"type": "Webhook", "name": "elsewhere", "webhook": {
                    "timeout": "10s", "subjectAccessReviewVersion": "v1", "failurePolicy": "Deny",
                    "cacheAuthorizedRequests": false, "cacheUnauthorizedRequests": false,
                    "matchConditionSubjectAccessReviewVersion": "v1",
                    "matchConditions": [{"expression": "request.user.startsWith('oidc:')"}],
                    "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": self.path("access.kubeconfig")},
                }},
                {"type": "Node", "name": "node"},
                {"type": "RBAC", "name": "rbac"},
            ],
        })
    }

    fn authorization(&self, cluster: &Cluster) -> Result<()> {
        let (jane, foe) = (self.token(json!({}))?, self.token(json!({"sub": "foe"}))?);
        self.kubectl(cluster, &jane, "get configmaps")?.ok()?;
        self.kubectl(cluster, &jane, "get secrets")?
            .fails_with("secrets is forbidden: User \"oidc:jane\" cannot list resource")?;
        self.kubectl(cluster, &foe, "get configmaps")?.fails_with(": foes are known here")?;
        // What the webhook cannot say at first it is asked again, when it says so or a little later.
        let late = self.token(json!({"sub": "late"}))?;
        self.kubectl(cluster, &late, "get --raw /api/v1/namespaces/default/configmaps")?.ok()?;
        let asked = std::fs::read_to_string(self.files.join("late"))?;
        ensure!(asked == "503\n500\n200\n", "how it was answered: {asked}");
        cluster.kubectl("get secrets").map(drop)
    }

    /// Pods are held to the defaults of the file, but for who is exempt from them; what is wrong with it is told before anything is stopped.
    fn admission(&self, cluster: &Cluster) -> Result<()> {
        let ask = |words: &str| run(&mut cluster.kubectl_command(36, words)?, "");
        let pod = "run bare --image=e2e:1 --dry-run=server";
        let why = "violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false";
        ask(pod)?.fails_with(why)?;
        ask(&format!("{pod} --as=system:admin --as-group=system:masters"))?.fails_with(why)?;
        ask(&format!("{pod} --as=builder --as-group=system:masters"))?.ok()?;
        for namespace in ["exempt", "told"] {
            ask(&format!("create namespace {namespace}"))?.ok()?;
        }
        ask(&format!("{pod} -n exempt"))?.ok()?;
        // What a namespace says of itself goes before what the file says of all.
        ask(&format!("{pod} -n told"))?.fails_with(why)?;
        ask("label namespace told pod-security.kubernetes.io/enforce=privileged")?.ok()?;
        ask(&format!("{pod} -n told"))?.ok()?;
        let mut wrong = admission_file();
        wrong["plugins"][0]["configuration"]["defaults"]["enforce"] = json!("strict");
        self.put("wrong-admission", &wrong)?;
        self.up(&format!("--admission-control-config-file {}", self.path("wrong-admission")))?
            .fails_with("strict")?;
        ask(pod)?.fails_with(why)?;
        self.up("--without admission-control-config-file")?.ok()?;
        ask(pod)?.ok().map(drop)
    }

    /// Two users at a level with a few seats: one asks with forty clients at once, and the other hardly notices.
    fn fairness(&self, cluster: &Cluster) -> Result<()> {
        let mut apply = cluster.kubectl_command(36, "apply -f -")?;
        run(&mut apply, NARROW)?.ok()?;
        let (loud, quiet) = (self.token(json!({"sub": "loud"}))?, self.token(json!({}))?);
        let narrow = || -> Result<Option<()>> {
            let told = self.kubectl(cluster, &quiet, "get configmaps -v=8")?;
            let uid = cluster.kubectl("get flowschema narrow -o jsonpath={.metadata.uid}")?;
            Ok(told.stderr.contains(&uid).then_some(()))
        };
        until("requests are at the level", narrow)?;
        let (server, authority) = (self.endpoint(cluster)?, self.authority().display().to_string());
        let told = self.python(&["flood", &server, &authority, &loud, &quiet])?;
        let told: Value = serde_json::from_str(&told).context("what the flood says")?;
        ensure!(told["codes"] == json!([200]), "the flood is answered: {told}");
        let most = told["most"].as_u64().context("a number")?;
        // In the order of their coming it would be the forty who were there before.
        ensure!(most < 20, "{most} requests of the flood went before one of somebody else");
        cluster.kubectl("delete flowschema/narrow prioritylevelconfiguration/narrow").map(drop)
    }

    fn encryption(&self, cluster: &Cluster) -> Result<()> {
        let store = self.store();
        let hidden = || Ok::<_, anyhow::Error>(!(holds(&store, HIDDEN[0])? || holds(&store, HIDDEN[1])?));
        let sealed_by = |key: &str| holds(&store, &format!("k8s:enc:aesgcm:v1:{key}:"));
        let read = || cluster.kubectl("get secret hidden -o jsonpath={.data.x}");
        cluster.kubectl(&format!("create secret generic hidden --from-literal=x={}", HIDDEN[0]))?;
        cluster.kubectl("create configmap shown --from-literal=x=the-shown-thing")?;
        ensure!(holds(&store, "the-shown-thing")?, "what is not sealed is to be found");
        ensure!(hidden()? && sealed_by("one")?, "the Secret is under the first key");

        self.put("encryption", &encryption_file(&json!([aesgcm("two", 2), aesgcm("one", 1)])))?;
        until("everything is under the second key", || {
            Ok((sealed_by("two")? && !sealed_by("one")?).then_some(()))
        })?;
        let pid = Pid::from_raw(cluster.daemon_pid()?).context("a process")?;
        kill_process(pid, Signal::KILL)?;
        self.up("")?.ok()?;
        ensure!(read()? == HIDDEN[1] && hidden()?, "after kill -9");
        // The first key is of no use any more.
        self.put("encryption", &encryption_file(&json!([aesgcm("two", 2)])))?;
        self.site.ekso(&format!("down --name {NAME}"))?.ok()?;
        self.up("")?.ok()?;
        ensure!(read()? == HIDDEN[1] && hidden()? && !sealed_by("one")?, "after down and up");

        let off = "--without encryption-provider-config";
        self.up(off)?.fails_with("make \"identity\" the first provider there")?;
        self.put("encryption", &encryption_file(&json!([{"identity": {}}, aesgcm("two", 2)])))?;
        until("everything is plain", || Ok((!hidden()? && !sealed_by("two")?).then_some(())))?;
        self.up(off)?.ok()?;
        ensure!(read()? == HIDDEN[1], "without keys");
        Ok(())
    }

    fn store(&self) -> PathBuf {
        self.site.dir().join("clusters").join(NAME).join("store")
    }

    /// The plugin has a key, and what is stored is under it; then it has another.
    fn sealed_by_kms(&self, cluster: &Cluster) -> Result<Kms> {
        let socket = self.files.join("kms.sock");
        let kms = Kms::start(&socket, "first-key-of-the-kms")?;
        let endpoint = format!("unix://{}", socket.display());
        let provider = json!({"apiVersion": "v2", "name": "mine", "endpoint": endpoint, "timeout": "2s"});
        self.put("encryption", &encryption_file(&json!([{"kms": provider}, {"identity": {}}])))?;
        self.up(&format!("--encryption-provider-config {}", self.path("encryption")))?.ok()?;
        cluster.kubectl(&format!("create secret generic kept --from-literal=x={}", HIDDEN[0]))?;
        until("everything is under the plugin's key", || {
            let store = self.store();
            let is_hidden = !(holds(&store, HIDDEN[0])? || holds(&store, HIDDEN[1])?);
            let is_sealed = holds(&store, "k8s:enc:kms:v2:mine:")? && holds(&store, "first-key-of-the-kms")?;
            Ok((is_hidden && is_sealed).then_some(()))
        })?;
        ensure!(cluster.kubectl("get --raw /readyz/kms-providers")? == "ok", "the plugin is well");
        kms.rotate("second-key-of-the-kms")?;
        Ok(kms)
    }

    fn rotated(&self, cluster: &Cluster) -> Result<()> {
        until("everything is under the plugin's second key", || {
            let store = self.store();
            let is_new = holds(&store, "second-key-of-the-kms")? && !holds(&store, "first-key-of-the-kms")?;
            Ok(is_new.then_some(()))
        })?;
        for name in ["hidden", "kept"] {
            let read = cluster.kubectl(&format!("get secret {name} -o jsonpath={{.data.x}}"))?;
            ensure!(read == HIDDEN[1], "{name}: {read}");
        }
        Ok(())
    }

    /// What is known goes on without the plugin; the cluster says that it is not well, and does not start.
    fn without_kms(&self, cluster: &Cluster, kms: &mut Kms) -> Result<()> {
        let read = || cluster.kubectl("get secret kept -o jsonpath={.data.x}");
        kms.close();
        until("the plugin is missed", || {
            let mut look = cluster.kubectl_command(36, "get --raw /readyz/kms-providers")?;
            Ok(run(&mut look, "")?.ok().is_err().then_some(()))
        })?;
        ensure!(read()? == HIDDEN[1], "what was opened once");
        let pid = Pid::from_raw(cluster.daemon_pid()?).context("a process")?;
        kill_process(pid, Signal::KILL)?;
        self.up("")?.fails_with("the KMS \"mine\"")?;
        kms.open()?;
        self.up("")?.ok()?;
        ensure!(read()? == HIDDEN[1], "with the plugin again");
        Ok(())
    }

    /// The webhook has had all of it when the server has ended; what waited for its batch at a `kill -9` is in the log alone.
    fn audit(&self, cluster: &Cluster) -> Result<()> {
        cluster.kubectl("create configmap late --from-literal=x=y")?;
        self.up("--without audit-policy-file")?.ok()?;
        let log = events(&self.files.join("audit.log"))?;
        let text = std::fs::read_to_string(self.files.join("audit.log"))?;
        ensure!(!HIDDEN.iter().any(|hidden| text.contains(hidden)), "a Secret's data is written down");
        let of = |resource: &str, name: &str| {
            let is_it = |event: &&Value| {
                (&event["verb"], &event["objectRef"]["resource"], &event["objectRef"]["name"])
                    == (&json!("create"), &json!(resource), &json!(name))
            };
            log.iter().find(is_it).with_context(|| format!("nothing is written down of {resource} {name}"))
        };
        let (secret, shown) = (of("secrets", "hidden")?, of("configmaps", "shown")?);
        let late = of("configmaps", "late")?;
        ensure!(secret["level"] == "Metadata" && secret["requestObject"].is_null(), "{secret}");
        ensure!(
            secret["user"]["username"] == "kubernetes-admin" && secret["responseStatus"]["code"] == 201,
            "{secret}"
        );
        ensure!(shown["requestObject"]["data"]["x"] == "the-shown-thing", "{shown}");
        ensure!(
            !log.iter().any(|event| event["objectRef"]["resource"] == "leases"),
            "leases are written down"
        );
        let delivered = events(&self.files.join("audited"))?;
        let is_delivered = delivered.iter().any(|told| told["auditID"] == late["auditID"]);
        ensure!(is_delivered && delivered.iter().all(|told| log.contains(told)), "not delivered: {late}");
        cluster.kubectl("create configmap unseen")?;
        ensure!(
            !std::fs::read_to_string(self.files.join("audit.log"))?.contains("unseen"),
            "written down without a policy"
        );
        Ok(())
    }

    /// By the account's own call: who is believed, by which name, with which groups, and no longer.
    fn provider(&self, cluster: &Cluster) -> Result<()> {
        let jane = self.token(json!({"aud": "corp"}))?;
        self.up("--without authentication-config --without authorization-config")?.ok()?;
        for token in [&jane, &self.token(json!({}))?] {
            self.is_stranger(cluster, token).context("the file is taken off")?;
        }
        let oidc = format!(
            "identityProviderConfigName=corp,issuerUrl={},clientId=corp,groupsClaim=groups,groupsPrefix=corp:,requiredClaims={{team=shop}}",
            self.issuer
        );
        self.site
            .aws(&format!("eks associate-identity-provider-config --cluster-name {NAME} --oidc {oidc}"))?
            .ok()?;
        let named = "--identity-provider-config type=oidc,name=corp";
        let told = self
            .site
            .aws(&format!("eks describe-identity-provider-config --cluster-name {NAME} {named}"))?
            .ok()?;
        ensure!(told.contains("\"status\": \"ACTIVE\""), "{told}");
        ensure!(
            self.who(cluster, &jane)? == format!("{}#jane", self.issuer),
            "the name of the provider's user"
        );
        self.refuses_others(cluster, "corp")?;
        self.kubectl(cluster, &jane, "get pods")?.fails_with("pods is forbidden")?;
        cluster.kubectl("create clusterrolebinding corp --clusterrole=view --group=corp:devs")?;
        self.kubectl(cluster, &jane, "get pods")?.ok()?;
        self.kubectl(cluster, &jane, "create configmap x")?.fails_with("configmaps is forbidden")?;
        self.site
            .aws(&format!("eks disassociate-identity-provider-config --cluster-name {NAME} {named}"))?
            .ok()?;
        // For a moment a token that was believed is.
        until("the provider is gone", || Ok(self.is_stranger(cluster, &jane).ok()))
    }
}

const NARROW: &str = r#"
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: { name: narrow }
spec:
  type: Limited
  limited:
    nominalConcurrencyShares: 1
    borrowingLimitPercent: 0
    limitResponse: { type: Queue, queuing: { queues: 64, handSize: 4, queueLengthLimit: 50 } }
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: { name: narrow }
spec:
  matchingPrecedence: 100
  priorityLevelConfiguration: { name: narrow }
  distinguisherMethod: { type: ByUser }
  rules:
  - subjects: [{ kind: Group, group: { name: "oidc:devs" } }]
    resourceRules: [{ apiGroups: ["*"], resources: ["*"], verbs: ["*"], namespaces: ["*"], clusterScope: true }]
"#;

fn admission_file() -> Value {
    json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [
        {"name": "PodSecurity", "configuration": {
            "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "restricted", "enforce-version": "latest"},
            "exemptions": {"usernames": ["builder"], "namespaces": ["exempt", "kube-system"]},
        }},
    ]})
}

fn policy_file() -> Value {
    json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
        {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets"]}]},
        {"level": "RequestResponse", "resources": [{"group": "", "resources": ["configmaps"]}], "verbs": ["create"]},
        {"level": "None"},
    ]})
}

fn encryption_file(providers: &Value) -> Value {
    json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}]})
}

/// Thirty-two bytes of `number`, in base64.
fn aesgcm(name: &str, number: u8) -> Value {
    let secret = match number {
        1 => "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        _ => "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
    };
    json!({"aesgcm": {"keys": [{"name": name, "secret": secret}]}})
}

/// Whether any file of a folder holds a text. One that is replaced meanwhile is looked for again.
fn holds(folder: &Path, text: &str) -> Result<bool> {
    for file in std::fs::read_dir(folder).context("the store's folder")? {
        let bytes = match std::fs::read(file?.path()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return holds(folder, text),
            Err(error) => return Err(error.into()),
        };
        if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A line each.
fn events(path: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
