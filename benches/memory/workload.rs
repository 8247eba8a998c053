//! The sessions and users that are measured: as many as asked for, each made from its number alone.
//!
//! A user has three sessions, an address of its own and one of a few hundred user agents, as people have.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use latchkey::domain::change::{LogEntry, LoggedChange};
use latchkey::domain::client::Client;
use latchkey::domain::id::{Epoch, Nonce, Position, SessionId, UserId};
use latchkey::domain::login_name::LoginName;
use latchkey::domain::session::{Methods, Session};
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::{GenuineToken, KeyId, KeyRing, SECRET_LEN, SessionToken, TokenKey};
use latchkey::domain::user::{Attributes, DisplayName, Roles, User, UserState};

use super::numbers::scattered;

/// Sessions of one user.
pub const SESSIONS_PER_USER: u64 = 3;
/// The moment at which everything is made. Few things happen at a whole second.
pub const BEGIN: UnixMillis = UnixMillis::from_millis(1_790_000_000_123);

const LIFETIME: Duration = Duration::from_hours(24 * 30);
const IDLE_LIMIT: Duration = Duration::from_hours(24 * 7);
const USER_AGENTS: u64 = 300;

/// The ring that signs the tokens.
pub fn ring() -> KeyRing {
    KeyRing::new(vec![TokenKey::new(KeyId(1), [7; 32])]).expect("a ring")
}

/// The token of session `number`.
pub fn token(ring: &KeyRing, number: u64) -> (SessionToken, GenuineToken) {
    let mut secret = [0; SECRET_LEN];
    for (at, chunk) in (0_u64..).zip(secret.chunks_mut(8)) {
        chunk.copy_from_slice(&scattered(number * 4 + at).to_le_bytes());
    }
    ring.mint(BEGIN.plus(LIFETIME), &secret)
}

/// Session `number`.
pub fn session(number: u64) -> Session {
    let owner = number / SESSIONS_PER_USER;
    let [_, a, b, c] = u32::try_from(owner).expect("fewer users than addresses").to_be_bytes();
    let agent = scattered(number) % USER_AGENTS;
    let client = Client {
        ip: Some(IpAddr::V4(Ipv4Addr::new(10, a, b, c))),
        user_agent: format!(
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{agent}.0.0.0 Safari/537.36"
        ),
        device_name: String::new(),
    };
    Session {
        id: SessionId::mint(BEGIN, id_bytes(number)),
        user_id: user_id(owner),
        user_epoch: Epoch::FIRST,
        everyone_epoch: Epoch::FIRST,
        create_time: BEGIN,
        authenticate_time: BEGIN,
        expire_time: BEGIN.plus(LIFETIME),
        last_seen_time: BEGIN,
        idle_limit: IDLE_LIMIT,
        remembered: false,
        methods: Methods::password(),
        client,
        ended: None,
    }
}

/// The user of session `number`.
pub fn user_of(number: u64) -> User {
    let owner = number / SESSIONS_PER_USER;
    let login = format!("person.{owner}@example.com");
    User {
        id: user_id(owner),
        login: LoginName::from_stored(login.clone(), login),
        display_name: DisplayName::parse(&format!("Person Number {owner}")).expect("a name"),
        state: UserState::Active,
        roles: Roles::parse(&["reader"]).expect("a role"),
        attributes: Attributes::default(),
        credential_epoch: Epoch::FIRST,
        password_epoch: Epoch::FIRST,
        create_time: BEGIN,
        update_time: BEGIN,
        password_time: Some(BEGIN),
    }
}

/// The row of the log that says that a session was ended.
pub fn ended(session: &Session) -> LoggedChange {
    LoggedChange {
        position: Position::ZERO,
        nonce: Nonce([0; 8]),
        entry: LogEntry::SessionEnded { user: session.user_id, session: session.id },
        time: BEGIN,
    }
}

fn user_id(owner: u64) -> UserId {
    UserId::mint(BEGIN, id_bytes(!owner))
}

fn id_bytes(number: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&scattered(number).to_le_bytes());
    bytes
}
