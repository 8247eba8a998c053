//! A user as memory holds it: shared by the user's sessions, so that a change of the user is one update and not a scan.
//!
//! What is known of a user is one immutable value that the keeper replaces, so a reader sees epochs, state and encoding of
//! one moment. Few users change while they are in memory, so what was known first lies in the user itself, packed, where a
//! reader finds it without another step. How users come into memory and leave it is the business of `keeper`.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use triomphe::ThinArc;

use super::encoded::{EncodedUser, Encoder, Parts, Told};
use super::facts::{Epochs, Facts, Standing, verdict_on};
use super::session::Verdict;
use crate::domain::id::{Epoch, Position, UserId};
use crate::domain::session::Death;
use crate::domain::user::{User, UserState};

/// No epoch that is held as the first.
const CHANGED: u32 = u32::MAX;

/// A user whose sessions are in memory: one piece of memory, with the bytes of what was known first at its end. Clones
/// share it.
#[derive(Clone)]
pub(super) struct HeldUser(ThinArc<Head, u8>);

struct Head {
    id: UserId,
    /// What has been known since something changed; from the beginning where it does not fit below.
    since: ArcSwapOption<Facts>,
    /// The position as of which the standing is known. The keeper's own.
    as_of: AtomicI64,
    /// What was known first: a user who may have sessions, of whom no ending was seen.
    first: First,
}

struct First {
    /// [`CHANGED`] once this is not what is known any more.
    read_epoch: AtomicU32,
    whole_len: u16,
    principal_len: u16,
    login_start: u16,
    login_end: u16,
}

/// What is known of a user at one moment, for as long as it is looked at.
pub(super) enum FactsNow<'u> {
    /// What was known first, with this as the epoch that was read.
    First(&'u HeldUser, u32),
    /// What has been known since.
    Since(Guard<Option<Arc<Facts>>>),
}

impl HeldUser {
    /// A user as a read with the head at `position` says; none when the user is gone. A user who may have sessions is kept
    /// as `encode` tells it.
    pub(super) fn new(id: UserId, user: Option<&User>, position: Position, encode: Encoder) -> Self {
        let mut facts = Facts::unknown();
        facts.read(user.filter(|user| may_have_sessions(user)).map(|user| Told::of(user, encode)), user);
        let as_of = AtomicI64::new(position.as_i64());
        let head = |first, since| Head { id, since: ArcSwapOption::new(since), as_of, first };
        Self(match First::pack(&facts) {
            Some((first, told)) => ThinArc::from_header_and_slice(head(first, None), &told.bytes),
            None => ThinArc::from_header_and_slice(head(First::none(), Some(Arc::new(facts))), &[]),
        })
    }

    pub(super) fn id(&self) -> UserId {
        self.head().id
    }

    /// What is known at this moment.
    pub(super) fn facts(&self) -> FactsNow<'_> {
        // Acquire: whoever does not find the first facts any more finds those that replaced them.
        match self.head().first.read_epoch.load(Ordering::Acquire) {
            CHANGED => FactsNow::Since(self.head().since.load()),
            first => FactsNow::First(self, first),
        }
    }

    /// Whether nobody but the keeper holds it.
    pub(super) fn is_without_sessions(&self) -> bool {
        ThinArc::strong_count(&self.0) == 1
    }

    /// Takes in what a read with the head at `position` says; none when the user is gone. It counts only where nothing newer
    /// is known.
    pub(super) fn learn(&self, user: Option<&User>, position: Position, encode: Encoder) {
        if position < self.as_of() {
            return;
        }
        self.set_as_of(position);
        let told = user.filter(|user| may_have_sessions(user)).map(|user| Told::of(user, encode));
        if user.zip(told.as_ref()).is_some_and(|(user, told)| self.facts().say(user, told)) {
            return;
        }
        self.change(|facts| {
            facts.read(told, user);
        });
    }

    /// Sessions born before `epoch` are over, for the reason of `death`.
    pub(super) fn end_before(&self, epoch: Epoch, death: Death) {
        self.change(|facts| facts.end_before(epoch, death));
    }

    /// A row of the log at `position` says what became of the user; passed over where something newer is known.
    pub(super) fn change_standing(&self, standing: Standing<Arc<Told>>, position: Position) {
        if position > self.as_of() {
            self.set_as_of(position);
            self.change(|facts| facts.standing = standing);
        }
    }

    /// Positions begin anew: only what must never be taken back stays.
    pub(super) fn forget_positions(&self) {
        self.set_as_of(Position::ZERO);
        self.change(|facts| {
            facts.epochs.read = Epoch::default();
            facts.standing = Standing::Stale;
        });
    }

    /// The log begins anew, and with it the epochs.
    pub(super) fn forget_all(&self) {
        self.set_as_of(Position::ZERO);
        self.put(Facts::unknown());
    }

    fn change(&self, change: impl FnOnce(&mut Facts)) {
        let mut facts = self.facts().to_facts();
        change(&mut facts);
        self.put(facts);
    }

    fn put(&self, facts: Facts) {
        self.head().since.store(Some(Arc::new(facts)));
        self.head().first.read_epoch.store(CHANGED, Ordering::Release);
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    fn as_of(&self) -> Position {
        Position::from_i64(self.head().as_of.load(Ordering::Relaxed))
    }

    fn set_as_of(&self, position: Position) {
        self.head().as_of.store(position.as_i64(), Ordering::Relaxed);
    }
}

impl fmt::Debug for HeldUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeldUser").field(&self.id()).finish()
    }
}

fn may_have_sessions(user: &User) -> bool {
    user.state == UserState::Active
}

impl First {
    /// Nothing, where nothing fits.
    fn none() -> Self {
        Self {
            read_epoch: AtomicU32::new(CHANGED),
            whole_len: 0,
            principal_len: 0,
            login_start: 0,
            login_end: 0,
        }
    }

    /// Whatever fits, with what is told; none where the user may have no sessions, or memory saw them end.
    fn pack(facts: &Facts) -> Option<(Self, Arc<Told>)> {
        let Standing::Active(told) = &facts.standing else { return None };
        let is_new = facts.epochs.ended == Epoch::default() && facts.endings.is_empty();
        let read_epoch = u32::try_from(facts.epochs.read.as_i64()).ok().filter(|epoch| *epoch != CHANGED)?;
        let Parts { whole_len, principal_len, login } = &told.parts;
        let first = Self {
            read_epoch: AtomicU32::new(read_epoch),
            whole_len: u16::try_from(*whole_len).ok()?,
            principal_len: u16::try_from(*principal_len).ok()?,
            login_start: u16::try_from(login.start).ok()?,
            login_end: u16::try_from(login.end).ok()?,
        };
        is_new.then(|| (first, Arc::clone(told)))
    }

    fn epochs(read: u32) -> Epochs {
        Epochs { ended: Epoch::default(), read: Epoch::from_i64(read.into()) }
    }

    fn parts(&self) -> Parts {
        Parts {
            whole_len: self.whole_len.into(),
            principal_len: self.principal_len.into(),
            login: self.login_start.into()..self.login_end.into(),
        }
    }
}

impl FactsNow<'_> {
    /// Whether the user may have sessions, and what is told of the user.
    pub(super) fn standing(&self) -> Standing<EncodedUser<'_>> {
        match self {
            Self::First(HeldUser(user), _) => {
                Standing::Active(EncodedUser::new(&user.slice, &user.header.header.first.parts()))
            }
            Self::Since(facts) => match facts.as_deref().map(|facts| &facts.standing) {
                Some(Standing::Active(told)) => Standing::Active(told.view()),
                Some(Standing::Barred) => Standing::Barred,
                Some(Standing::Stale) | None => Standing::Stale,
            },
        }
    }

    /// Whether a session stamped with `epoch` stands by it.
    pub(super) fn verdict_on(&self, epoch: Epoch) -> Verdict {
        let endings = match self {
            Self::Since(facts) => facts.as_deref().map_or(&[][..], |facts| &facts.endings),
            Self::First(..) => &[],
        };
        verdict_on(epoch, self.epochs(), endings)
    }

    fn epochs(&self) -> Epochs {
        match self {
            Self::First(_, read) => First::epochs(*read),
            Self::Since(facts) => facts.as_deref().map_or_else(Epochs::default, |facts| facts.epochs),
        }
    }

    /// Whether they say all that a read says of a user who may have sessions.
    fn say(&self, user: &User, told: &Told) -> bool {
        let epochs = self.epochs();
        epochs.read == user.credential_epoch && self.standing() == Standing::Active(told.view())
    }

    fn to_facts(&self) -> Facts {
        match self {
            Self::First(user, read) => {
                let first = &user.head().first;
                let told = Told { bytes: user.0.slice.to_vec(), parts: first.parts() };
                let standing = Standing::Active(Arc::new(told));
                Facts { epochs: First::epochs(*read), endings: Vec::new(), standing }
            }
            Self::Since(facts) => facts.as_deref().map_or_else(Facts::unknown, Facts::clone),
        }
    }
}

/// A user among those that the keeper knows, found by id.
#[derive(Debug)]
pub(super) struct Known(pub(super) HeldUser);

impl Borrow<UserId> for Known {
    fn borrow(&self) -> &UserId {
        &self.0.head().id
    }
}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.head().id.hash(state);
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.0.head().id == other.0.head().id
    }
}

impl Eq for Known {}

#[cfg(test)]
mod tests {
    use super::super::encoded::Encoded;
    use super::super::samples::{at, user};
    use super::*;

    #[test]
    fn the_fixed_part_of_a_user_takes_no_more_room_than_it_must() {
        assert_eq!(size_of::<Head>(), 48);
    }

    #[test]
    fn a_user_who_does_not_fit_is_held_all_the_same() {
        let whole = |len: usize| -> Encoder {
            if len < 100 {
                |_| Encoded::new(b"login".to_vec(), 3, 0..5)
            } else {
                |_| Encoded::new(vec![b'x'; 100_000], 99_000, 98_000..98_100)
            }
        };
        for (epoch, len) in [(1, 5), (1, 100_000), (i64::MAX - 1, 5)] {
            let held = HeldUser::new(user(1, 1).id, Some(&user(1, epoch)), at(1), whole(len));
            let facts = held.facts();
            let Standing::Active(told) = facts.standing() else { panic!("{epoch} {len}") };
            assert_eq!(told.whole().len(), len);
            assert_eq!(told.login().key(), user(1, 1).login.key());
            assert_eq!(facts.verdict_on(Epoch::from_i64(epoch)), Verdict::Good);
            assert_eq!(matches!(facts, FactsNow::First(..)), epoch == 1 && len == 5);
        }
    }

    #[test]
    fn a_read_that_says_nothing_new_changes_nothing() {
        let held = HeldUser::new(user(1, 1).id, Some(&user(1, 1)), at(1), Encoded::nothing);
        held.learn(Some(&user(1, 1)), at(3), Encoded::nothing);
        assert!(matches!(held.facts(), FactsNow::First(..)));
        held.change_standing(Standing::Stale, at(2));
        assert!(matches!(held.facts(), FactsNow::First(..)), "older than the read");
        held.learn(Some(&user(1, 2)), at(3), Encoded::nothing);
        assert_eq!(held.facts().verdict_on(Epoch::FIRST), Verdict::Ask);
    }
}
