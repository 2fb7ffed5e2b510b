//! `authentication_*`, `authorization_*`: who was believed, and what was allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::metrics::{Counter, Family, Histogram, Page, SECONDS as TOKEN_SECONDS, exponential};
use access::ImpersonationMode;
use plan::Decision;

static FILTER_SECONDS: [f64; 13] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0];
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
    /// By decision and mode: the rights that were asked about for them.
    impersonation_checks: Family<[&'static str; 2], Histogram>,
    /// How long the certificates of clients are still good.
    pub(crate) certificates: Histogram,
    pub(crate) tokens: Tokens,
    pub(crate) filters: Filters,
    pub(crate) handshake_errors: Counter,
}

/// Bearer tokens: those that were verified a moment ago, and those that had to be looked at.
pub(crate) struct Tokens {
    known: Histogram,
    new: Histogram,
    looking: AtomicUsize,
    accepted: Counter,
    refused: Counter,
    /// Of service accounts, made to live longer than was asked for: renewed in time, or not.
    fresh: Counter,
    stale: Counter,
    /// Of Secrets: each use, by who made the Secret, and of those that were marked.
    legacy: Counter,
    manual: Counter,
    generated: Counter,
    invalidated: Counter,
}

impl Default for Tokens {
    fn default() -> Self {
        let seconds = || Histogram::new(TOKEN_SECONDS);
        Self {
            known: seconds(),
            new: seconds(),
            looking: AtomicUsize::new(0),
            accepted: Counter::default(),
            refused: Counter::default(),
            fresh: Counter::default(),
            stale: Counter::default(),
            legacy: Counter::default(),
            manual: Counter::default(),
            generated: Counter::default(),
            invalidated: Counter::default(),
        }
    }
}

/// A token that is looked at as long as this lives.
pub(crate) struct Looking<'a>(&'a Tokens);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.looking.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tokens {
    pub(crate) fn known(&self, took: Duration) {
        self.known.took(took);
    }

    pub(crate) fn look(&self) -> Looking<'_> {
        self.looking.fetch_add(1, Ordering::Relaxed);
        Looking(self)
    }

    pub(crate) fn looked(&self, is_accepted: bool, took: Duration) {
        self.new.took(took);
        if is_accepted { &self.accepted } else { &self.refused }.increase();
    }

    /// A token was verified that its client should renew.
    pub(crate) fn renewable(&self, is_stale: bool) {
        if is_stale { &self.stale } else { &self.fresh }.increase();
    }

    /// The token of a Secret was shown.
    pub(crate) fn secret_used(&self, is_generated: bool, is_accepted: bool) {
        self.legacy.increase();
        match (is_accepted, is_generated) {
            (false, _) => &self.invalidated,
            (true, false) => &self.manual,
            (true, true) => &self.generated,
        }
        .increase();
    }

    fn write(&self, page: &mut Page) {
        let help = "[ALPHA] Cumulative invalid auto-generated legacy tokens used";
        page.counter("serviceaccount_invalid_legacy_auto_token_uses_total", help, &self.invalidated);
        let help = "[ALPHA] Cumulative auto-generated legacy tokens used";
        page.counter("serviceaccount_legacy_auto_token_uses_total", help, &self.generated);
        let help = "[ALPHA] Cumulative manually created legacy tokens used";
        page.counter("serviceaccount_legacy_manual_token_uses_total", help, &self.manual);
        let help = "[ALPHA] Cumulative legacy service account tokens used";
        page.counter("serviceaccount_legacy_tokens_total", help, &self.legacy);
        let help = "[ALPHA] Cumulative stale projected service account tokens used";
        page.counter("serviceaccount_stale_tokens_total", help, &self.stale);
        let help = "[ALPHA] Cumulative valid projected service account tokens used";
        page.counter("serviceaccount_valid_tokens_total", help, &self.fresh);
        // Upstream has no words of help for the rest.
        let help = "[ALPHA] ";
        let name = "authentication_token_cache_active_fetch_count";
        page.head(name, "gauge", help);
        // Nobody waits for what another has asked: each who waits looks.
        for status in ["blocked", "in_flight"] {
            page.sample(name, &[("status", status)], self.looking.load(Ordering::Relaxed));
        }
        let name = "authentication_token_cache_fetch_total";
        page.head(name, "counter", help);
        for (status, count) in [("error", self.refused.get()), ("ok", self.accepted.get())] {
            if count > 0 {
                page.sample(name, &[("status", status)], count);
            }
        }
        let requests = [("hit", &self.known), ("miss", &self.new)];
        let requests = || requests.iter().filter(|(_, took)| took.count() > 0);
        let name = "authentication_token_cache_request_duration_seconds";
        page.head(name, "histogram", help);
        for (status, took) in requests() {
            page.histogram(name, &[("status", status)], took);
        }
        let name = "authentication_token_cache_request_total";
        page.head(name, "counter", help);
        for (status, took) in requests() {
            page.sample(name, &[("status", status)], took.count());
        }
    }
}

/// How long requests were kept by what each passes that goes on.
pub(crate) struct Filters {
    /// Of servers that write requests down.
    pub(crate) audit: Histogram,
    pub(crate) authentication: Histogram,
    pub(crate) authorization: Histogram,
    pub(crate) fairness: Histogram,
    /// Of requests as somebody else.
    pub(crate) impersonation: Histogram,
}

impl Default for Filters {
    fn default() -> Self {
        let seconds = || Histogram::new(&FILTER_SECONDS);
        Self {
            audit: seconds(),
            authentication: seconds(),
            authorization: seconds(),
            fairness: seconds(),
            impersonation: seconds(),
        }
    }
}

impl Filters {
    fn write(&self, page: &mut Page) {
        let name = "apiserver_request_filter_duration_seconds";
        let help = "[ALPHA] Request filter latency distribution in seconds, for each filter type";
        page.head(name, "histogram", help);
        for (filter, took) in [
            ("audit", &self.audit),
            ("authentication", &self.authentication),
            ("authorization", &self.authorization),
            ("constrainedimpersonation", &self.impersonation),
            ("priorityandfairness", &self.fairness),
        ] {
            if took.count() > 0 {
                page.histogram(name, &[("filter", filter)], took);
            }
        }
    }
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
            impersonation_checks: Family::new(seconds),
            certificates: Histogram::new(&CERTIFICATE_SECONDS),
            tokens: Tokens::default(),
            filters: Filters::default(),
            handshake_errors: Counter::default(),
        }
    }
}

impl Access {
    /// `user`: None if nobody was believed.
    pub(crate) fn authenticated(&self, user: Option<&str>, took: Duration) {
        let result = if user.is_some() { "success" } else { "failure" };
        self.authentications.of(&[result]).took(took);
        self.filters.authentication.took(took);
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
        if decision.allowed {
            self.filters.authorization.took(took);
        }
    }

    /// `mode`: None if it was not allowed.
    pub(crate) fn impersonated(&self, mode: Option<ImpersonationMode>, took: Duration) {
        let labels = mode.map_or(["denied", ""], |mode| ["allowed", mode.name()]);
        self.impersonations.of(&labels).took(took);
        if mode.is_some() {
            self.filters.impersonation.took(took);
        }
    }

    /// A right was asked about for somebody who wants to be somebody else.
    pub(crate) fn impersonation_checked(&self, mode: ImpersonationMode, is_allowed: bool, took: Duration) {
        let decision = if is_allowed { "allowed" } else { "denied" };
        self.impersonation_checks.of(&[decision, mode.name()]).took(took);
    }

    pub(super) fn write(&self, page: &mut Page) {
        let labels = ["decision", "mode"];
        for (of, total, seconds, family) in [
            (
                "attempts",
                "[ALPHA] Total number of impersonation attempts split by mode and decision.",
                "[ALPHA] Latency of impersonation attempts in seconds split by mode and decision.",
                &self.impersonations,
            ),
            (
                "authorization_attempts",
                "[ALPHA] Total number of authorization checks made by the impersonation handler split by mode and decision.",
                "[ALPHA] Latency of authorization checks made by the impersonation handler in seconds split by mode and decision.",
                &self.impersonation_checks,
            ),
        ] {
            let name = format!("apiserver_impersonation_{of}_total");
            page.head(&name, "counter", total);
            for ([decision, mode], took) in family.sorted() {
                page.sample(&name, &[("decision", decision), ("mode", mode)], took.count());
            }
            let name = format!("apiserver_impersonation_{of}_duration_seconds");
            page.histograms(&name, seconds, labels, family);
        }
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
        self.tokens.write(page);
        self.filters.write(page);
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
    fn what_was_asked_about_is_counted() {
        let access = Access::default();
        access.impersonation_checked(ImpersonationMode::UserInfo, false, Duration::from_millis(3));
        access.impersonation_checked(ImpersonationMode::Legacy, true, Duration::from_millis(3));
        access.impersonated(Some(ImpersonationMode::Legacy), Duration::from_millis(6));
        for is_stale in [true, false, false] {
            access.tokens.renewable(is_stale);
        }
        for (is_generated, is_accepted) in [(true, true), (false, true), (false, true), (true, false)] {
            access.tokens.secret_used(is_generated, is_accepted);
        }
        access.tokens.looked(false, Duration::from_millis(3));
        let mut page = Page::default();
        access.write(&mut page);
        let text = page.into_text();
        for line in [
            "apiserver_impersonation_attempts_total{decision=\"allowed\",mode=\"legacy\"} 1",
            "apiserver_impersonation_authorization_attempts_total{decision=\"allowed\",mode=\"legacy\"} 1",
            "apiserver_impersonation_authorization_attempts_total{decision=\"denied\",mode=\"user-info\"} 1",
            "apiserver_impersonation_authorization_attempts_duration_seconds_bucket{decision=\"denied\",mode=\"user-info\",le=\"0.004\"} 1",
            "authentication_token_cache_fetch_total{status=\"error\"} 1",
            "serviceaccount_invalid_legacy_auto_token_uses_total 1",
            "serviceaccount_legacy_auto_token_uses_total 1",
            "serviceaccount_legacy_manual_token_uses_total 2",
            "serviceaccount_legacy_tokens_total 4",
            "serviceaccount_stale_tokens_total 1",
            "serviceaccount_valid_tokens_total 2",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn users_are_told_in_a_few_words() {
        for (user, expected) in [("kubelet", "kubelet"), ("a@b.c", "email_id"), ("jane", "other")] {
            assert_eq!(told(user), expected);
        }
    }
}
