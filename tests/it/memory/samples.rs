//! Sessions, users and changes for memory, made from numbers; and memory itself, with a clock that the test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use latchkey::domain::change::{ChangeKind, LogEntry, LoggedChange};
use latchkey::domain::client::Client;
use latchkey::domain::id::{Epoch, Nonce, Position, SessionId, UserId};
use latchkey::domain::login_name::LoginName;
use latchkey::domain::session::{Methods, Session};
use latchkey::domain::time::{BootTime, UnixMillis};
use latchkey::domain::token::TokenDigest;
use latchkey::domain::user::{Attributes, DisplayName, Roles, User, UserState};
use latchkey::live::encoded::Encoded;
use latchkey::live::keeper::{Fill, Filled, Keeper, MemoryLimits};
use latchkey::live::lease::Lease;
use latchkey::live::table::{LookUp, Table};
use uuid::Uuid;

/// The moment at which everything is made.
pub const BEGIN: UnixMillis = UnixMillis::from_millis(1_790_000_000_000);
/// How long a session lives, and how long it may go unused.
pub const LIFETIME: Duration = Duration::from_hours(10);
pub const IDLE_LIMIT: Duration = Duration::from_hours(1);

/// The readers' side of memory, and the clock.
pub struct Memory {
    pub table: Arc<Table>,
    pub lease: Lease,
    nanos: AtomicU64,
}

impl Memory {
    /// Empty memory with room for `uses_max` uses to be written down, and its writer.
    pub fn new(uses_max: usize) -> (Self, Keeper) {
        Self::beside_others(uses_max, Duration::ZERO)
    }

    /// The same where other nodes use the sessions as well.
    pub fn beside_others(uses_max: usize, lead: Duration) -> (Self, Keeper) {
        let table = Table::beside_others(uses_max, lead);
        let limits = MemoryLimits { sessions_max: 1_000, dead_max: 1_000, changes_max: 1_000 };
        let mut keeper = Keeper::new(Arc::clone(&table), limits).encoding(encode);
        keeper.begin_at(Position::ZERO);
        (Self { table, lease: Lease::default(), nanos: AtomicU64::new(1) }, keeper)
    }

    /// What the clock shows.
    pub fn now(&self) -> BootTime {
        BootTime::from_nanos(self.nanos.load(Ordering::SeqCst))
    }

    /// Moves the clock.
    pub fn advance(&self, span: Duration) {
        let nanos = u64::try_from(span.as_nanos()).expect("fits");
        self.nanos.fetch_add(nanos, Ordering::SeqCst);
    }

    /// Whether the token of `digest` is good at `now`, by a lease that may have run out. Counts as a use.
    pub fn ask(&self, digest: &TokenDigest, now: UnixMillis) -> Option<LookUp<()>> {
        self.table.look_up(&self.lease, || self.now(), digest, |_| now, |good| good.note_use(now))
    }
}

/// What is told of each user here.
pub const TOLD: &[u8] = b"ada reader writer";

fn encode(user: &User) -> Encoded {
    let login = user.login.display();
    let told = format!("{login} {}", user.roles.as_slice().join(" ")).into_bytes();
    let len = told.len();
    Encoded::new(told, len, 0..login.len())
}

pub fn user_id(number: u64) -> UserId {
    UserId::from_uuid(Uuid::from_u64_pair(1, number))
}

pub fn session_id(number: u64) -> SessionId {
    SessionId::from_uuid(Uuid::from_u64_pair(2, number))
}

pub fn digest(number: u64) -> TokenDigest {
    TokenDigest(Uuid::from_u64_pair(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number).into_bytes())
}

pub fn user(number: u64, epoch: Epoch) -> User {
    User {
        id: user_id(number),
        login: LoginName::parse("ada").expect("a login"),
        display_name: DisplayName::parse("Ada").expect("a name"),
        state: UserState::Active,
        roles: Roles::parse(&["reader", "writer"]).expect("roles"),
        attributes: Attributes::default(),
        credential_epoch: epoch,
        password_epoch: Epoch::FIRST,
        create_time: BEGIN,
        update_time: BEGIN,
        password_time: Some(BEGIN),
    }
}

pub fn session(number: u64, owner: u64, epoch: Epoch) -> Session {
    Session {
        id: session_id(number),
        user_id: user_id(owner),
        user_epoch: epoch,
        everyone_epoch: Epoch::FIRST,
        create_time: BEGIN,
        authenticate_time: BEGIN,
        expire_time: BEGIN.plus(LIFETIME),
        last_seen_time: BEGIN,
        idle_limit: IDLE_LIMIT,
        remembered: false,
        methods: Methods::password(),
        client: Client::parse("192.0.2.7", "agent", "").expect("a client"),
        ended: None,
    }
}

/// What a read with the head at `position` found.
pub fn fill(position: i64, found: Vec<(TokenDigest, Session, User)>) -> Fill {
    let found = found.into_iter();
    Fill {
        position: Position::from_i64(position),
        everyone_epoch: Epoch::FIRST,
        asked: Vec::new(),
        found: found.map(|(digest, session, user)| Filled { digest, session, user: Some(user) }).collect(),
    }
}

/// A row of the log about user `owner`.
pub fn row(
    position: i64,
    kind: ChangeKind,
    owner: u64,
    session: Option<SessionId>,
    epoch: Epoch,
) -> LoggedChange {
    let user = (kind != ChangeKind::EveryoneEnded).then(|| user_id(owner));
    let epoch = (!kind.is_of_one_session()).then_some(epoch);
    let entry =
        LogEntry::from_columns(kind.as_i16(), user, session, epoch, None).expect("the fields of its kind");
    LoggedChange { position: Position::from_i64(position), nonce: Nonce([0; 8]), entry, time: BEGIN }
}
