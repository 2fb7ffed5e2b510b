//! What the command line asks for, each answered by the daemon.

use std::sync::Arc;

use machines::doctor;
use tracing::{error, warn};

use super::{Daemon, DaemonError, control_plane};
use crate::admin::{Ask, AwsRequest, ClusterStatus, Told, UpRequest};
use crate::census;
use crate::etcd::Place;
use crate::progress::Progress;
use crate::registries::Registries;
use crate::server_files::ServerFiles;
use crate::shape::NEWEST;
use crate::site::ClusterSpec;

/// Of the API on loopback, if it is free.
const FIRST_PORT: u16 = 6443;

impl Daemon {
    /// Does what the command line asks for, and tells `progress` of it; what comes back are the clusters that it was about.
    pub async fn answer(
        self: &Arc<Self>,
        ask: Ask,
        progress: &Progress,
    ) -> Result<Vec<ClusterStatus>, DaemonError> {
        match ask {
            Ask::Up(request) => self.up(&request, progress).await,
            Ask::Down { name } => {
                let turn = self.clusters.turn(&name).await?;
                self.down(&turn, progress).await?;
                Ok(Vec::new())
            }
            Ask::Delete { name } => {
                if self.site.cluster(&name)?.is_none() {
                    return Err(DaemonError::NoCluster(name));
                }
                // What of it the account knows goes with it; one that cannot be opened is no reason to keep the cluster.
                if let Err(failure) = self.open_account(&AwsRequest::default(), progress).await {
                    warn!(cluster = name, %failure, "the account still knows of the cluster");
                }
                self.delete(&name, progress).await?;
                Ok(Vec::new())
            }
            Ask::DeleteAll => {
                self.delete_all(progress).await?;
                Ok(Vec::new())
            }
            Ask::Account => {
                let running = self.account.lock().await;
                let status = running.as_ref().ok_or(DaemonError::NoAccount)?.status().await?;
                progress.tell(Told::Account(status));
                Ok(Vec::new())
            }
            Ask::Why(question) => {
                let running = self.account.lock().await;
                let told = running.as_ref().ok_or(DaemonError::NoAccount)?.why(&question);
                progress.tell(Told::Because(told.map_err(DaemonError::Question)?));
                Ok(Vec::new())
            }
            Ask::Cost => {
                let (account, _) = self.account().await.ok_or(DaemonError::NoAccount)?;
                let objects = |name: &str| Some(self.clusters.get(name)?.gate.store().snapshot());
                let state = account.snapshot();
                let bill = aws::cost::bill(&state, &account.identity.region, account.now(), &objects);
                progress.tell(Told::Costs(bill));
                Ok(Vec::new())
            }
            Ask::Status { name } => self.status(name.as_deref()).await,
        }
    }

    async fn up(
        self: &Arc<Self>,
        request: &UpRequest,
        progress: &Progress,
    ) -> Result<Vec<ClusterStatus>, DaemonError> {
        let (spec, is_new) = self.wish(request).await?;
        let started = match self.found(is_new && spec.nodes > 0, doctor::AT_ONCE).await? {
            Some(lacks) => Err(DaemonError::Lacks(lacks)),
            None => match self.open_account(&request.aws, progress).await {
                Ok(()) => self.start(&spec.name, progress).await,
                Err(failure) => Err(failure),
            },
        };
        if let Err(failure) = started {
            // One that never ran is not left behind half-made. One whose nodes failed is: their logs say why.
            if is_new && self.clusters.get(&spec.name).is_none() {
                return Err(self.undo(&spec, failure).await);
            }
            return Err(failure);
        }
        self.status(Some(&spec.name)).await
    }

    async fn delete_all(self: &Arc<Self>, progress: &Progress) -> Result<(), DaemonError> {
        if let Err(failure) = self.open_account(&AwsRequest::default(), progress).await {
            warn!(%failure, "everything goes without the account's word");
        }
        // Somebody may ask for another while these go.
        while let Some(spec) = self.site.clusters()?.first() {
            self.remove(&spec.name, progress).await?;
        }
        self.close().await;
        self.end().await
    }

    /// What of these checks finds this host unfit, each with its mend; if it is to be asked at all.
    async fn found(&self, ask: bool, checks: &'static [&'static str]) -> Result<Option<String>, DaemonError> {
        if !ask {
            return Ok(None);
        }
        let site = self.machines.clone();
        let examined = tokio::task::spawn_blocking(move || {
            doctor::examine_some(&doctor::Subject { site: &site }, checks)
        });
        let mut findings = examined.await?;
        findings.retain(|finding| finding.level == doctor::Level::Error);
        let lines = findings.iter().map(|finding| format!("{}; mend: {}", finding.what, finding.mend));
        Ok((!findings.is_empty()).then(|| lines.collect::<Vec<_>>().join("\n")))
    }

    /// Removes what was made of a cluster that could not be started, and says why as well as it can be known.
    async fn undo(&self, spec: &ClusterSpec, failure: DaemonError) -> DaemonError {
        let is_the_host = matches!(failure, DaemonError::Machines(_) | DaemonError::Inside(_));
        let lacks = self.found(is_the_host, &["links", "namespaces", "nftables", "pool", "root"]).await;
        if let Err(left) = self.delete(&spec.name, &Progress::none()).await {
            error!(cluster = spec.name, %left, "what was half-made could not be removed");
        }
        match lacks {
            Ok(Some(lacks)) => DaemonError::Lacks(format!("{failure}\n{lacks}")),
            _ => failure,
        }
    }

    /// Writes down what a cluster should be, and gives that, and whether it is a new one.
    async fn wish(&self, request: &UpRequest) -> Result<(ClusterSpec, bool), DaemonError> {
        let _turn = self.clusters.turn(&request.name).await?;
        if let Some((account, _)) = self.account().await {
            control_plane::refuse_going(&account, &request.name)?;
        }
        let is_new = self.site.cluster(&request.name)?.is_none();
        let spec = self.spec_for(request)?;
        self.site.save(&spec)?;
        Ok((spec, is_new))
    }

    /// What the cluster should be: what it was, with what was asked for now.
    fn spec_for(&self, request: &UpRequest) -> Result<ClusterSpec, DaemonError> {
        let known = self.site.cluster(&request.name)?;
        let is_new = known.is_none();
        let mut spec = known.unwrap_or_else(|| ClusterSpec {
            name: request.name.clone(),
            nodes: 1,
            api_port: 0,
            up: true,
            registries: Registries::default(),
            minor: NEWEST,
            services: None,
            pods: None,
            issuer: None,
            place: Place::default(),
            files: ServerFiles::default(),
        });
        spec.up = true;
        spec.nodes = request.nodes.unwrap_or(spec.nodes);
        spec.registries = request.registries.or(&spec.registries);
        if request.place.store.is_some() {
            spec.place.clone_from(&request.place);
        }
        let before = std::mem::take(&mut spec.files);
        let kept = request.without.iter().fold(before.clone(), |kept, flag| kept.without(*flag));
        spec.files = request.files.clone().or(kept);
        if spec.files != before {
            // What is wrong with them is told before anything is stopped or written down.
            spec.files.check(&before, &spec.shape().issuer)?;
        }
        match request.api_port {
            Some(0) => spec.api_port = control_plane::free_port(0)?,
            Some(port) => spec.api_port = port,
            None if is_new => {
                spec.api_port =
                    control_plane::free_port(FIRST_PORT).or_else(|_| control_plane::free_port(0))?
            }
            None => {}
        }
        Ok(spec)
    }

    async fn status(&self, name: Option<&str>) -> Result<Vec<ClusterStatus>, DaemonError> {
        let mut all = Vec::new();
        let memory_bytes = census::memory_bytes(self.machines.id());
        for spec in self.site.clusters()? {
            if name.is_none_or(|name| name == spec.name) {
                let cluster = self.clusters.get(&spec.name);
                all.push(census::status(&self.site, memory_bytes, &spec, cluster.as_deref()));
            }
        }
        match name {
            Some(name) if all.is_empty() => Err(DaemonError::NoCluster(name.to_owned())),
            _ => Ok(all),
        }
    }
}
