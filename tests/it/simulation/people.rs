//! The users and sessions of the simulated world, by number.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use latchkey::domain::client::Client;
use latchkey::domain::id::{Epoch, NodeId, SessionId, UserId};
use latchkey::domain::login_name::LoginName;
use latchkey::domain::session::{Methods, Session};
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::TokenDigest;
use latchkey::domain::user::{Attributes, DisplayName, Roles, User, UserState};
use latchkey::store::Credentials;
use uuid::Uuid;

use crate::support::dice::Dice;

/// When the world begins, by the calendar of the database.
pub const NOW: UnixMillis = UnixMillis::from_millis(1_700_000_000_000);
/// No session of this world runs out.
const FOR_EVER: Duration = Duration::from_secs(1_000_000_000);

/// A user.
pub fn user(number: usize) -> User {
    User {
        id: user_id(number),
        login: LoginName::parse(&format!("user{number}")).expect("a login"),
        display_name: DisplayName::default(),
        state: UserState::Active,
        roles: Roles::default(),
        attributes: Attributes::default(),
        credential_epoch: Epoch::FIRST,
        password_epoch: Epoch::FIRST,
        create_time: NOW,
        update_time: NOW,
        password_time: None,
    }
}

/// The session that a sign-in makes which was decided on by `credentials`.
pub fn session(number: usize, credentials: &Credentials) -> Session {
    Session {
        id: session_id(number),
        user_id: credentials.user.id,
        user_epoch: credentials.user.credential_epoch,
        everyone_epoch: credentials.everyone_epoch,
        create_time: NOW,
        authenticate_time: NOW,
        expire_time: NOW.plus(FOR_EVER),
        last_seen_time: NOW,
        idle_limit: FOR_EVER,
        remembered: false,
        methods: Methods::password(),
        client: Client {
            ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            user_agent: String::new(),
            device_name: String::new(),
        },
        ended: None,
    }
}

/// The id of a user.
pub fn user_id(number: usize) -> UserId {
    UserId::from_uuid(uuid(1, number))
}

/// The id of a session.
pub fn session_id(number: usize) -> SessionId {
    SessionId::from_uuid(uuid(2, number))
}

/// The id under which a node joins.
pub fn node_id(number: usize) -> NodeId {
    NodeId::from_uuid(uuid(3, number))
}

/// The number of a session.
pub fn number_of(session: SessionId) -> usize {
    usize::try_from(session.as_uuid().as_u64_pair().1).expect("a small number")
}

/// The digest of the token of a session.
pub fn digest(number: usize) -> TokenDigest {
    let mut dice = Dice::new(number as u64);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&dice.number().to_le_bytes());
    bytes[8..].copy_from_slice(&dice.number().to_le_bytes());
    TokenDigest(bytes)
}

fn uuid(kind: u64, number: usize) -> Uuid {
    Uuid::from_u64_pair(kind, number as u64)
}
