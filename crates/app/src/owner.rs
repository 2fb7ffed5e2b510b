//! Whose home the command works in: the user behind sudo, else whoever runs it.

use std::path::PathBuf;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The person at the keyboard.
#[derive(Clone, Debug)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    pub home: Option<PathBuf>,
}

impl Owner {
    pub fn current() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        let is_root = rustix::process::geteuid().is_root();
        match (number("SUDO_UID"), number("SUDO_GID")) {
            (Some(uid), Some(gid)) if is_root && uid != 0 => Self { uid, gid, home: home_of(uid) },
            _ => Self::this_process(),
        }
    }

    /// Whoever the process runs as, whatever sudo says.
    pub fn this_process() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            home: std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute()),
        }
    }

    /// Runs a piece of work on a thread that has this user's rights and no more.
    pub fn with_rights<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        if self.uid == rustix::process::geteuid().as_raw() {
            return work();
        }
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.drop_rights();
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Only this thread's ids change: the system call is the thread's own, unlike libc's.
    #[expect(clippy::expect_used, reason = "going on with root's rights would be worse than ending")]
    fn drop_rights(&self) {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&[gid]).expect("root may leave its groups");
        set_thread_res_gid(gid, gid, gid).expect("root may take a user's group");
        set_thread_res_uid(uid, uid, uid).expect("root may take a user's rights");
    }
}

/// The home folder in /etc/passwd. NSS is not asked: a static binary has none.
fn home_of(uid: u32) -> Option<PathBuf> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields.get(5).map(PathBuf::from))?
    })
}
