//! A disk that fails on demand, under the real program: one that is really full, and one whose writes or syncs answer an
//! error.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use tempfile::TempDir;

/// What fails of the write-ahead log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Write,
    Sync,
}

/// A folder on a disk that fails when it is told to.
pub struct FailingDisk {
    // Goes away before the folder, in which it may be mounted.
    kind: Kind,
    folder: TempDir,
}

enum Kind {
    /// A library that is loaded into the program answers the error.
    Injected { library: PathBuf, operation: Operation, error: Errno },
    /// A small file system, which is unmounted with this value.
    Small(#[expect(dead_code, reason = "it is held")] Mount),
}

/// Bytes of a small disk: room for a database, and soon full.
const SMALL_DISK: &str = "size=4m";

impl FailingDisk {
    /// A disk of which `operation` answers `error`.
    pub fn injected(operation: Operation, error: Errno) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (source, library) = (folder.path().join("disk_errors.c"), folder.path().join("disk_errors.so"));
        fs::write(&source, include_str!("disk_errors.c")).expect("a source file");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let status = compile.status().expect("a C compiler: the build of the program needs one as well");
        assert!(status.success(), "the library does not compile");
        Self { kind: Kind::Injected { library, operation, error }, folder }
    }

    /// A disk that gets really full. None where this user may not mount.
    pub fn small() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mount = Mount::new(&["-t", "tmpfs", "-o", SMALL_DISK, "tmpfs"], folder.path())?;
        Some(Self { kind: Kind::Small(mount), folder })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a program on it needs in its environment.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        match &self.kind {
            Kind::Injected { library, .. } => {
                vec![("LD_PRELOAD", library.clone()), ("DISK_ERRORS_ORDER", self.order())]
            }
            Kind::Small(_) => Vec::new(),
        }
    }

    /// From now on it fails.
    pub fn fail(&self) {
        match &self.kind {
            Kind::Injected { operation, error, .. } => {
                let what = if *operation == Operation::Write { "write" } else { "sync" };
                let next = self.folder().join("order.next");
                fs::write(&next, format!("{what} {}", error.raw_os_error())).expect("an order");
                // In one step, so that nobody reads half of it.
                fs::rename(next, self.order()).expect("an order");
            }
            Kind::Small(_) => self.fill(),
        }
    }

    /// From now on it works.
    pub fn recover(&self) {
        fs::remove_file(self.order()).expect("it was failing");
    }

    /// Fills the disk to the last byte.
    fn fill(&self) {
        let mut file = fs::File::create(self.order()).expect("a file");
        for size in [65_536, 4_096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn order(&self) -> PathBuf {
        self.folder().join("order")
    }
}

/// Something that is mounted until this value is dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts at `at`. None where this user may not.
    pub fn new(arguments: &[&str], at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        let mounted = mount.args(arguments).arg(at).output().is_ok_and(|ended| ended.status.success());
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that a failed test left behind may still have files open there.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Says past the test harness, which would swallow it, that a test could not mount.
pub fn say_cannot_mount(test: &str) {
    let line = format!("NOT POSSIBLE HERE: {test} has to mount a file system; run it as root\n");
    // A closed standard error is no reason to fail.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
