//! Processes in running containers, and clients attached to containers.

use super::{Inner, Runtime, call_error};
use crate::connection::{CallError, Connection};
use crate::error::{RuntimeError, at};
use crate::layout;
use crate::protocol::Call;
use crate::spec::{self, Process, Spec};
use crate::stream::{self, Resizer, Streams};
use plan::node::ContainerState;
use rustix::fd::OwnedFd;
use rustix::fs::MemfdFlags;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;

/// What to run in a container, and which of its streams are wanted. A terminal implies stdin and stdout.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// A process that runs in a container. It goes on when this is dropped, like upstream's; `kill` ends it.
pub struct Exec {
    pub streams: Streams,
    sandbox: String,
    id: u64,
    connection: Arc<Connection>,
    exit: oneshot::Receiver<i32>,
}

impl Exec {
    /// Its exit code; 128 + signal when one ended it.
    pub async fn wait(&mut self) -> Result<i32, RuntimeError> {
        (&mut self.exit).await.map_err(|_| RuntimeError::MonitorGone(self.sandbox.clone()))
    }

    /// Kills it and its process group.
    pub async fn kill(&self) -> Result<(), RuntimeError> {
        let call = Call::KillExec { exec: self.id };
        self.connection.call(call, &[]).await.map(drop).map_err(call_error(&self.sandbox))
    }
}

/// A client attached to a container. Ends when this is dropped.
pub struct Attached {
    pub streams: Streams,
}

/// What a command printed, up to the limit, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

impl Runtime {
    /// Runs a command to its end. Output beyond `limit_bytes` of each stream is thrown away.
    ///
    /// # Errors
    /// `ExecTimeout` after `timeout`: the command is then killed.
    pub async fn exec_sync(
        &self,
        container: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
        limit_bytes: usize,
    ) -> Result<ExecOutput, RuntimeError> {
        let name = command.join(" ");
        let request = ExecRequest { command, stdout: true, stderr: true, ..Default::default() };
        let mut exec = self.exec_stream(container, request).await?;
        let run = run_to_end(&mut exec, limit_bytes);
        let Some(timeout) = timeout else { return run.await };
        match tokio::time::timeout(timeout, run).await {
            Ok(result) => result,
            Err(_) => {
                exec.kill().await?;
                exec.wait().await?;
                Err(RuntimeError::ExecTimeout { command: name, seconds: timeout.as_secs() })
            }
        }
    }

    /// Starts a command and hands over its streams.
    ///
    /// # Errors
    /// `Exec` when it cannot be started, in the words of runc.
    pub async fn exec_stream(&self, container: &str, request: ExecRequest) -> Result<Exec, RuntimeError> {
        let failed = |message: String| RuntimeError::Exec { id: container.into(), message };
        if request.command.is_empty() {
            return Err(failed("no command specified".into()));
        }
        let (sandbox, connection) = self.inner.running(container, "exec")?;
        let spec_path = self.inner.container_dir(&sandbox, container).join(layout::SPEC);
        let spec = layout::read_json::<Spec>(&spec_path).map_err(at("read", spec_path))?;
        let mut fds = vec![process_file(&spec, &request).map_err(|error| failed(error.to_string()))?];
        let mut pipes = match request.tty {
            true => None,
            false => Some(
                stream::pipes(request.stdin, request.stdout, request.stderr, true)
                    .map_err(|error| failed(error.to_string()))?,
            ),
        };
        if let Some(pipes) = &mut pipes {
            fds.append(&mut pipes.theirs);
        }
        let id = connection.next_id();
        let exit = connection.expect_exec(id);
        let call = Call::Exec { exec: id, container: container.into(), tty: request.tty };
        let answer = connection.call(call, &fds).await;
        drop(fds);
        let mut came = match answer {
            Ok(came) => came,
            Err(error) => {
                connection.forget_exec(id);
                return Err(match error {
                    CallError::Gone => RuntimeError::MonitorGone(sandbox),
                    CallError::Refused(message) => failed(message),
                });
            }
        };
        let streams = match (pipes, came.pop()) {
            (Some(pipes), _) => pipes.into_streams(None),
            (None, Some(master)) => stream::terminal(master).map_err(|error| failed(error.to_string()))?,
            (None, None) => return Err(failed("the monitor sent no terminal".into())),
        };
        Ok(Exec { streams, sandbox, id, connection, exit })
    }

    /// Attaches to a container's own streams, from now on. With a terminal there is no stderr.
    pub async fn attach_stream(
        &self,
        container: &str,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    ) -> Result<Attached, RuntimeError> {
        let failed = |message: String| RuntimeError::Exec { id: container.into(), message };
        let (sandbox, connection) = self.inner.running(container, "attach")?;
        let (tty, takes_stdin) =
            self.inner.with_container(container, |_, entry| (entry.record.tty, entry.record.stdin))?;
        let (stdin, stderr) = (stdin && takes_stdin, stderr && !tty);
        let mut pipes =
            stream::pipes(stdin, stdout, stderr, false).map_err(|error| failed(error.to_string()))?;
        let fds = std::mem::take(&mut pipes.theirs);
        let call = Call::Attach { container: container.into(), stdin, stdout, stderr };
        connection.call(call, &fds).await.map_err(call_error(&sandbox))?;
        let resizer = tty.then(|| Resizer::through(connection, container.into()));
        Ok(Attached { streams: pipes.into_streams(resizer) })
    }
}

impl Inner {
    fn running(
        &self,
        container: &str,
        operation: &'static str,
    ) -> Result<(String, Arc<Connection>), RuntimeError> {
        let (sandbox, state) = self
            .with_container(container, |sandbox, entry| (sandbox.id.clone(), entry.status.borrow().state))?;
        if state != ContainerState::Running {
            let (id, state) = (container.into(), format!("{state:?}"));
            return Err(RuntimeError::WrongState { id, state, operation, wanted: "running" });
        }
        let connection = self.connection(&sandbox)?;
        Ok((sandbox, connection))
    }
}

/// The command in a file that only its descriptor names: a command line may be longer than a message.
fn process_file(spec: &Spec, request: &ExecRequest) -> std::io::Result<OwnedFd> {
    let mut env = spec.process.env.clone();
    if request.tty {
        spec::set(&mut env, "TERM=xterm".into());
    }
    let process = Process {
        args: request.command.clone(),
        env,
        working_dir: spec.process.working_dir.clone(),
        tty: request.tty,
    };
    let mut file = std::fs::File::from(rustix::fs::memfd_create("exec", MemfdFlags::CLOEXEC)?);
    serde_json::to_writer(&mut file, &process)?;
    Ok(file.into())
}

async fn run_to_end(exec: &mut Exec, limit_bytes: usize) -> Result<ExecOutput, RuntimeError> {
    let (mut stdout, mut stderr) = (exec.streams.stdout.take(), exec.streams.stderr.take());
    let mut output = ExecOutput::default();
    let mut exit = None;
    // Whoever the command left behind may hold the streams open for ever: its end is the end, once what it wrote is
    // read. Reads that are ready come before the exit.
    while exit.is_none() || stdout.is_some() || stderr.is_some() {
        tokio::select! {
            biased;
            open = read_some(&mut stdout, &mut output.stdout, limit_bytes), if stdout.is_some() => {
                if !open { stdout = None; }
            }
            open = read_some(&mut stderr, &mut output.stderr, limit_bytes), if stderr.is_some() => {
                if !open { stderr = None; }
            }
            code = exec.wait(), if exit.is_none() => exit = Some(code?),
            () = tokio::time::sleep(Duration::from_millis(50)), if exit.is_some() => break,
        }
    }
    output.exit_code = exit.unwrap_or_default();
    Ok(output)
}

/// Reads what there is; whether more may come.
async fn read_some(
    from: &mut Option<impl AsyncRead + Unpin>,
    into: &mut Vec<u8>,
    limit_bytes: usize,
) -> bool {
    let Some(from) = from else { return false };
    let mut chunk = [0; 8192];
    match from.read(&mut chunk).await {
        Ok(length) if length > 0 => {
            let room = limit_bytes.saturating_sub(into.len());
            into.extend_from_slice(&chunk[..length.min(room)]);
            true
        }
        _ => false,
    }
}
