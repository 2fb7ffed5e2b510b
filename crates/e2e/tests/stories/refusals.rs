//! Bad input, and the Status that upstream answers to it: rows of a request and what it must come to.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{Room, Wanted, issue, run, tool, until};
use serde_json::Value;

/// `who`: a client certificate unless it is the value of an Authorization header.
struct Row {
    method: &'static str,
    path: &'static str,
    kind: &'static str,
    body: &'static str,
    code: u64,
    reason: &'static str,
    says: &'static str,
}

const fn row(
    method: &'static str,
    path: &'static str,
    body: &'static str,
    code: u64,
    reason: &'static str,
    says: &'static str,
) -> Row {
    Row { method, path, kind: "application/json", body, code, reason, says }
}

const MAPS: &str = "/api/v1/namespaces/refusals/configmaps";
const MAP_A: &str = "/api/v1/namespaces/refusals/configmaps/a";
const PODS: &str = "/api/v1/namespaces/refusals/pods";
/// Also there is an object `a`.
const A: &str = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#;

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("POST", MAPS, "{", 400, "BadRequest", "unexpected end of JSON input"),
    row("POST", MAPS, "", 400, "BadRequest", ""),
    row("POST", MAPS, "[]", 400, "BadRequest", ""),
    row("POST", MAPS, "null", 422, "Invalid", "name or generateName is required"),
    row("POST", MAPS, r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"b"}}"#, 400, "BadRequest", "Secret"),
    row("POST", MAPS, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":7}}"#, 400, "BadRequest", "cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string"),
    row("POST", MAPS, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"},"data":{"n":1}}"#, 400, "BadRequest", "cannot unmarshal number into Go struct field ConfigMap.data of type string"),
    row("POST", "/api/v1/namespaces/refusals/configmaps?fieldValidation=Strict", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"},"dta":{}}"#, 400, "BadRequest", "strict decoding error: unknown field \"dta\""),
    row("POST", "/api/v1/namespaces/refusals/configmaps?fieldValidation=Strict", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"},"dta":{},"immutable":false,"immutable":false}"#, 400, "BadRequest", "strict decoding error: unknown field \"dta\", duplicate field \"immutable\""),
    row("POST", MAPS, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"Not_A_Name"}}"#, 422, "Invalid", "ConfigMap \"Not_A_Name\" is invalid: metadata.name: Invalid value: \"Not_A_Name\": a lowercase RFC 1123 subdomain must consist of"),
    row("POST", MAPS, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{}}"#, 422, "Invalid", "name or generateName is required"),
    row("POST", MAPS, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b","namespace":"default"}}"#, 400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request"),
    row("POST", MAPS, A, 409, "AlreadyExists", "configmaps \"a\" already exists"),
    row("POST", "/api/v1/namespaces/no-such/configmaps", A, 404, "NotFound", "namespaces \"no-such\" not found"),
    row("GET", "/api/v1/namespaces/refusals/configmaps/none", "", 404, "NotFound", "configmaps \"none\" not found"),
    row("GET", "/api/v1/nothings", "", 404, "NotFound", "the server could not find the requested resource"),
    row("PUT", MAP_A, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","resourceVersion":"1"}}"#, 409, "Conflict", "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"),
    row("PUT", MAP_A, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}}"#, 400, "BadRequest", "the name of the object (b) does not match the name on the URL (a)"),
    row("DELETE", MAP_A, r#"{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"other"}}"#, 409, "Conflict", "the UID in the precondition (other) does not match the UID in record"),
    row("GET", "/api/v1/namespaces/refusals/configmaps?labelSelector=%21%21", "", 400, "BadRequest", "unable to parse requirement"),
    row("GET", "/api/v1/namespaces/refusals/configmaps?fieldSelector=data.x%3D1", "", 400, "BadRequest", "\"data.x\" is not a known field selector"),
    row("GET", "/api/v1/namespaces/refusals/configmaps?limit=x", "", 400, "BadRequest", ""),
    row("GET", "/api/v1/namespaces/refusals/configmaps?continue=forged", "", 400, "BadRequest", "continue"),
    row("POST", PODS, r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"},"spec":{"containers":[]}}"#, 422, "Invalid", "spec.containers: Required value"),
    row("POST", PODS, r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"},"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"lots"}}}]}}"#, 400, "BadRequest", "quantities must match the regular expression"),
    row("PUT", MAPS, A, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"),
    Row { kind: "application/yaml", ..row("POST", MAPS, "a: [", 400, "BadRequest", "YAML") },
    Row { kind: "application/yaml", ..row("POST", MAPS, "kind: ConfigMap\n\tb: c", 400, "BadRequest", "YAML") },
    Row { kind: "text/plain", ..row("POST", MAPS, A, 415, "UnsupportedMediaType", "") },
    Row { kind: "application/json-patch+json", ..row("PATCH", MAP_A, r#"[{"op":"remove","path":"/data/none"}]"#, 422, "Invalid", "") },
    Row { kind: "application/json-patch+json", ..row("PATCH", MAP_A, "{", 400, "BadRequest", "") },
    Row { kind: "application/merge-patch+json", ..row("PATCH", MAP_A, r#"{"metadata":{"name":"b"}}"#, 400, "BadRequest", "") },
    Row { kind: "application/json", ..row("PATCH", MAP_A, "{}", 415, "UnsupportedMediaType", "") },
    Row { kind: "application/apply-patch+yaml", ..row("PATCH", MAP_A, A, 422, "Invalid", "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch") },
];

pub fn tell(room: &Room) -> Result<()> {
    let api = Api::new(room)?;
    room.kubectl("create configmap a")?;
    let mut wrong = Vec::new();
    for row in ROWS {
        let answer = api.ask(row.method, row.path, row.kind, row.body, &[])?;
        if let Err(failure) = answer.is(row.code, row.reason, row.says) {
            wrong.push(format!("{} {} {}\n  {failure}", row.method, row.path, row.body));
        }
    }
    let mut case = |name: &str, result: Result<()>| {
        wrong.extend(result.err().map(|failure| format!("{name}\n  {failure:#}")))
    };
    let long = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"long"}},"data":{{"x":"{}"}}}}"#,
        "x".repeat(4 << 20)
    );
    case(
        "a body over 3 MiB",
        api.ask("POST", MAPS, "application/json", &long, &[])?.is(
            413,
            "RequestEntityTooLarge",
            "limit is 3145728",
        ),
    );
    let deep = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"deep"}},"data":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    case(
        "a body of 100,000 levels",
        api.ask("POST", MAPS, "application/json", &deep, &[])?.is(400, "BadRequest", ""),
    );
    let bomb: String = (0..20)
        .map(|level| {
            format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level.max(1) - 1); 9].join(","))
        })
        .collect();
    case(
        "a YAML of aliases",
        api.ask("POST", MAPS, "application/yaml", &bomb, &[])?.is(400, "BadRequest", ""),
    );

    let token = room.kubectl("create token default")?;
    let forged = forge(token.trim());
    for (name, token, code, reason, says) in [
        (
            "a good token without rights",
            token.trim(),
            403,
            "Forbidden",
            "configmaps is forbidden: User \"system:serviceaccount:refusals:default\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"refusals\"",
        ),
        ("a forged token", &forged, 401, "Unauthorized", "Unauthorized"),
        ("a token of another sort", "abc.def.ghi", 401, "Unauthorized", "Unauthorized"),
    ] {
        case(name, api.ask_as(token, MAPS)?.is(code, reason, says));
    }
    case(
        "nobody",
        api.ask_as_nobody(MAPS)?.is(403, "Forbidden", "User \"system:anonymous\" cannot list resource"),
    );
    case("a request that is cut off", api.cut_off());
    case("a client certificate that has ended", api.ended_certificate());
    case("a certificate for ten minutes", certificate_for_ten_minutes(room));
    ensure!(room.kubectl("get --raw /readyz")? == "ok", "the server goes on");
    ensure!(wrong.is_empty(), "{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// A request for a certificate says how long it should be good for, and gets it.
fn certificate_for_ten_minutes(room: &Room) -> Result<()> {
    let folder = room.cluster.site.scratch().join("ten-minutes");
    std::fs::create_dir_all(&folder)?;
    let openssl = |words: &str| -> Result<e2e::Answer> {
        run(Command::new(tool("openssl")?).args(words.split(' ')).current_dir(&folder), "")
    };
    openssl("req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -subj /CN=brief -out csr")?.ok()?;
    let request = run(Command::new("base64").arg("-w0").arg(folder.join("csr")), "")?.ok()?;
    let manifest = |seconds: u32| {
        serde_json::json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "brief"}, "spec": {"request": request, "expirationSeconds": seconds,
                "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}})
        .to_string()
    };
    let too_short = run(&mut room.command("create -f -")?, &manifest(599))?;
    too_short.fails_with("may not specify a duration less than 600 seconds")?;
    room.apply(&manifest(600))?;
    room.kubectl("certificate approve brief")?;
    let path = "jsonpath={.status.certificate}";
    let certificate = until("it is signed", || {
        let text = room.kubectl(&format!("get csr brief -o {path}"))?;
        Ok((!text.is_empty()).then_some(text))
    })?;
    let decoded = run(Command::new("base64").arg("-d"), &certificate)?.ok()?;
    std::fs::write(folder.join("cert"), decoded)?;
    ensure!(openssl("x509 -in cert -noout -checkend 300")?.code == 0, "it is good for a while");
    ensure!(openssl("x509 -in cert -noout -checkend 660")?.code != 0, "and not for longer than it asked for");
    room.kubectl("delete csr brief").map(drop)
}

/// The same token with one character of its claims changed.
fn forge(token: &str) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let claims = &parts[1];
    let changed = if claims.ends_with('A') { "B" } else { "A" };
    parts[1] = format!("{}{changed}", &claims[..claims.len() - 1]);
    parts.join(".")
}

/// The API, asked with curl.
struct Api {
    server: String,
    /// Where `ca.crt`, `admin.crt` and `admin.key` are.
    pki: std::path::PathBuf,
    scratch: std::path::PathBuf,
}

#[derive(Debug)]
struct Answered {
    code: u64,
    status: Value,
    text: String,
}

impl Answered {
    fn is(&self, code: u64, reason: &str, says: &str) -> Result<()> {
        let message = self.status["message"].as_str().unwrap_or_default();
        let good = self.code == code
            && self.status["kind"] == "Status"
            && self.status["code"] == code
            && self.status["reason"] == reason
            && message.contains(says);
        let head: String = self.text.chars().take(400).collect();
        ensure!(good, "should be {code} {reason} {says:?}\n  and is {} {head}", self.code);
        Ok(())
    }
}

impl Api {
    fn new(room: &Room) -> Result<Self> {
        let status = room.cluster.status()?;
        let server = status["endpoint"].as_str().context("the status has an endpoint")?.to_owned();
        let pki = room.cluster.site.dir().join("clusters").join(&room.cluster.name).join("pki");
        Ok(Self { server, pki, scratch: room.cluster.site.scratch().to_owned() })
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &str, more: &[&str]) -> Result<Answered> {
        let mut command = self.curl(path)?;
        command.arg("--cert").arg(self.pki.join("admin.crt")).arg("--key").arg(self.pki.join("admin.key"));
        command.args(["-X", method]).args(more);
        if method != "GET" {
            command.args(["-H", &format!("Content-Type: {kind}"), "--data-binary", "@-"]);
        }
        self.answer(&mut command, body)
    }

    fn ask_as(&self, token: &str, path: &str) -> Result<Answered> {
        let mut command = self.curl(path)?;
        self.answer(command.args(["-H", &format!("Authorization: Bearer {token}")]), "")
    }

    fn ask_as_nobody(&self, path: &str) -> Result<Answered> {
        self.answer(&mut self.curl(path)?, "")
    }

    /// HTTP/1.1: curl 7 loses an answer of HTTP/2 that comes before the request is whole.
    fn curl(&self, path: &str) -> Result<Command> {
        let mut command = Command::new(tool("curl")?);
        command.args([
            "--http1.1",
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "-H",
            "Expect:",
            "-w",
            "\n%{http_code}",
            "--cacert",
        ]);
        command.arg(self.pki.join("ca.crt")).arg(format!("{}{path}", self.server)).current_dir(&self.scratch);
        Ok(command)
    }

    fn answer(&self, command: &mut Command, body: &str) -> Result<Answered> {
        let answer = run(command, body)?;
        let (text, code) = answer.stdout.rsplit_once('\n').with_context(|| format!("{answer:?}"))?;
        let status = serde_json::from_str(text).unwrap_or_default();
        Ok(Answered { code: code.parse()?, status, text: text.to_owned() })
    }

    /// Of the cluster's own authority and an administrator's, and past.
    fn ended_certificate(&self) -> Result<()> {
        let wanted = Wanted {
            subject: "/O=system:masters/CN=past",
            usage: "clientAuth",
            names: "",
            from: "-2 hours",
            to: "-1 hour",
        };
        let issued = issue(&self.pki, &self.scratch.join("past"), &wanted)?;
        let mut command = self.curl(MAPS)?;
        command.arg("--cert").arg(issued.certificate).arg("--key").arg(issued.key);
        self.answer(&mut command, "")?.is(401, "Unauthorized", "Unauthorized")
    }

    /// A body shorter than it is said to be: the connection ends, and nothing is made.
    fn cut_off(&self) -> Result<()> {
        let mut command = self.curl(MAPS)?;
        command.arg("--cert").arg(self.pki.join("admin.crt")).arg("--key").arg(self.pki.join("admin.key"));
        command.args([
            "-X",
            "POST",
            "-H",
            "Content-Type: application/json",
            "-H",
            "Content-Length: 5000",
            "--max-time",
            "2",
        ]);
        let answer = run(
            command.args(["--data-binary", "@-"]),
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"cut"}}"#,
        )?;
        ensure!(!answer.stdout.ends_with("\n201"), "a half request made something: {answer:?}");
        self.ask("GET", &format!("{MAPS}/cut"), "", "", &[])?.is(404, "NotFound", "")
    }
}
