//! The store with its lock: the one way to write.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;

use zeroize::Zeroizing;

use super::files::Replacement;
use super::sealed::{self, Header};
use super::{Contents, Disk, FileLock, Key, MAX_FILE, OverLimit, ROOM, Store, StoreError, no_disk};

/// The store with its lock. Changes are gone unless they are committed.
#[derive(Debug)]
pub struct LockedStore<'a> {
    pub(super) store: &'a Store,
    pub(super) guard: Guard<'a>,
    pub(super) contents: Contents,
    pub(super) room: Option<Replacement>,
}

#[derive(Debug)]
pub(super) enum Guard<'a> {
    Disk { disk: &'a Disk, _lock: FileLock, header: Header, key: Key },
    Memory(MutexGuard<'a, Option<Contents>>),
}

impl LockedStore<'_> {
    /// Takes room on the disk for what will be written. Before a refresh token is redeemed, this makes it all but sure
    /// that its successor can be stored (A6); the token should not be redeemed if it fails.
    pub fn reserve(&mut self) -> Result<(), StoreError> {
        if let Guard::Disk { disk, header, key, .. } = &self.guard {
            let size = seal(*header, key, &self.contents).map_err(StoreError::NotSaved)?.len();
            let mut room = Replacement::begin(&disk.sealed).map_err(StoreError::NotSaved)?;
            room.reserve(size + ROOM).map_err(StoreError::NotSaved)?;
            self.room = Some(room);
        }
        Ok(())
    }

    /// Writes, and gives the lock back. When this returns, the change is on the disk.
    pub fn commit(self) -> Result<(), StoreError> {
        self.contents.check()?;
        match self.guard {
            Guard::Memory(mut memory) => {
                *memory = Some(self.contents);
                Ok(())
            }
            Guard::Disk { disk, _lock: lock, header, key } => {
                let bytes = seal(header, &key, &self.contents).map_err(StoreError::NotSaved)?;
                if bytes.len() > MAX_FILE {
                    return Err(OverLimit::File.into());
                }
                let file = self.room.map_or_else(|| Replacement::begin(&disk.sealed), Ok);
                let written = file.and_then(|file| file.finish(&bytes));
                drop(lock);
                written.map_err(|error| {
                    self.store.leave_disk(&no_disk(disk, &error), self.contents);
                    StoreError::NotSaved(error)
                })
            }
        }
    }
}

impl Deref for LockedStore<'_> {
    type Target = Contents;

    fn deref(&self) -> &Contents {
        &self.contents
    }
}

impl DerefMut for LockedStore<'_> {
    fn deref_mut(&mut self) -> &mut Contents {
        &mut self.contents
    }
}

/// The bytes of the file. The plain text never moves in memory, so no copy is left of it.
pub(super) fn seal(header: Header, key: &Key, contents: &Contents) -> io::Result<Vec<u8>> {
    let mut size = Count(0);
    serde_json::to_writer(&mut size, contents)?;
    let mut plain = Zeroizing::new(Vec::with_capacity(size.0));
    serde_json::to_writer(&mut *plain, contents)?;
    sealed::seal(header, key, plain).map_err(io::Error::other)
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
