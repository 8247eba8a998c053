//! Users, sessions, reads and rows of the log for the tests of this part.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::keeper::{Fill, Filled, Keeper, MemoryLimits};
use super::lease::Lease;
use super::table::{LookUp, Table};
use crate::domain::change::{ChangeKind, LogEntry, LoggedChange};
use crate::domain::client::Client;
use crate::domain::id::{Epoch, Nonce, Position, SessionId, UserId};
use crate::domain::login_name::LoginName;
use crate::domain::session::{EndReason, Ended, Methods, Session};
use crate::domain::time::{BootTime, UnixMillis};
use crate::domain::token::TokenDigest;
use crate::domain::user::{Attributes, DisplayName, Roles, User, UserState};

pub(super) const NOW: UnixMillis = UnixMillis::from_millis(1_000_000_000);
pub(super) const LIMITS: MemoryLimits = MemoryLimits { sessions_max: 100, dead_max: 100, changes_max: 100 };

pub(super) fn at(position: i64) -> Position {
    Position::from_i64(position)
}

pub(super) fn user_id(number: u64) -> UserId {
    UserId::from_uuid(Uuid::from_u64_pair(1, number))
}

pub(super) fn session_id(number: u64) -> SessionId {
    SessionId::from_uuid(Uuid::from_u64_pair(2, number))
}

pub(super) fn digest(number: u64) -> TokenDigest {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    TokenDigest(bytes)
}

/// A user with the credential epoch `epoch`.
pub(super) fn user(number: u64, epoch: i64) -> User {
    User {
        id: user_id(number),
        login: LoginName::parse(&format!("user{number}")).expect("a login"),
        display_name: DisplayName::default(),
        state: UserState::Active,
        roles: Roles::default(),
        attributes: Attributes::default(),
        credential_epoch: Epoch::from_i64(epoch),
        password_epoch: Epoch::FIRST,
        create_time: NOW,
        update_time: NOW,
        password_time: None,
    }
}

/// A session of user `number % 10`, born with `epoch`.
pub(super) fn session(number: u64, epoch: i64) -> Session {
    Session {
        id: session_id(number),
        user_id: user_id(number % 10),
        user_epoch: Epoch::from_i64(epoch),
        everyone_epoch: Epoch::FIRST,
        create_time: NOW,
        authenticate_time: NOW,
        expire_time: NOW.plus(Duration::from_hours(1)),
        last_seen_time: NOW,
        idle_limit: Duration::from_mins(30),
        remembered: false,
        methods: Methods::password(),
        client: Client::default(),
        ended: None,
    }
}

/// The session as it is read once it was ended.
pub(super) fn ended(number: u64) -> Session {
    Session { ended: Some(Ended { time: NOW, reason: EndReason::Revoked }), ..session(number, 1) }
}

/// A read of one session and its user.
pub(super) fn read(position: i64, session: Session, user: Option<User>) -> Fill {
    let number = session.id.as_uuid().as_u64_pair().1;
    let found = vec![Filled { digest: digest(number), session, user }];
    Fill { position: at(position), everyone_epoch: Epoch::FIRST, asked: Vec::new(), found }
}

/// A row about user `user`, with the epoch since then.
pub(super) fn row(
    position: i64,
    kind: ChangeKind,
    user: u64,
    session: Option<u64>,
    epoch: i64,
) -> LoggedChange {
    let user = (kind != ChangeKind::EveryoneEnded).then(|| user_id(user));
    let epoch = (!kind.is_of_one_session()).then(|| Epoch::from_i64(epoch));
    let entry = LogEntry::from_columns(kind.as_i16(), user, session.map(session_id), epoch, None);
    let (position, nonce) = (at(position), Nonce(position.to_le_bytes()));
    LoggedChange { position, nonce, entry: entry.expect("the fields of its kind"), time: NOW }
}

/// Memory with a lease that lasts.
pub(super) struct Memory {
    pub(super) table: Arc<Table>,
    pub(super) keeper: Keeper,
    lease: Lease,
}

impl Memory {
    pub(super) fn new(limits: MemoryLimits, uses_max: usize) -> Self {
        let (table, lease) = (Table::new(uses_max), Lease::default());
        lease.publish(BootTime::from_span(Duration::from_secs(1)));
        Self { keeper: Keeper::new(Arc::clone(&table), limits), table, lease }
    }

    /// With session `number` of user `number % 10`, read at position 1.
    pub(super) fn with(number: u64) -> Self {
        let mut memory = Self::new(LIMITS, 10);
        memory.know(1, number);
        memory
    }

    /// Reads a session that stands.
    pub(super) fn know(&mut self, position: i64, number: u64) {
        self.keeper.fill(read(position, session(number, 1), Some(user(number % 10, 1))), NOW);
    }

    pub(super) fn look_up(&self, number: u64) -> LookUp<()> {
        self.look_up_at(number, NOW)
    }

    pub(super) fn look_up_at(&self, number: u64, now: UnixMillis) -> LookUp<()> {
        self.look_up_digest(&digest(number), now)
    }

    pub(super) fn look_up_digest(&self, digest: &TokenDigest, now: UnixMillis) -> LookUp<()> {
        let told = self.table.look_up(&self.lease, BootTime::default, digest, |_| now, |_| ());
        told.expect("the lease holds")
    }

    /// The same, and it counts as a use.
    pub(super) fn note_use(&self, number: u64, now: UnixMillis) -> LookUp<()> {
        let digest = digest(number);
        let used =
            self.table.look_up(&self.lease, BootTime::default, &digest, |_| now, |good| good.note_use(now));
        used.expect("the lease holds")
    }
}
