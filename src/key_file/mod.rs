//! The token key ring on disk: made once, read by its owner only, and grown without a moment in which it is incomplete.
//!
//! Whoever holds this file and the database can still not sign in, but whoever loses it signs everybody out. So it is
//! never overwritten in place, and everything is on the disk before anybody is told that it is done.

mod access;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use self::access::{FileAccess, NotPrivate, Reader};
use crate::domain::token::{KeyId, KeyRing, KeyRingError, TokenKey};
use crate::host::{Entropy, random};

/// The number of the first key of a new ring, where nobody asks for another.
const FIRST_KEY: KeyId = KeyId(1);
/// Far above the largest ring with comments, far below what would hurt to read.
const FILE_BYTES_MAX: u64 = 64 * 1_024;

/// Why a key file cannot be used, and what to do about it. Never repeats a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is one already.
    #[error("{} exists and is not overwritten: to add a new key to it, run `latchkey key add {}`", .0.display(), .0.display())]
    Exists(PathBuf),
    /// There is none.
    #[error("there is no key file {}: make one with `latchkey key new {}`", .0.display(), .0.display())]
    Missing(PathBuf),
    /// Everybody may read or write it, or its group may write it.
    #[error(
        "the key file {} is open to other users (mode {mode:03o}): run `chmod 600 {}`, or chmod 640 where its group is one \
         of this process; for a Kubernetes Secret set `defaultMode: 0400` and the pod's `fsGroup`",
        path.display(), path.display()
    )]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A group that this process is not in may read it.
    #[error(
        "the key file {} can be read by group {group}, which this process is not in (mode {mode:03o}): run \
         `chmod 600 {}`, or run this process in that group (in Kubernetes: the pod's `fsGroup` or `supplementalGroups`)",
        path.display(), path.display()
    )]
    ForeignGroup {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its group.
        group: u32,
    },
    /// Somebody who is neither root nor this process's user may change it.
    #[error(
        "the key file {} belongs to user {owner}, who can change it, and this process runs as user {user}: run \
         `chown {user} {}`, or give it to root",
        path.display(), path.display()
    )]
    ForeignOwner {
        /// Which.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who reads it.
        user: u32,
    },
    /// The machine does not let this process read it.
    #[error(
        "this process (user {user}) may not read the key file {}: run `chown {user} {}`, or give it to a group of this \
         process with mode 440 (in Kubernetes: the pod's `fsGroup`)",
        path.display(), path.display()
    )]
    Denied {
        /// Which.
        path: PathBuf,
        /// Who reads it.
        user: u32,
    },
    /// Somebody else is changing the ring, or was interrupted in it.
    #[error("{} is in the way: another `latchkey key` is running, or was interrupted; if none is running, remove it", .0.display())]
    Busy(PathBuf),
    /// Its content is not a key ring.
    #[error("the key file {}: {source}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: KeyRingError,
    },
    /// The machine does not do it.
    #[error("the key file {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes a ring of one new key, under `number` or under 1. A file that exists is left as it is.
pub fn create(path: &Path, number: Option<KeyId>, entropy: &dyn Entropy) -> Result<KeyRing, KeyFileError> {
    let ring = KeyRing::new(vec![TokenKey::new(number.unwrap_or(FIRST_KEY), random(entropy))])
        .map_err(|source| KeyFileError::Content { path: path.to_owned(), source })?;
    let mut file = open_new(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => KeyFileError::Exists(path.to_owned()),
        _ => io_error(path)(error),
    })?;
    write(&mut file, &ring).and_then(|()| sync_folder(path)).map_err(|error| {
        // A ring that may be incomplete must not be found by the next start.
        _ = fs::remove_file(path);
        io_error(path)(error)
    })?;
    Ok(ring)
}

/// Reads a ring, if nobody can but root, the user of this process and one of its groups.
pub fn read(path: &Path) -> Result<KeyRing, KeyFileError> {
    let (file, reader) = (File::open(path), Reader::this_process());
    let file = file.map_err(|error| match error.kind() {
        ErrorKind::NotFound => KeyFileError::Missing(path.to_owned()),
        ErrorKind::PermissionDenied => KeyFileError::Denied { path: path.to_owned(), user: reader.user },
        _ => io_error(path)(error),
    })?;
    // Of the file that was opened, whatever links lead to it.
    let access = FileAccess::of(&file.metadata().map_err(io_error(path))?);
    access.check(&reader).map_err(|why| not_private(why, path.to_owned(), access, &reader))?;
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(io_error(path))?;
    KeyRing::parse(&text).map_err(|source| KeyFileError::Content { path: path.to_owned(), source })
}

/// Reads the ring, or makes it if there is none; says whether it was made.
pub fn load_or_create(path: &Path, entropy: &dyn Entropy) -> Result<(KeyRing, bool), KeyFileError> {
    match read(path) {
        Err(KeyFileError::Missing(_)) => {}
        read => return read.map(|ring| (ring, false)),
    }
    match create(path, None, entropy) {
        // Another process was faster; its ring is as good.
        Err(KeyFileError::Exists(_)) => read(path).map(|ring| (ring, false)),
        created => created.map(|ring| (ring, true)),
    }
}

/// Adds a new key that verifies and does not sign yet, under `number` or under the next one that is free.
pub fn add(path: &Path, number: Option<KeyId>, entropy: &dyn Entropy) -> Result<KeyRing, KeyFileError> {
    change(path, |ring| ring.with_new_key(number, random(entropy)))
}

/// Lets another key of the ring sign; the others still verify.
pub fn promote(path: &Path, id: KeyId) -> Result<KeyRing, KeyFileError> {
    change(path, |ring| ring.promote(id))
}

/// Takes a key that does not sign out of the ring.
pub fn remove(path: &Path, id: KeyId) -> Result<KeyRing, KeyFileError> {
    change(path, |ring| ring.remove(id))
}

/// Replaces the file as a whole, or not at all.
fn change(
    path: &Path,
    how: impl FnOnce(KeyRing) -> Result<KeyRing, KeyRingError>,
) -> Result<KeyRing, KeyFileError> {
    // The file itself is replaced, not a link to it.
    let path = &match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(KeyFileError::Missing(path.to_owned()));
        }
        Err(error) => return Err(io_error(path)(error)),
    };
    let mut beside = OsString::from(path);
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // Opened before the ring is read, so that of two runs at once none loses the key of the other.
    let mut file = open_new(&beside).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => KeyFileError::Busy(beside.clone()),
        _ => io_error(&beside)(error),
    })?;
    let changed = read(path)
        .and_then(|ring| how(ring).map_err(|source| KeyFileError::Content { path: path.to_owned(), source }));
    let replaced = changed.and_then(|ring| {
        let written = same_access(&file, path).and_then(|()| write(&mut file, &ring));
        let written = written.and_then(|()| fs::rename(&beside, path));
        written.and_then(|()| sync_folder(path)).map_err(io_error(path))?;
        Ok(ring)
    });
    if replaced.is_err() {
        _ = fs::remove_file(&beside);
    }
    replaced
}

fn open_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn write(file: &mut File, ring: &KeyRing) -> io::Result<()> {
    file.write_all(ring.to_text().as_bytes())?;
    file.sync_all()
}

/// Lets those read the new file who may read the one at `path`: nodes may reach it by its group.
fn same_access(file: &File, path: &Path) -> io::Result<()> {
    let (new, old) = (FileAccess::of(&file.metadata()?), FileAccess::of(&fs::metadata(path)?));
    if (new.owner, new.group) != (old.owner, old.group) {
        fchown(file, Some(old.owner), Some(old.group))?;
    }
    file.set_permissions(fs::Permissions::from_mode(old.mode))
}

fn not_private(why: NotPrivate, path: PathBuf, access: FileAccess, reader: &Reader) -> KeyFileError {
    let FileAccess { owner, group, mode } = access;
    match why {
        NotPrivate::Exposed => KeyFileError::Exposed { path, mode },
        NotPrivate::ForeignGroup => KeyFileError::ForeignGroup { path, mode, group },
        NotPrivate::ForeignOwner => KeyFileError::ForeignOwner { path, owner, user: reader.user },
    }
}

/// The name of a new file is durable only once its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> KeyFileError {
    move |source| KeyFileError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::SeededEntropy;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("latchkey.key");
        (folder, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("a file").permissions().mode() & 0o777
    }

    fn ids(ring: &KeyRing) -> Vec<u8> {
        ring.keys().iter().map(|key| key.id().0).collect()
    }

    #[test]
    fn a_new_file_is_its_owners_and_reads_back() {
        let (_folder, path) = folder();
        let made = create(&path, None, &SeededEntropy::new(1)).expect("made");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(read(&path).expect("read").keys()[0].fingerprint(), made.keys()[0].fingerprint());
        assert_eq!(ids(&made), [1]);
        let other = path.with_extension("other");
        assert_eq!(ids(&create(&other, Some(KeyId(7)), &SeededEntropy::new(1)).expect("made")), [7]);
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let (_folder, path) = folder();
        fs::write(&path, "mine").expect("written");
        let refused = create(&path, None, &SeededEntropy::new(1)).expect_err("refused").to_string();
        assert!(refused.contains("latchkey key add"), "{refused}");
        assert_eq!(fs::read_to_string(&path).expect("read"), "mine");
    }

    #[test]
    fn a_file_that_others_can_touch_is_refused_with_the_command_that_mends_it() {
        let (_folder, path) = folder();
        create(&path, None, &SeededEntropy::new(1)).expect("made");
        for open in [0o660, 0o604, 0o620, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open)).expect("changed");
            let refused = read(&path).expect_err("refused").to_string();
            assert!(refused.contains(&format!("chmod 600 {}", path.display())), "{refused}");
            assert!(add(&path, None, &SeededEntropy::new(2)).is_err());
        }
        for private in [0o400, 0o440, 0o640] {
            fs::set_permissions(&path, fs::Permissions::from_mode(private)).expect("changed");
            assert!(read(&path).is_ok(), "the group is one of this process");
        }
        add(&path, None, &SeededEntropy::new(2)).expect("added");
        assert_eq!(mode(&path), 0o640, "who could read it still can");
    }

    #[test]
    fn a_ring_is_grown_turned_and_shrunk_through_a_link() {
        let (folder, path) = folder();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        let first = create(&path, None, &SeededEntropy::new(1)).expect("made");
        add(&link, None, &SeededEntropy::new(2)).expect("added");
        let grown = read(&path).expect("read");
        assert_eq!(ids(&grown), [1, 2]);
        assert_eq!(grown.keys()[0].fingerprint(), first.keys()[0].fingerprint());
        promote(&link, KeyId(2)).expect("promoted");
        assert_eq!(ids(&read(&path).expect("read")), [2, 1]);
        assert!(matches!(remove(&link, KeyId(2)), Err(KeyFileError::Content { .. })), "it signs");
        remove(&link, KeyId(1)).expect("removed");
        assert_eq!(ids(&read(&path).expect("read")), [2]);
        assert_eq!(mode(&path), 0o600);
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 2, "nothing is left behind");
    }

    #[test]
    fn an_interrupted_addition_is_named_and_leaves_the_ring_alone() {
        let (folder, path) = folder();
        create(&path, None, &SeededEntropy::new(1)).expect("made");
        fs::write(folder.path().join("latchkey.key.new"), "").expect("written");
        let refused = add(&path, None, &SeededEntropy::new(2)).expect_err("refused");
        assert!(matches!(refused, KeyFileError::Busy(_)), "{refused}");
        assert_eq!(ids(&read(&path).expect("read")), [1]);
    }

    #[test]
    fn a_refused_addition_leaves_nothing_behind() {
        let (folder, path) = folder();
        create(&path, None, &SeededEntropy::new(1)).expect("made");
        for seed in 2..=8 {
            add(&path, None, &SeededEntropy::new(seed)).expect("added");
        }
        assert!(matches!(add(&path, None, &SeededEntropy::new(9)), Err(KeyFileError::Content { .. })));
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
        assert_eq!(read(&path).expect("read").keys().len(), 8);
    }

    #[test]
    fn the_first_start_makes_a_ring_and_the_next_finds_it() {
        let (_folder, path) = folder();
        let (made, created) = load_or_create(&path, &SeededEntropy::new(1)).expect("made");
        assert!(created);
        let (found, created) = load_or_create(&path, &SeededEntropy::new(2)).expect("found");
        assert!(!created);
        assert_eq!(found.keys()[0].fingerprint(), made.keys()[0].fingerprint());
    }

    #[test]
    fn what_is_not_a_ring_is_refused_and_not_replaced() {
        let (_folder, path) = folder();
        for content in ["", "marker"] {
            _ = fs::remove_file(&path);
            open_new(&path).and_then(|mut file| file.write_all(content.as_bytes())).expect("written");
            let refused = load_or_create(&path, &SeededEntropy::new(1)).expect_err("refused").to_string();
            assert!(refused.contains("latchkey.key: ") && !refused.contains("marker"), "{refused}");
            assert_eq!(fs::read_to_string(&path).expect("read"), content);
        }
        assert!(matches!(read(&path.join("no")), Err(KeyFileError::Io { .. })));
        let missing = read(&path.with_extension("x")).expect_err("missing").to_string();
        assert!(missing.contains("latchkey key new"), "{missing}");
    }
}
