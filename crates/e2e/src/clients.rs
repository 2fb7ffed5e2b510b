//! The programs that the stories run: Ekso's binary, kubectl, and what Debian has.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// What a program answered.
#[derive(Debug)]
pub struct Answer {
    /// What was run, for messages.
    pub command: String,
    /// 128 + the signal, if one ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// The output, if it went well.
    pub fn ok(self) -> Result<String> {
        ensure!(self.code == 0, "{} ended with {}: {}{}", self.command, self.code, self.stdout, self.stderr);
        Ok(self.stdout)
    }

    /// Demands a failure with this text in what it says.
    pub fn fails_with(&self, text: &str) -> Result<()> {
        ensure!(self.code != 0, "{} went well, and should say {text:?}: {}", self.command, self.stdout);
        ensure!(
            self.stderr.contains(text),
            "{} should say {text:?}, and says {:?}",
            self.command,
            self.stderr
        );
        Ok(())
    }
}

/// Runs a program to its end. Its input is `input`.
pub fn run(command: &mut Command, input: &str) -> Result<Answer> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {shown}"))?;
    let mut stdin = child.stdin.take().context("its input is piped")?;
    let output = std::thread::scope(|scope| {
        // A program that ends without reading its input is not at fault.
        scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
        child.wait_with_output()
    });
    let output = output.with_context(|| format!("wait for {shown}"))?;
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    Ok(Answer {
        command: shown,
        code: output.status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default()),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A server that ends with its story.
pub struct Running(Child);

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// As `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill().context("kill a server")?;
        self.0.wait().context("wait for a server")?;
        Ok(())
    }

    /// Asks it to end, and demands that it ends well.
    pub fn stop(&mut self) -> Result<()> {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM).context("stop a server")?;
        let status = self.0.wait().context("wait for a server")?;
        ensure!(status.success(), "a server that was told to end ended with {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Starts a server; what it says goes to `log`.
pub fn start(command: &mut Command, log: &Path) -> Result<Running> {
    let log = std::fs::File::options().create(true).append(true).open(log).context("open a log")?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Running(command.spawn().with_context(|| format!("start {command:?}"))?))
}

/// The folder of the workspace.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The binary beside this test's, which `cargo test --workspace` has built: `main` has a test that needs it too.
pub fn ekso_binary() -> Result<PathBuf> {
    let this = std::env::current_exe().context("find this test")?;
    let built = this.ancestors().nth(2).context("the test is in target/PROFILE/deps")?.join("ekso");
    ensure!(built.exists(), "{} is missing: cargo build -p main", built.display());
    Ok(built)
}

/// kubectl of Kubernetes 1.`minor`.
pub fn kubectl_binary(minor: u32) -> Result<PathBuf> {
    let path = workspace().join(format!(".tmp/bin/kubectl-1.{minor}"));
    ensure!(path.exists(), "{} is missing: `make test` fetches it", path.display());
    Ok(path)
}

/// Where `make test` puts the clients that it fetches.
pub fn brought_folder() -> PathBuf {
    workspace().join(".tmp/bin")
}

/// AWS's command line.
pub fn aws_binary() -> Result<PathBuf> {
    let path = brought_folder().join("aws");
    ensure!(path.exists(), "{} is missing: `make test` fetches it", path.display());
    Ok(path)
}

/// A Python that has boto3.
pub fn python_binary() -> Result<PathBuf> {
    let path = brought_folder().join("python-boto3");
    ensure!(path.exists(), "{} is missing: `make test` fetches it", path.display());
    Ok(path)
}

/// A kernel with its modules and the ramdisk that finds the disk, where the distribution has the one that is fetched.
pub fn kernel_folder() -> Option<PathBuf> {
    Some(workspace().join(".tmp/kernel")).filter(|folder| folder.exists())
}

/// A program of this machine.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    match path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => bail!("{name} is missing: `make test` installs it"),
    }
}
