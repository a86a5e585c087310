//! File locks. The system ends them with the process that holds them, however it ends.
//!
//! Lock files are never deleted: a process could hold the lock of a deleted file while another locks a new one.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::files;

/// The first pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The longest pause between two tries: it bounds how late a waiter notices that the lock is free.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct FileLock {
    // Closing the file unlocks it.
    _file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    #[error("another process holds it")]
    Held,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes a lock, or tells that it is held.
pub(super) fn try_lock(path: &Path) -> Result<FileLock, LockError> {
    let file = files::lock_file(path)?;
    match file.try_lock() {
        Ok(()) => Ok(FileLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(LockError::Held),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Waits for a lock on this thread. Not `File::lock`, which would wait for ever for a process that is stopped.
pub(super) fn wait(path: &Path, most: Duration) -> Result<FileLock, LockError> {
    let end = Instant::now() + most;
    let mut pause = FIRST_PAUSE;
    loop {
        match try_lock(path) {
            Err(LockError::Held) if Instant::now() < end => std::thread::sleep(pause),
            other => return other,
        }
        pause = longer(pause);
    }
}

/// Waits for a lock without holding up the thread. Cancel safe: dropped, it has taken nothing.
pub(super) async fn wait_async(path: &Path, most: Duration) -> Result<FileLock, LockError> {
    let end = tokio::time::Instant::now() + most;
    let mut pause = FIRST_PAUSE;
    loop {
        match try_lock(path) {
            Err(LockError::Held) if tokio::time::Instant::now() < end => tokio::time::sleep(pause).await,
            other => return other,
        }
        pause = longer(pause);
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 3 / 2).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit() {
        let mut pause = FIRST_PAUSE;
        for _ in 0..20 {
            assert!(longer(pause) >= pause);
            pause = longer(pause);
        }
        assert_eq!(pause, LONGEST_PAUSE);
    }

    #[test]
    fn one_holder_at_a_time_and_waiting_ends() {
        let directory = std::env::temp_dir().join(format!("drawbridge-lock-{}", std::process::id()));
        files::private_directory(&directory).unwrap();
        let path = directory.join("l");
        let held = try_lock(&path).unwrap();
        assert!(matches!(try_lock(&path), Err(LockError::Held)));
        let begun = Instant::now();
        assert!(matches!(wait(&path, Duration::from_millis(30)), Err(LockError::Held)));
        assert!(begun.elapsed() >= Duration::from_millis(30));
        let waiting = {
            let path = path.clone();
            std::thread::spawn(move || wait(&path, Duration::from_secs(10)).is_ok())
        };
        std::thread::sleep(Duration::from_millis(20));
        drop(held);
        assert!(waiting.join().unwrap());
        assert!(path.exists(), "the file stays");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn waiting_does_not_stop_other_work() {
        let directory = std::env::temp_dir().join(format!("drawbridge-lock-async-{}", std::process::id()));
        files::private_directory(&directory).unwrap();
        let path = directory.join("l");
        let held = try_lock(&path).unwrap();
        let result = wait_async(&path, Duration::from_millis(30)).await;
        assert!(matches!(result, Err(LockError::Held)));
        let (result, ()) = tokio::join!(wait_async(&path, Duration::from_secs(60)), async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            drop(held);
        });
        assert!(result.is_ok());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
