//! Streams to and from a process in a container.

use crate::connection::{CallError, Connection};
use crate::protocol::Call;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

pub type Reader = Box<dyn AsyncRead + Send + Sync + Unpin>;
pub type Writer = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// The client's ends of what a process reads and writes. With a terminal there is no stderr.
///
/// Dropping `stdin` closes it. A reader ends when everybody who could write has gone.
pub struct Streams {
    pub stdin: Option<Writer>,
    pub stdout: Option<Reader>,
    pub stderr: Option<Reader>,
    /// With a terminal.
    pub resizer: Option<Resizer>,
}

/// Changes the size of a terminal.
#[derive(Clone)]
pub struct Resizer(Place);

#[derive(Clone)]
enum Place {
    Here(Arc<AsyncFd<OwnedFd>>),
    Monitor { connection: Arc<Connection>, container: String },
}

impl Resizer {
    pub(crate) fn through(connection: Arc<Connection>, container: String) -> Resizer {
        Resizer(Place::Monitor { connection, container })
    }

    /// # Errors
    /// The process, or its container's monitor, is gone.
    pub async fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        match &self.0 {
            Place::Here(terminal) => {
                let size =
                    rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                Ok(rustix::termios::tcsetwinsize(terminal.get_ref(), size)?)
            }
            Place::Monitor { connection, container } => {
                let call = Call::Resize { container: container.clone(), columns, rows };
                match connection.call(call, &[]).await {
                    Ok(_) => Ok(()),
                    Err(CallError::Gone) => Err(io::ErrorKind::BrokenPipe.into()),
                    Err(CallError::Refused(message)) => Err(io::Error::other(message)),
                }
            }
        }
    }
}

/// Pipes as somebody asked for them: our ends, and the descriptors for the other side in the order stdin, stdout,
/// stderr.
pub(crate) struct Pipes {
    pub stdin: Option<pipe::Sender>,
    pub stdout: Option<pipe::Receiver>,
    pub stderr: Option<pipe::Receiver>,
    pub theirs: Vec<OwnedFd>,
}

/// `null`: what is not asked for is /dev/null on the other side, else it is not there.
pub(crate) fn pipes(stdin: bool, stdout: bool, stderr: bool, null: bool) -> io::Result<Pipes> {
    let mut pipes = Pipes { stdin: None, stdout: None, stderr: None, theirs: Vec::new() };
    let make = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let dev_null = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    if stdin {
        let (theirs, ours) = make()?;
        pipes.stdin = Some(pipe::Sender::from_owned_fd(ours)?);
        pipes.theirs.push(theirs);
    } else if null {
        pipes.theirs.push(dev_null()?);
    }
    for (wanted, place) in [(stdout, &mut pipes.stdout), (stderr, &mut pipes.stderr)] {
        if wanted {
            let (ours, theirs) = make()?;
            *place = Some(pipe::Receiver::from_owned_fd(ours)?);
            pipes.theirs.push(theirs);
        } else if null {
            pipes.theirs.push(dev_null()?);
        }
    }
    Ok(pipes)
}

impl Pipes {
    pub fn into_streams(self, resizer: Option<Resizer>) -> Streams {
        Streams {
            stdin: self.stdin.map(|stdin| Box::new(stdin) as Writer),
            stdout: self.stdout.map(|stdout| Box::new(stdout) as Reader),
            stderr: self.stderr.map(|stderr| Box::new(stderr) as Reader),
            resizer,
        }
    }
}

/// Both directions of a terminal whose master is ours.
pub(crate) fn terminal(master: OwnedFd) -> io::Result<Streams> {
    rustix::io::ioctl_fionbio(&master, true)?;
    // SAFETY: the descriptor is owned, and stays open until the AsyncFd drops it.
    let master = Arc::new(unsafe { AsyncFd::register(master) }?);
    Ok(Streams {
        stdin: Some(Box::new(Terminal(master.clone()))),
        stdout: Some(Box::new(Terminal(master.clone()))),
        stderr: None,
        resizer: Some(Resizer(Place::Here(master))),
    })
}

struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context, buffer: &mut ReadBuf) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.as_fd(), buffer.initialize_unfilled())?));
            match read {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // The last user of the slave is gone: the end.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.as_fd(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal has no half that could be closed: the end of input is a character (^D).
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
