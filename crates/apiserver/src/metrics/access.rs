//! `authentication_*`, `authorization_*`: who was believed, and what was allowed.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{Counter, Family, Histogram, Page, exponential};
use access::ImpersonationMode;
use plan::Decision;

static SECONDS: [f64; 15] = exponential(0.001, 2.0);
static CERTIFICATE_SECONDS: [f64; 14] = [
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21600.0,
    43200.0,
    86400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

/// The counts of one server.
pub(crate) struct Access {
    /// By result.
    authentications: Family<[&'static str; 1], Histogram>,
    authorizations: Family<[&'static str; 1], Histogram>,
    users: Family<[&'static str; 1], Counter>,
    /// By type and name of the authorizer.
    deciders: Family<[Box<str>; 2], Decided>,
    /// By decision and mode.
    impersonations: Family<[&'static str; 2], Histogram>,
    /// How long the certificates of clients are still good.
    pub(crate) certificates: Histogram,
    /// Tokens that were known (`hit`) or had to be looked at (`miss`).
    pub(crate) tokens: Family<[&'static str; 1], Counter>,
    pub(crate) handshake_errors: Counter,
}

/// What one authorizer decided.
#[derive(Default)]
pub(crate) struct Decided {
    allowed: Counter,
    denied: Counter,
}

impl Default for Access {
    fn default() -> Self {
        let seconds = || Histogram::new(&SECONDS);
        Self {
            authentications: Family::new(seconds),
            authorizations: Family::new(seconds),
            users: Family::default(),
            deciders: Family::default(),
            impersonations: Family::new(seconds),
            certificates: Histogram::new(&CERTIFICATE_SECONDS),
            tokens: Family::default(),
            handshake_errors: Counter::default(),
        }
    }
}

impl Access {
    /// `user`: None if nobody was believed.
    pub(crate) fn authenticated(&self, user: Option<&str>, took: Duration) {
        let result = if user.is_some() { "success" } else { "failure" };
        self.authentications.of(&[result]).took(took);
        if let Some(user) = user {
            self.users.of(&[told(user)]).increase();
        }
    }

    /// Where it is counted what an authorizer decides.
    pub(crate) fn decider(&self, (kind, name): (&str, &str)) -> Arc<Decided> {
        self.deciders.of(&[kind, name])
    }

    /// `by`: who allowed or denied it.
    pub(crate) fn authorized(&self, decision: &Decision, by: Option<&Arc<Decided>>, took: Duration) {
        if let Some(Decided { allowed, denied }) = by.map(|by| &**by) {
            if decision.allowed { allowed } else { denied }.increase();
        }
        let result = match decision {
            Decision { allowed: true, .. } => "allowed",
            Decision { error, .. } if !error.is_empty() => "error",
            Decision { denied: true, .. } => "denied",
            _ => "no-opinion",
        };
        self.authorizations.of(&[result]).took(took);
    }

    /// `mode`: None if it was not allowed.
    pub(crate) fn impersonated(&self, mode: Option<ImpersonationMode>, took: Duration) {
        let labels = mode.map_or(["denied", ""], |mode| ["allowed", mode.name()]);
        self.impersonations.of(&labels).took(took);
    }

    pub(super) fn write(&self, page: &mut Page) {
        let labels = ["decision", "mode"];
        let attempts = self.impersonations.sorted();
        let name = "apiserver_impersonation_attempts_total";
        page.head(name, "counter", "[ALPHA] Counter of impersonation attempts.");
        for ([decision, mode], took) in &attempts {
            page.sample(name, &[("decision", decision), ("mode", mode)], took.count());
        }
        let help = "[ALPHA] How long impersonation took to be decided, in seconds.";
        page.histograms(
            "apiserver_impersonation_attempts_duration_seconds",
            help,
            labels,
            &self.impersonations,
        );
        page.head(
            "apiserver_client_certificate_expiration_seconds",
            "histogram",
            "[ALPHA] Distribution of the remaining lifetime on the certificate used to authenticate a request.",
        );
        page.histogram("apiserver_client_certificate_expiration_seconds", &[], &self.certificates);
        let help = "[ALPHA] Number of requests dropped with 'TLS handshake error from' error";
        page.counter("apiserver_tls_handshake_errors_total", help, &self.handshake_errors);
        let deciders = self.deciders.sorted();
        let name = "apiserver_authorization_decisions_total";
        page.head(name, "counter", "[ALPHA] Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision.");
        for ([kind, of], decided) in &deciders {
            for (decision, count) in [("allowed", &decided.allowed), ("denied", &decided.denied)] {
                let labels = [("decision", decision), ("name", of), ("type", kind)];
                if count.get() > 0 {
                    page.sample(name, &labels, count.get());
                }
            }
        }
        let help = "[ALPHA] Counter of authenticated requests broken out by username.";
        page.counters("authenticated_user_requests", help, ["username"], &self.users);
        let attempts = self.authentications.sorted();
        page.head("authentication_attempts", "counter", "[ALPHA] Counter of authenticated attempts.");
        for ([result], took) in &attempts {
            page.sample("authentication_attempts", &[("result", result)], took.count());
        }
        page.histograms(
            "authentication_duration_seconds",
            "[ALPHA] Authentication duration in seconds broken out by result.",
            ["result"],
            &self.authentications,
        );
        let help = "[ALPHA] Bearer tokens that were verified a moment ago, and that were not.";
        page.counters("authentication_token_cache_request_total", help, ["status"], &self.tokens);
        let attempts = self.authorizations.sorted();
        page.head(
            "authorization_attempts_total",
            "counter",
            "[ALPHA] Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.",
        );
        for ([result], took) in &attempts {
            page.sample("authorization_attempts_total", &[("result", result)], took.count());
        }
        page.histograms(
            "authorization_duration_seconds",
            "[ALPHA] Authorization duration in seconds broken out by result.",
            ["result"],
            &self.authorizations,
        );
    }
}

/// Upstream's few words for users: their names are a client's.
fn told(user: &str) -> &'static str {
    const KNOWN: [&str; 5] =
        ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];
    match KNOWN.iter().find(|known| **known == user) {
        Some(known) => known,
        None if user.contains('@') => "email_id",
        None => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_told_in_a_few_words() {
        for (user, expected) in [("kubelet", "kubelet"), ("a@b.c", "email_id"), ("jane", "other")] {
            assert_eq!(told(user), expected);
        }
    }
}
