//! The SQLite file belongs to one process: two nodes on one file would each answer from memory without the other's
//! revocations. The kernel gives the locks back when the process ends, however it ends.
//!
//! Two locks: one on a file beside the database, which a database that takes the place of another one is under as well; and
//! one on the database file itself, which holds by whatever name it is reached (a hard link, a bind mount) and when the
//! other one is deleted. SQLite locks with `fcntl`, which neither sees these locks nor is seen by them, but closing any
//! descriptor of the file would drop SQLite's. So the descriptor here stays open for as long as the database is, and no
//! file that this process has taken is opened a second time.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};

use super::error::OpenError;
use super::target::SqliteFile;

/// Who may read what this program makes: its own user. The database holds password hashes.
const OWNER_ONLY: u32 = 0o600;

/// The files beside a database in which what was committed last lies, and by which connections agree on it.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// The right to use one database file; held until dropped.
#[derive(Debug)]
pub(super) struct FileLock {
    // In this order: nobody else in this process may open the file before it is closed here.
    _beside: File,
    _database: Option<File>,
    _taken: Option<Taken>,
}

impl FileLock {
    /// Takes `database` for this process. A database that shall be made if it is missing is made here: only then is it
    /// known where a symbolic link leads to.
    pub(super) fn take(database: &SqliteFile) -> Result<Self, OpenError> {
        if database.create && !database.path.exists() {
            open(&database.path)?;
        }
        let beside_path = beside(&database.path, ".lock");
        let beside = open(&beside_path)?;
        lock(&beside, &beside_path, database)?;
        let Ok(found) = database.path.metadata() else {
            // SQLite will not make it either, and says so.
            return Ok(Self { _beside: beside, _database: None, _taken: None });
        };
        let taken = Taken::new(FileId::of(&found)).ok_or_else(|| OpenError::Taken(database.path.clone()))?;
        let file = open(&database.path)?;
        lock(&file, &database.path, database)?;
        Ok(Self { _beside: beside, _database: Some(file), _taken: Some(taken) })
    }
}

/// Opens a file as it is, or makes an empty one.
fn open(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    let opened = options.create(true).truncate(false).write(true).mode(OWNER_ONLY).open(path);
    opened.map_err(|error| cannot_write(path, &error))
}

fn lock(file: &File, path: &Path, database: &SqliteFile) -> Result<(), OpenError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Taken(database.path.clone())),
        Err(error) => Err(cannot_write(path, &error)),
    }
}

fn cannot_write(path: &Path, error: &dyn std::fmt::Display) -> OpenError {
    OpenError::BadUrl(format!("{} cannot be written: {error}", path.display()))
}

/// A file beside the real database file, as SQLite names it: a symbolic link leads to the same one.
fn beside(database: &Path, ending: &str) -> PathBuf {
    let real = database.canonicalize().unwrap_or_else(|_| database.to_owned());
    let mut path = OsString::from(real);
    path.push(ending);
    PathBuf::from(path)
}

/// What tells a file from every other one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }
}

/// The database files that this process has taken.
static ALL_TAKEN: Mutex<BTreeSet<FileId>> = Mutex::new(BTreeSet::new());

/// A file that this process has taken, until dropped.
#[derive(Debug)]
struct Taken(FileId);

impl Taken {
    /// None where it was taken already.
    fn new(file: FileId) -> Option<Self> {
        let is_new = all_taken().insert(file);
        is_new.then(|| Self(file))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        all_taken().remove(&self.0);
    }
}

fn all_taken() -> MutexGuard<'static, BTreeSet<FileId>> {
    ALL_TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The files of an open database, to notice that one of them was deleted or replaced. Whatever is written to such a file
/// later is acknowledged, and gone after a restart.
#[derive(Debug)]
pub(super) struct FileWatch {
    files: Vec<(PathBuf, FileId)>,
}

impl FileWatch {
    /// Watches the files of `database`, of which a connection is open and stays open: else SQLite would delete and make anew
    /// those beside it, as it likes.
    pub(super) fn new(database: &Path) -> Self {
        let companions = COMPANIONS.map(|ending| beside(database, ending));
        let all = std::iter::once(database.to_owned()).chain(companions);
        let files = all.filter_map(|path| {
            let id = FileId::of(&path.metadata().ok()?);
            Some((path, id))
        });
        Self { files: files.collect() }
    }

    /// What to tell where a file is not the one any more that was opened.
    pub(super) fn check(&self) -> Result<(), String> {
        for (path, id) in &self.files {
            let what = match path.metadata() {
                Ok(found) if FileId::of(&found) == *id => continue,
                Ok(_) => "was replaced".to_owned(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => "was deleted".to_owned(),
                Err(error) => format!("cannot be looked at ({error})"),
            };
            return Err(format!(
                "{} {what} while this node has it open: put the file back that was there, or restart the node",
                path.display()
            ));
        }
        Ok(())
    }
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
    fn a_file_is_taken_once_also_through_a_hard_link_or_without_the_lock_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("a.db"), dir.path().join("b.db"));
        let held = take(&file).expect("free");
        std::fs::hard_link(&file, &link).expect("a link");
        assert!(matches!(take(&link), Err(OpenError::Taken(_))));
        std::fs::remove_file(beside(&file, ".lock")).expect("it is there");
        assert!(matches!(take(&file), Err(OpenError::Taken(_))));
        drop(held);
        assert!(take(&link).is_ok());
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
        for made in [path.clone(), beside(&path, ".lock")] {
            assert_eq!(made.metadata().expect("it is there").permissions().mode() & 0o777, OWNER_ONLY);
        }
    }

    #[test]
    fn a_file_that_is_not_the_one_any_more_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.db");
        let log = beside(&path, "-wal");
        std::fs::write(&path, "").expect("a file");
        std::fs::write(&log, "").expect("a file");
        let watch = FileWatch::new(&path);
        for file in [&path, &log] {
            assert_eq!(watch.check(), Ok(()));
            let away = dir.path().join("away");
            std::fs::rename(file, &away).expect("moved");
            assert!(watch.check().is_err_and(|why| why.contains("was deleted")));
            std::fs::write(file, "").expect("a file");
            assert!(watch.check().is_err_and(|why| why.contains("was replaced")));
            std::fs::rename(&away, file).expect("put back");
        }
        assert_eq!(watch.check(), Ok(()), "nothing was lost meanwhile");
    }
}
