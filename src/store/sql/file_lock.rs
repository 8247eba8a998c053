//! The SQLite file belongs to one process: two nodes on one file would each answer from memory without the other's
//! revocations. The kernel gives the lock back when the process ends, however it ends.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::OpenError;
use super::target::SqliteFile;

/// Who may read what this program makes: its own user. The database holds password hashes.
const OWNER_ONLY: u32 = 0o600;

/// The right to use one database file; held until dropped.
#[derive(Debug)]
pub(super) struct FileLock {
    _held: File,
}

impl FileLock {
    /// Takes `database` for this process by a lock on the file `<database>.lock` beside it. A database that shall be made
    /// if it is missing is made here: only then is it known where a symbolic link leads to.
    pub(super) fn take(database: &SqliteFile) -> Result<Self, OpenError> {
        if database.create {
            open(&database.path)?;
        }
        let path = lock_path(&database.path);
        let file = open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _held: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Taken(database.path.clone())),
            Err(error) => Err(cannot_write(&path, &error)),
        }
    }
}

/// Opens a file as it is, or makes an empty one.
fn open(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    let opened = options.create(true).truncate(false).write(true).mode(OWNER_ONLY).open(path);
    opened.map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &dyn std::fmt::Display) -> OpenError {
    OpenError::BadUrl(format!("{} cannot be written: {error}", path.display()))
}

/// Beside the real file, so that a symbolic link to it leads to the same lock.
fn lock_path(database: &Path) -> PathBuf {
    let real = database.canonicalize().unwrap_or_else(|_| database.to_owned());
    let mut path = OsString::from(real);
    path.push(".lock");
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn take(path: &Path) -> Result<FileLock, OpenError> {
        FileLock::take(&SqliteFile { path: path.to_owned(), create: true })
    }

    #[test]
    fn a_file_is_taken_once_also_through_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("a.db"), dir.path().join("b.db"));
        std::fs::write(&file, "").expect("a file");
        symlink(&file, &link).expect("a link");
        let held = take(&file).expect("free");
        assert!(matches!(take(&link), Err(OpenError::Taken(path)) if path == link));
        drop(held);
        assert!(take(&link).is_ok());
        assert!(matches!(take(&dir.path().join("none/a.db")), Err(OpenError::BadUrl(_))));
    }

    #[test]
    fn a_link_that_leads_to_nothing_yet_is_no_way_around_the_lock() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("a.db"), dir.path().join("b.db"));
        symlink(&file, &link).expect("a link");
        let _held = take(&link).expect("free");
        assert!(matches!(take(&file), Err(OpenError::Taken(_))));
        assert!(matches!(take(&link), Err(OpenError::Taken(_))));
    }

    #[test]
    fn what_is_made_is_for_its_owner_alone_and_only_made_when_asked_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.db");
        drop(FileLock::take(&SqliteFile { path: path.clone(), create: false }).expect("free"));
        assert!(!path.exists());
        drop(take(&path).expect("free"));
        for made in [path.clone(), lock_path(&path)] {
            assert_eq!(made.metadata().expect("it is there").permissions().mode() & 0o777, OWNER_ONLY);
        }
    }
}
