//! Issuers of OpenID Connect: their discovery documents and keys, fetched when a token asks for them and kept until one is signed by a
//! key that is not among them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ::metrics::{Family, Histogram, Page};
use access::AccessError;
use access::authentication::{Configuration, Elsewhere, Issuer, KeySet, Refused, discovery};
use http::{Request, header};
use http_body_util::Full;
use hyper::body::Bytes;
use object::Time;
use plan::User;
use rustls::ClientConfig;
use serde::Deserialize;
use tracing::{info, warn};

use crate::dial::Dial;
use crate::https::{self, Place};

static TOKEN_SECONDS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How long an issuer may take for one document.
const LIMIT: Duration = Duration::from_secs(10);
/// How many documents an issuer is asked for within [`PERIOD`] at most, whatever tokens come: those with unknown keys are anybody's.
const MOST_FETCHES: usize = 10;
const PERIOD: Duration = Duration::from_secs(60);

/// How many others may answer for an issuer, where its tokens say that its claims are theirs to tell.
const MOST_OTHERS: usize = 16;

/// Where a configuration of authentication is asked for, at each request: its file may change, and so may the account.
pub type AuthenticationSource = Arc<dyn Fn() -> Arc<Configuration> + Send + Sync>;

/// A configuration of authentication and how its issuers are reached.
pub struct Believed {
    pub source: AuthenticationSource,
    pub dial: Dial,
}

/// The issuers of one configuration source.
pub(crate) struct Providers {
    believed: Believed,
    /// By the issuer's hash and the result: tokens of issuers that were looked at.
    took: Family<[Box<str>; 2], Histogram>,
    current: RwLock<Arc<Current>>,
}

/// What was made of a configuration.
#[derive(Default)]
struct Current {
    configuration: Arc<Configuration>,
    /// One for each issuer, in its order.
    sources: Vec<Arc<KeySource>>,
}

/// Where the keys of an issuer are, and those that are known.
struct KeySource {
    discovery: String,
    issuer: String,
    /// What metrics call the issuer.
    hash: String,
    certificate_authority: Option<String>,
    keys: RwLock<Option<Arc<KeySet>>>,
    /// Held while the issuer is asked, so that it is asked once for all who wait; when it was asked lately.
    asking: tokio::sync::Mutex<Vec<Instant>>,
    tls: Mutex<Option<Arc<ClientConfig>>>,
    /// Issuers of the tokens that hold what this one's only name.
    others: Mutex<BTreeMap<String, Arc<KeySource>>>,
}

impl Providers {
    pub(crate) fn new(believed: Believed) -> Self {
        Self { believed, took: Family::new(|| Histogram::new(&TOKEN_SECONDS)), current: RwLock::default() }
    }

    /// The configuration as it is now. Keys stay with an issuer that stays.
    fn current(&self) -> Arc<Current> {
        let configuration = (self.believed.source)();
        let known = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if Arc::ptr_eq(&known.configuration, &configuration) {
            return known;
        }
        let sources = configuration.issuers.iter().map(|issuer| {
            let same = known.sources.iter().find(|source| source.is_of(issuer)).cloned();
            same.unwrap_or_else(|| Arc::new(KeySource::new(issuer)))
        });
        let made = Arc::new(Current { sources: sources.collect(), configuration });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = made.clone();
        made
    }

    pub(crate) fn configuration(&self) -> Arc<Configuration> {
        self.current().configuration.clone()
    }

    /// The user of a token of one of the issuers. `Unrecognized`: it is of none of them.
    pub(crate) async fn user(&self, token: &str, now: Time) -> Result<User, AccessError> {
        let current = self.current();
        if current.sources.is_empty() {
            return Err(AccessError::Unrecognized);
        }
        let told = access::issuer_of(token).ok_or(AccessError::Unrecognized)?;
        let issuers = current.configuration.issuers.iter().zip(&current.sources);
        let Some((issuer, source)) = issuers.into_iter().find(|(issuer, _)| issuer.url == told) else {
            return Err(AccessError::Unrecognized);
        };
        let began = Instant::now();
        let found = self.user_of(issuer, source, token, now).await;
        let result = if found.is_ok() { "success" } else { "failure" };
        self.took.of(&[&*source.hash, result]).took(began.elapsed());
        found
    }

    async fn user_of(
        &self,
        issuer: &Issuer,
        source: &Arc<KeySource>,
        token: &str,
        now: Time,
    ) -> Result<User, AccessError> {
        let dial = &self.believed.dial;
        let mut claims = source.verified(dial, |keys| issuer.claims(keys, token, now)).await?;
        if let Some(elsewhere) = issuer.elsewhere(&claims)? {
            let failed =
                |why: String| AccessError::Oidc(format!("oidc: could not expand distributed claims: {why}"));
            let answered = source.claim(&elsewhere, dial).await.map_err(failed)?;
            let other = access::issuer_of(&answered)
                .ok_or_else(|| failed(format!("what {} answered is no token", elsewhere.endpoint)))?;
            let other = source.other(&other).map_err(failed)?;
            let resolve = |keys: &KeySet| {
                let mut claims = claims.clone();
                let by = (&*other.issuer, keys);
                issuer.resolve(&mut claims, &elsewhere, by, &answered, now).map(|()| claims)
            };
            claims = other.verified(dial, resolve).await?;
        }
        issuer.user(claims)
    }
}

/// What all of them took; an issuer may be one of several configurations'.
pub(crate) fn write_metrics(all: &[Providers], page: &mut Page) {
    let together: Family<[Box<str>; 2], Histogram> = Family::new(|| Histogram::new(&TOKEN_SECONDS));
    for (labels, took) in all.iter().flat_map(|providers| providers.took.sorted()) {
        together.of(&labels).absorb(&took);
    }
    page.histograms(
        "apiserver_authentication_jwt_authenticator_latency_seconds",
        "[ALPHA] Latency of jwt authentication operations in seconds. This is the time spent authenticating a token for cache miss only (i.e. when the token is not found in the cache).",
        ["jwt_issuer_hash", "result"],
        &together,
    );
}

/// As upstream's: what is configured does not stand in metrics.
fn hashed(issuer: &str) -> String {
    let digest = super::digest(issuer);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl KeySource {
    fn new(issuer: &Issuer) -> Self {
        Self {
            discovery: issuer.discovery(),
            issuer: issuer.url.clone(),
            hash: hashed(&issuer.url),
            certificate_authority: issuer.certificate_authority.clone(),
            keys: RwLock::default(),
            asking: tokio::sync::Mutex::default(),
            tls: Mutex::default(),
            others: Mutex::default(),
        }
    }

    /// The keys of somebody who issues tokens with the claims that this one's are without. The same authorities vouch for where they are.
    fn other(self: &Arc<Self>, issuer: &str) -> Result<Arc<Self>, String> {
        if issuer == self.issuer {
            return Ok(self.clone());
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if !others.contains_key(issuer) && others.len() >= MOST_OTHERS {
            return Err(format!("more than {MOST_OTHERS} issuers answer for {:?}", self.issuer));
        }
        let made = || {
            Arc::new(Self {
                discovery: discovery(issuer),
                issuer: issuer.to_owned(),
                hash: hashed(issuer),
                certificate_authority: self.certificate_authority.clone(),
                keys: RwLock::default(),
                asking: tokio::sync::Mutex::default(),
                tls: Mutex::default(),
                others: Mutex::default(),
            })
        };
        Ok(others.entry(issuer.to_owned()).or_insert_with(made).clone())
    }

    /// What `verify` finds with the keys that are known, or with newer ones if none of those signed the token.
    async fn verified<T>(
        &self,
        dial: &Dial,
        verify: impl Fn(&KeySet) -> Result<T, Refused>,
    ) -> Result<T, AccessError> {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(keys) = &known {
            match verify(keys) {
                Err(Refused::Signature) => {}
                Err(Refused::Because(why)) => return Err(why),
                Ok(found) => return Ok(found),
            }
        }
        let keys = self.newer(known.as_ref(), dial).await?;
        verify(&keys).map_err(|refused| match refused {
            Refused::Because(why) => why,
            Refused::Signature => {
                let why =
                    "oidc: verify token: failed to verify signature: failed to verify id token signature";
                AccessError::Oidc(why.to_owned())
            }
        })
    }

    /// The token that holds a claim.
    async fn claim(&self, elsewhere: &Elsewhere, dial: &Dial) -> Result<String, String> {
        let answered = self.get(&elsewhere.endpoint, elsewhere.access_token.as_deref(), dial).await?;
        let token = str::from_utf8(&answered)
            .map_err(|_| "could not decode distributed claim response".to_owned())?;
        Ok(token.trim().to_owned())
    }

    fn is_of(&self, issuer: &Issuer) -> bool {
        self.issuer == issuer.url
            && self.discovery == issuer.discovery()
            && self.certificate_authority == issuer.certificate_authority
    }

    /// Keys that are newer than those that did not do; asked for once by however many wait.
    async fn newer(&self, known: Option<&Arc<KeySet>>, dial: &Dial) -> Result<Arc<KeySet>, AccessError> {
        let mut lately = self.asking.lock().await;
        let held = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(held) = held
            && !known.is_some_and(|known| Arc::ptr_eq(known, &held))
        {
            return Ok(held);
        }
        lately.retain(|at| at.elapsed() < PERIOD);
        if lately.len() >= MOST_FETCHES {
            let why = "its keys were asked for too often within the last minute";
            return Err(self.failed(why));
        }
        lately.push(Instant::now());
        let keys = self.fetch(dial).await.map_err(|why| {
            warn!(issuer = self.issuer, why, "the keys of an issuer of tokens could not be fetched");
            self.failed(&why)
        })?;
        info!(issuer = self.issuer, "fetched the keys of an issuer of tokens");
        let keys = Arc::new(keys);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys.clone());
        Ok(keys)
    }

    fn failed(&self, why: &str) -> AccessError {
        AccessError::Oidc(format!(
            "oidc: authenticator for issuer {:?} is not initialized: {why}",
            self.issuer
        ))
    }

    async fn fetch(&self, dial: &Dial) -> Result<KeySet, String> {
        let discovery = self.get(&self.discovery, None, dial).await?;
        let discovery: Discovery = serde_json::from_slice(&discovery).map_err(|error| {
            format!("{}: failed to decode provider discovery object: {error}", self.discovery)
        })?;
        if discovery.issuer != self.issuer {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {:?} got {:?}",
                self.issuer, discovery.issuer
            ));
        }
        let keys = self.get(&discovery.jwks_uri, None, dial).await?;
        KeySet::read(&keys).map_err(|why| format!("{}: {why}", discovery.jwks_uri))
    }

    async fn get(&self, url: &str, token: Option<&str>, dial: &Dial) -> Result<Bytes, String> {
        let place = Place::of(url)?;
        let mut request = Request::get("/").header(header::ACCEPT, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::default()).map_err(|error| error.to_string())?;
        let exchanged = https::exchange(dial, self.tls()?, &place, request);
        let failed = |why: String| format!("Get {url:?}: {why}");
        match tokio::time::timeout(LIMIT, exchanged).await {
            Err(_) => Err(failed("context deadline exceeded".to_owned())),
            Ok(Err(why)) => Err(failed(why)),
            Ok(Ok(answered)) if !answered.status().is_success() => {
                Err(failed(format!("the server answered {}", answered.status())))
            }
            Ok(Ok(answered)) => Ok(answered.into_body()),
        }
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        let mut held = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = &*held {
            return Ok(tls.clone());
        }
        let roots = match &self.certificate_authority {
            Some(pem) => https::authorities(pem.as_bytes())?,
            None => https::system_authorities(),
        };
        let tls = https::client_tls(roots, None)?;
        *held = Some(tls.clone());
        Ok(tls)
    }
}
