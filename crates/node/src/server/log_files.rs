//! `GET /containerLogs/{namespace}/{pod}/{container}`

use std::io;
use std::path::Path;

use bytes::Bytes;
use http::{Response, StatusCode};
use object::Time;
use plan::node::{Container, ContainerState, RuntimeEvent};
use runtime::Runtime;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::{broadcast, mpsc};

use super::Server;
use super::query::Query;
use super::reply::{self, Refusal, Reply, refuse};
use super::target::{PodView, Target};
use crate::clock;
use crate::logs::{Reader, Stream, Wanted};
use crate::ops::blocking;

/// Pieces that wait for a slow client.
const BACKLOG: usize = 2;

pub async fn answer(server: &Server, target: Target<'_>, query: &Query) -> Result<Response<Reply>, Refusal> {
    let wanted = wanted(query, clock::now())?;
    let Target { namespace, pod: pod_name, container: name } = target;
    let missing = |message| refuse(StatusCode::NOT_FOUND, message);
    let pod = server
        .pod(namespace, pod_name)
        .ok_or_else(|| missing(format!("pod \"{pod_name}\" does not exist")))?;
    if !pod.has_container(name) {
        return Err(missing(format!("container \"{name}\" not found in pod \"{pod_name}\"")));
    }
    let runs = server.runs(&pod.metadata.uid, name);
    let run = choose(pod_name, name, &pod, &runs, query.is_set("previous"))
        .map_err(|message| refuse(StatusCode::BAD_REQUEST, message))?;
    let (path, id) = (run.log_path.clone(), run.id.clone());
    let follow = query.is_set("follow");
    // Watched from before the first look, so that nothing falls in between.
    let changes = if follow { Some(Changes::of(&path, &server.tools.runtime)) } else { None };
    let changes = changes.transpose().map_err(|error| failed(&path, &error.to_string()))?;
    let opened = path.clone();
    let reader =
        blocking(move || Reader::open(&opened, wanted)).await.map_err(|error| failed(&path, &error))?;
    let (to, pieces) = mpsc::channel(BACKLOG);
    tokio::spawn(send(server.tools.runtime.clone(), id, reader, changes, to));
    Ok(reply::stream(pieces))
}

fn failed(path: &Path, error: &str) -> Refusal {
    refuse(
        StatusCode::BAD_REQUEST,
        format!("failed to try resolving symlinks in path \"{}\": {error}", path.display()),
    )
}

/// `PodLogOptions`, as <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/> has them.
fn wanted(query: &Query, now: Time) -> Result<Wanted, Refusal> {
    let undecodable = || refuse(StatusCode::BAD_REQUEST, r#"{"message": "Unable to decode query."}"#);
    let invalid = || refuse(StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#);
    let number = |name: &str, least: i64| match query.get(name) {
        "" => Ok(None),
        text => match text.parse::<i64>() {
            Err(_) => Err(undecodable()),
            Ok(number) if number < least => Err(invalid()),
            Ok(number) => Ok(Some(number)),
        },
    };
    let since_seconds = number("sinceSeconds", 1)?;
    let since_time = match query.get("sinceTime") {
        "" => None,
        text => Some(text.parse::<Time>().map_err(|_| undecodable())?),
    };
    let tail_lines = number("tailLines", 0)?;
    let limit_bytes = number("limitBytes", 1)?;
    let stream = match query.get("stream") {
        "" | "All" => Stream::All,
        "Stdout" => Stream::Stdout,
        "Stderr" => Stream::Stderr,
        _ => return Err(invalid()),
    };
    // Lines are counted before streams are told apart: upstream refuses the two together.
    if (since_seconds.is_some() && since_time.is_some()) || (tail_lines.is_some() && stream != Stream::All) {
        return Err(invalid());
    }
    Ok(Wanted {
        since: since_seconds.map(|seconds| now.plus_secs(-seconds)).or(since_time),
        tail_lines: tail_lines.map(i64::unsigned_abs),
        limit_bytes: limit_bytes.map(i64::unsigned_abs),
        timestamps: query.is_set("timestamps"),
        stream,
    })
}

/// The run whose log is meant, or in upstream's words why there is none.
///
/// A container that has ended and waits to be started again has its last run as the previous one already.
fn choose<'a>(
    pod_name: &str,
    name: &str,
    pod: &PodView,
    runs: &'a [Container],
    previous: bool,
) -> Result<&'a Container, String> {
    let in_pod = format!("container \"{name}\" in pod \"{pod_name}\"");
    let waiting =
        pod.container_status(name).map(|status| &status.state).and_then(|state| state.waiting.as_ref());
    let begun: Vec<&Container> =
        runs.iter().filter(|run| run.status.state != ContainerState::Created).collect();
    let last = begun.last().copied();
    if previous {
        let is_over =
            last.is_some_and(|last| last.status.state == ContainerState::Exited) && waiting.is_some();
        let before = begun.iter().rev().nth(1).copied();
        return if is_over { last } else { before }
            .ok_or_else(|| format!("previous terminated {in_pod} not found"));
    }
    if let Some(last) = last {
        return Ok(last);
    }
    Err(match (pod.container_status(name), waiting) {
        (None, _) => format!("{in_pod} is not available"),
        (Some(_), None) => format!("{in_pod} is waiting to start - no logs yet"),
        (Some(_), Some(waiting)) => match waiting.reason.as_str() {
            "ErrImagePull" => format!("{in_pod} is waiting to start: image can't be pulled"),
            "ImagePullBackOff" => format!("{in_pod} is waiting to start: trying and failing to pull image"),
            reason => format!("{in_pod} is waiting to start: {reason}"),
        },
    })
}

/// Sends what there is, and with `changes` what comes, until the container has ended.
async fn send(
    runtime: Runtime,
    id: String,
    mut reader: Reader,
    mut changes: Option<Changes>,
    to: mpsc::Sender<io::Result<Bytes>>,
) {
    loop {
        // Looked at before reading: the monitor has written everything before it says that the container has ended.
        let is_over = changes.is_none() || !may_write(&runtime, &id);
        loop {
            let read = blocking(move || {
                let piece = reader.read()?;
                Ok::<_, io::Error>((reader, piece))
            });
            let piece = match read.await {
                Ok((again, piece)) => {
                    reader = again;
                    piece
                }
                Err(message) => {
                    // A client that has left does not care.
                    let _ = to.send(Err(io::Error::other(message))).await;
                    return;
                }
            };
            let Some(piece) = piece else { break };
            if !piece.is_empty() && to.send(Ok(piece.into())).await.is_err() {
                return;
            }
        }
        if is_over || reader.is_full() {
            return;
        }
        let Some(changes) = &mut changes else { return };
        tokio::select! {
            () = changes.next(&id) => {}
            () = to.closed() => return,
        }
    }
}

fn may_write(runtime: &Runtime, id: &str) -> bool {
    runtime.container(id).is_ok_and(|container| container.status.state != ContainerState::Exited)
}

/// Tells when there may be more in a log, or its container may have ended.
struct Changes {
    notified: AsyncFd<OwnedFd>,
    events: broadcast::Receiver<RuntimeEvent>,
}

impl Changes {
    /// Of a log file; its folder is watched, for the new file of a rotation.
    fn of(path: &Path, runtime: &Runtime) -> io::Result<Self> {
        let events = runtime.events();
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        inotify::add_watch(&fd, folder, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
        // SAFETY: the descriptor is owned, and stays open until the AsyncFd drops it.
        let notified = unsafe { AsyncFd::register(fd) }?;
        Ok(Self { notified, events })
    }

    async fn next(&mut self, id: &str) {
        loop {
            tokio::select! {
                ready = self.notified.readable() => {
                    let Ok(mut guard) = ready else { return std::future::pending().await };
                    // What happened is seen in the files themselves.
                    let mut buffer = [0_u8; 4096];
                    while let Ok(Ok(length)) = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut buffer)?)) {
                        if length < buffer.len() / 2 {
                            break;
                        }
                    }
                    return;
                }
                event = self.events.recv() => match event {
                    Ok(RuntimeEvent::ContainerChanged { container_id, .. }) if container_id == id => return,
                    Ok(RuntimeEvent::SandboxLost { .. }) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Ok(_) => {}
                    // The runtime lives as long as we hold it.
                    Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn run(attempt: u32, state: ContainerState) -> Container {
        let mut run = Container { id: format!("id-{attempt}"), attempt, ..Container::default() };
        run.status.state = state;
        run
    }

    fn check(state: Value, runs: &[ContainerState], previous: bool, want: Result<&str, &str>) {
        let status = json!({"containerStatuses": [{"name": "c", "state": state}]});
        let status = if state.is_null() { Value::Null } else { status };
        let mut pod = json!({"spec": {"containers": [{"name": "c"}]}});
        if !status.is_null() {
            pod["status"] = status;
        }
        let pod: PodView = serde_json::from_value(pod).expect("a pod");
        let runs: Vec<Container> = (0..).zip(runs).map(|(attempt, state)| run(attempt, *state)).collect();
        let got = choose("p", "c", &pod, &runs, previous);
        assert_eq!(got.map(|run| run.id.as_str()), want.map_err(str::to_owned));
    }

    #[test]
    fn the_run_that_is_meant() {
        use ContainerState::{Created, Exited, Running};
        let running = || json!({"running": {}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        check(running(), &[Running], false, Ok("id-0"));
        check(running(), &[Exited, Running], false, Ok("id-1"));
        check(running(), &[Exited, Running], true, Ok("id-0"));
        check(running(), &[Running], true, Err("previous terminated container \"c\" in pod \"p\" not found"));
        check(waiting("CrashLoopBackOff"), &[Exited, Exited], false, Ok("id-1"));
        check(waiting("CrashLoopBackOff"), &[Exited, Exited], true, Ok("id-1"));
        check(json!({"terminated": {}}), &[Exited, Exited], true, Ok("id-0"));
        check(running(), &[Exited, Created], false, Ok("id-0"));
        let wait = |why: &str| format!("container \"c\" in pod \"p\" is waiting to start{why}");
        check(waiting("ContainerCreating"), &[], false, Err(&wait(": ContainerCreating")));
        check(waiting("PodInitializing"), &[Created], false, Err(&wait(": PodInitializing")));
        check(waiting("ErrImagePull"), &[], false, Err(&wait(": image can't be pulled")));
        check(waiting("ImagePullBackOff"), &[], false, Err(&wait(": trying and failing to pull image")));
        check(json!({}), &[], false, Err(&wait(" - no logs yet")));
        check(Value::Null, &[], false, Err("container \"c\" in pod \"p\" is not available"));
    }

    #[test]
    fn options_are_read_and_refused() {
        let now: Time = "2026-11-23T04:00:10Z".parse().expect("a time");
        let check = |query: &str, want: Result<Wanted, u16>| {
            assert_eq!(
                wanted(&Query::parse(query), now).map_err(|refusal| refusal.code.as_u16()),
                want,
                "{query}"
            );
        };
        let since = |text: &str| Some(text.parse().expect("a time"));
        check("", Ok(Wanted::default()));
        check("follow=true&timestamps=true", Ok(Wanted { timestamps: true, ..Wanted::default() }));
        check("sinceSeconds=10", Ok(Wanted { since: since("2026-11-23T04:00:00Z"), ..Wanted::default() }));
        check(
            "sinceTime=2026-11-23T05:00:00%2B01:00",
            Ok(Wanted { since: since("2026-11-23T04:00:00Z"), ..Wanted::default() }),
        );
        check(
            "tailLines=0&limitBytes=7",
            Ok(Wanted { tail_lines: Some(0), limit_bytes: Some(7), ..Wanted::default() }),
        );
        check("stream=Stderr", Ok(Wanted { stream: Stream::Stderr, ..Wanted::default() }));
        for bad in ["tailLines=x", "sinceTime=noon"] {
            check(bad, Err(400));
        }
        for bad in
            ["tailLines=-1", "limitBytes=0", "sinceSeconds=0", "stream=Both", "stream=Stdout&tailLines=1"]
        {
            check(bad, Err(422));
        }
        check("sinceSeconds=1&sinceTime=2026-11-23T05:00:00Z", Err(422));
    }
}
