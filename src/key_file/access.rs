//! Who else can read or write a key file: decided from its owner, group and mode, without touching the disk.
//!
//! A Kubernetes Secret is mounted as root's, readable by the group of the pod (`fsGroup`); such a file is as private as one
//! of mode 600.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use rustix::process::{getegid, geteuid, getgroups};

const GROUP_READS: u32 = 0o040;
const GROUP_WRITES_OR_RUNS: u32 = 0o030;
const OTHERS: u32 = 0o007;

/// Owner, group and permissions of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileAccess {
    pub(super) owner: u32,
    pub(super) group: u32,
    pub(super) mode: u32,
}

/// As whom this process reads files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reader {
    pub(super) user: u32,
    pub(super) groups: Vec<u32>,
}

/// Why a file is not private to its reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotPrivate {
    /// Everybody can read or write it, or its group can write it.
    Exposed,
    /// A group can read it that the reader is not in.
    ForeignGroup,
    /// It belongs to a user who is neither the reader nor root.
    ForeignOwner,
}

impl FileAccess {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { owner: metadata.uid(), group: metadata.gid(), mode: metadata.mode() & 0o777 }
    }

    /// Whether nobody but root, the reader, and a group of the reader can read the file, and nobody but the first two can
    /// change it. Root takes a file of any owner: in a container it is often the one of the host's user.
    pub(super) fn check(self, reader: &Reader) -> Result<(), NotPrivate> {
        if self.mode & (OTHERS | GROUP_WRITES_OR_RUNS) != 0 {
            return Err(NotPrivate::Exposed);
        }
        if self.mode & GROUP_READS != 0 && !reader.groups.contains(&self.group) {
            return Err(NotPrivate::ForeignGroup);
        }
        if self.owner != 0 && self.owner != reader.user && reader.user != 0 {
            return Err(NotPrivate::ForeignOwner);
        }
        Ok(())
    }
}

impl Reader {
    /// This process, with its supplementary groups.
    pub(super) fn this_process() -> Self {
        let mut groups = vec![getegid().as_raw()];
        groups.extend(getgroups().unwrap_or_default().iter().map(|group| group.as_raw()));
        Self { user: geteuid().as_raw(), groups }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(owner: u32, group: u32, mode: u32) -> Result<(), NotPrivate> {
        let reader = Reader { user: 1_000, groups: vec![1_000, 2_000] };
        FileAccess { owner, group, mode }.check(&reader)
    }

    #[test]
    fn a_group_of_the_process_may_read_and_nobody_else() {
        use NotPrivate::{Exposed, ForeignGroup, ForeignOwner};
        for (owner, group, mode, verdict) in [
            (1_000, 1_000, 0o600, Ok(())),
            (1_000, 9, 0o400, Ok(())),
            (0, 2_000, 0o440, Ok(())),
            (0, 2_000, 0o640, Ok(())),
            (1_000, 2_000, 0o640, Ok(())),
            (0, 0, 0o440, Err(ForeignGroup)),
            (1_000, 9, 0o640, Err(ForeignGroup)),
            (7, 2_000, 0o440, Err(ForeignOwner)),
            (0, 0, 0o644, Err(Exposed)),
            (0, 2_000, 0o444, Err(Exposed)),
            (1_000, 1_000, 0o602, Err(Exposed)),
            (1_000, 2_000, 0o660, Err(Exposed)),
            (1_000, 2_000, 0o610, Err(Exposed)),
        ] {
            assert_eq!(check(owner, group, mode), verdict, "{owner}:{group} {mode:o}");
        }
        let root = Reader { user: 0, groups: vec![0] };
        assert_eq!(FileAccess { owner: 1_000, group: 1_000, mode: 0o600 }.check(&root), Ok(()));
        assert_eq!(FileAccess { owner: 1_000, group: 1_000, mode: 0o640 }.check(&root), Err(ForeignGroup));
    }
}
