//! The process's surroundings: signals, the parent, core dumps, open files. The only place that differs by system, beside `stdio`.

use std::io;

/// Being told to end.
pub struct Ends {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 3],
}

impl Ends {
    /// Listens from now on.
    pub fn new() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                signals: [
                    signal(SignalKind::terminate())?,
                    signal(SignalKind::interrupt())?,
                    signal(SignalKind::hangup())?,
                ],
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits until it happens. Cancel safe.
    pub async fn told(&mut self) {
        #[cfg(unix)]
        {
            let [terminate, interrupt, hangup] = &mut self.signals;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The process that started us. stdin ends with it, unless somebody else holds the pipe open.
pub struct Parent {
    #[cfg(target_os = "linux")]
    watched: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
}

impl Parent {
    /// Watches it where the system can do so without a timer.
    pub fn watch() -> Self {
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open};
            let parent = getppid().filter(|pid| *pid != Pid::INIT);
            let handle = parent.and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok());
            let watched = handle.and_then(|handle| watch_fd(handle, tokio::io::Interest::READABLE).ok());
            Self { watched }
        }
        #[cfg(not(target_os = "linux"))]
        Self {}
    }

    /// Waits until it is gone.
    pub async fn gone(&self) {
        #[cfg(target_os = "linux")]
        if let Some(watched) = &self.watched
            && watched.readable().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// A core dump would hold headers and tokens (H5). Best effort.
pub fn forbid_core_dumps() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    }
}

/// Many calls at a time are many connections over HTTP/1.1; some systems allow 256 files at first but more on demand.
pub fn raise_open_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        const WANTED: u64 = 4096;
        let limit = getrlimit(Resource::Nofile);
        let wanted = limit.maximum.map_or(WANTED, |most| most.min(WANTED));
        if limit.current.is_some_and(|current| current < wanted) {
            let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
        }
    }
}

/// Registers a descriptor with the event loop.
#[cfg(unix)]
#[expect(
    deprecated,
    reason = "deprecated because a type could lie about its descriptor; `OwnedFd` cannot, and the replacement is `unsafe`"
)]
pub(crate) fn watch_fd(
    fd: std::os::fd::OwnedFd,
    interest: tokio::io::Interest,
) -> io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    tokio::io::unix::AsyncFd::with_interest(fd, interest)
}
