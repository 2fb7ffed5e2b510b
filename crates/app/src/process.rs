//! What every long-running process of this binary begins with: its log, its runtime, and the signals that end it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The process could not begin its work.
#[derive(Debug, thiserror::Error)]
#[error("start: {0}")]
pub struct StartError(pub std::io::Error);

/// Runs a daemon's work to its end. What still blocks on a thread then (a pull, a look-up of a name) ends with the process and does not
/// keep it.
pub fn block_on<T, E: From<StartError>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    allow_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(StartError)?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// As many open files as may be: each watcher is one, and what a shell allows at first (1,024) is for programs that use select(2).
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    // If it stays as it is, connections beyond it wait for others to end.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Turns true at SIGTERM or SIGINT.
pub fn stop_signal() -> Result<watch::Receiver<bool>, StartError> {
    let (tell, told) = watch::channel(false);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(StartError)?;
        let tell = tell.clone();
        tokio::spawn(async move {
            signals.recv().await;
            tell.send_replace(true);
        });
    }
    Ok(told)
}

/// Logs to standard error; `EKSO_LOG` chooses (`debug`, `gate=debug,info`).
pub fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("EKSO_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
}
