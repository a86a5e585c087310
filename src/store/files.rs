//! Private files: only the user may look inside (H5), whatever the umask; replaced whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What temporary files end with.
const TEMPORARY: &str = ".tmp";
/// Names that are looked at when leftovers are removed.
const MAX_LISTED: usize = 4096;
/// How often a rename is tried on Windows, where a virus scanner may hold the file for a moment.
const RENAMES: u32 = if cfg!(windows) { 10 } else { 1 };
/// Bytes that are written at a time to reserve room.
const CHUNK: usize = 16 * 1024;

/// Whether a fault has nothing to do with the file: too many are open, in this process or on this machine.
pub(super) fn passes(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}

/// Whether something had to be closed to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It was private.
    Private,
    /// Others could look inside; they cannot any more.
    Mended,
}

/// Makes a directory that is ours alone, or makes it so.
pub(super) fn private_directory(path: &Path) -> io::Result<Mode> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    #[cfg(unix)]
    return mend(&File::open(path).or_else(|_| open_closed_directory(path))?, 0o700);
    // Windows opens no directory as a file, and nothing need be mended there.
    #[cfg(not(unix))]
    Ok(Mode::Private)
}

/// A directory of ours that an odd umask made unreadable to ourselves.
#[cfg(unix)]
fn open_closed_directory(path: &Path) -> io::Result<File> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    File::open(path)
}

/// Makes a file of ours private. On Windows the profile directory's access list does it.
#[cfg(unix)]
fn mend(file: &File, mode: u32) -> io::Result<Mode> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let metadata = file.metadata()?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    let found = metadata.permissions().mode() & 0o7777;
    if found == mode {
        return Ok(Mode::Private);
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    let open = found & 0o077;
    Ok(if open > 0 { Mode::Mended } else { Mode::Private })
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
fn mend(_: &File, _: u32) -> io::Result<Mode> {
    Ok(Mode::Private)
}

fn options() -> OpenOptions {
    #[allow(unused_mut, reason = "changed on Unix alone")]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // A link could lead to another's file.
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    }
    options
}

/// Reads a private file; `None` if there is none. One that is longer than `most` is an error.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Option<(Vec<u8>, Mode)>> {
    let file = match options().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    // A read-only home cannot be mended, but it can be read.
    let mode = match mend(&file, 0o600) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Mode::Private,
        mode => mode?,
    };
    let mut bytes = Vec::new();
    (&file).take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    Ok(Some((bytes, mode)))
}

/// Opens a lock file, made if need be. It is never written and never deleted.
pub(super) fn lock_file(path: &Path) -> io::Result<File> {
    let file = options().read(true).write(true).create(true).truncate(false).open(path)?;
    mend(&file, 0o600)?;
    Ok(file)
}

/// Writes a short private file in one go, in its place: a killed writer may leave it empty, and a power cut may take it.
pub(super) fn write_note(path: &Path, text: &[u8]) -> io::Result<()> {
    options().write(true).create(true).truncate(true).open(path)?.write_all(text)
}

/// A new file that takes the place of an old one when it is complete. Dropped before, it leaves nothing.
#[derive(Debug)]
pub(super) struct Replacement {
    file: Option<File>,
    temporary: PathBuf,
    target: PathBuf,
}

impl Replacement {
    /// Begins one beside the target.
    pub(super) fn begin(target: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.{count}{TEMPORARY}", std::process::id()));
        let temporary = target.with_file_name(name);
        // One of that name can only be the leftover of a dead process that had our number.
        let _ = fs::remove_file(&temporary);
        let file = options().write(true).create_new(true).open(&temporary)?;
        let replacement = Self { file: Some(file), temporary, target: target.to_owned() };
        mend(replacement.file()?, 0o600)?;
        Ok(replacement)
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Takes room on the disk, so that [`Replacement::finish`] does not run out of it.
    pub(super) fn reserve(&mut self, bytes: usize) -> io::Result<()> {
        let mut file = self.file()?;
        // Not zeros: some file systems keep no blocks for them.
        let chunk = [0xa5; CHUNK];
        let mut left = bytes;
        while left > 0 {
            let part = chunk.get(..left.min(CHUNK)).unwrap_or(&chunk);
            file.write_all(part)?;
            left -= part.len();
        }
        file.sync_data()
    }

    /// Writes, and puts it in the target's place: a reader sees the old file or the new one, also after a power cut.
    pub(super) fn finish(mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.file.take().ok_or(io::ErrorKind::InvalidInput)?;
        file.rewind()?;
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()?;
        drop(file);
        rename(&self.temporary, &self.target)?;
        sync_directory(&self.target)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        self.file = None;
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Puts a file in another's place.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let mut tries = 1;
    loop {
        match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && tries < RENAMES => {
                tries += 1;
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

/// Makes a rename last (POSIX leaves it to the directory's own fsync).
fn sync_directory(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(directory) if cfg!(unix) => File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}

/// Removes what killed processes left half-written. Only while no other process writes.
pub(super) fn remove_leftovers(target: &Path) {
    let (Some(directory), Some(name)) = (target.parent(), target.file_name()) else { return };
    let Ok(entries) = fs::read_dir(directory) else { return };
    let name = name.to_string_lossy();
    for entry in entries.take(MAX_LISTED).flatten() {
        let found = entry.file_name();
        let found = found.to_string_lossy();
        let numbers = found.strip_prefix(&*name).and_then(|rest| rest.strip_suffix(TEMPORARY));
        // Not those of a neighbour whose name begins alike: it has a lock of its own.
        if numbers.is_some_and(|rest| rest.starts_with('.') && rest.bytes().all(|it| it.is_ascii_digit() || it == b'.'))
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Moves a file out of the way under the first free of a few names; gives where it went.
pub(super) fn set_aside(path: &Path, why: &str) -> io::Result<PathBuf> {
    /// Files of one kind that are kept; after that the last is overwritten.
    const KEPT: u32 = 10;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{why}"));
    let mut aside = path.with_file_name(&name);
    for number in 2..=KEPT {
        if !aside.exists() {
            break;
        }
        let mut numbered = name.clone();
        numbered.push(format!("-{number}"));
        aside = path.with_file_name(numbered);
    }
    rename(path, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("drawbridge-files-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> =
                fs::read_dir(&self.0).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let directory = Directory::new("replace");
        private_directory(&directory.0).unwrap();
        let target = directory.0.join("f");
        assert!(read(&target, 100).unwrap().is_none());
        Replacement::begin(&target).unwrap().finish(b"old").unwrap();
        let mut given_up = Replacement::begin(&target).unwrap();
        given_up.reserve(3 * CHUNK + 5).unwrap();
        drop(given_up);
        assert_eq!(read(&target, 100).unwrap().unwrap(), (b"old".to_vec(), Mode::Private));
        let mut reserved = Replacement::begin(&target).unwrap();
        reserved.reserve(1000).unwrap();
        reserved.finish(b"new").unwrap();
        assert_eq!(read(&target, 3).unwrap().unwrap().0, b"new", "what was reserved is cut off");
        assert_eq!(read(&target, 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(directory.names(), ["f"]);
    }

    #[test]
    fn leftovers_go_and_neighbours_stay() {
        let directory = Directory::new("leftovers");
        private_directory(&directory.0).unwrap();
        for name in ["f", "f.lost", "f.1.0.tmp", "f.22.13.tmp", "f.key-a.1.0.tmp", "g.1.0.tmp", "fx.tmp"] {
            fs::write(directory.0.join(name), "x").unwrap();
        }
        remove_leftovers(&directory.0.join("f"));
        assert_eq!(directory.names(), ["f", "f.key-a.1.0.tmp", "f.lost", "fx.tmp", "g.1.0.tmp"]);
    }

    #[test]
    fn files_set_aside_are_bounded() {
        let directory = Directory::new("aside");
        private_directory(&directory.0).unwrap();
        for round in 0..15 {
            fs::write(directory.0.join("f"), round.to_string()).unwrap();
            set_aside(&directory.0.join("f"), "damaged").unwrap();
        }
        assert_eq!(directory.names().len(), 10);
        assert_eq!(fs::read(directory.0.join("f.damaged")).unwrap(), b"0", "the first stays");
        assert_eq!(fs::read(directory.0.join("f.damaged-10")).unwrap(), b"14");
    }

    #[cfg(unix)]
    #[test]
    fn what_others_could_read_is_closed() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let directory = Directory::new("modes");
        fs::create_dir_all(&directory.0).unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        set(&directory.0, 0o777);
        assert_eq!(private_directory(&directory.0).unwrap(), Mode::Mended);
        assert_eq!(private_directory(&directory.0).unwrap(), Mode::Private);
        assert_eq!(mode(&directory.0), 0o700);
        let file = directory.0.join("f");
        fs::write(&file, "x").unwrap();
        set(&file, 0o644);
        assert_eq!(read(&file, 10).unwrap().unwrap().1, Mode::Mended);
        assert_eq!((mode(&file), read(&file, 10).unwrap().unwrap().1), (0o600, Mode::Private));
        set(&file, 0o400);
        assert_eq!(read(&file, 10).unwrap().unwrap().1, Mode::Private, "nobody else could read it");
        let lock = directory.0.join("l");
        fs::write(&lock, "").unwrap();
        set(&lock, 0o666);
        lock_file(&lock).unwrap();
        assert_eq!(mode(&lock), 0o600);
        symlink(&file, directory.0.join("link")).unwrap();
        assert!(read(&directory.0.join("link"), 10).is_err(), "no link is followed");
        assert!(lock_file(&directory.0.join("link")).is_err());
        assert!(read(&directory.0, 10).is_err(), "a directory is no file");
    }
}
