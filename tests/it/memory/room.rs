//! How much room a session takes: all that memory and its keeper ask of the allocator and do not give back, counted.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use latchkey::domain::client::Client;
use latchkey::domain::id::{Epoch, Position, SessionId, UserId};
use latchkey::domain::login_name::LoginName;
use latchkey::domain::session::Session;
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::TokenDigest;
use latchkey::domain::user::{DisplayName, Roles, User};
use latchkey::grpc::wire::encode_user;
use latchkey::live::keeper::{Keeper, MemoryLimits};
use latchkey::live::table::Table;
use uuid::Uuid;

use super::samples::{self, BEGIN, digest, fill};

const SESSIONS: u64 = 30_000;
const SESSIONS_PER_USER: u64 = 3;
const PAGE: u64 = 1_000;
const BYTES_MAX: u64 = 200;
/// Few things happen at a whole second.
const MADE: UnixMillis = UnixMillis::from_millis(BEGIN.as_millis() + 123);

fn user_id(owner: u64) -> UserId {
    UserId::from_uuid(Uuid::from_u64_pair(owner.wrapping_mul(0x9e37_79b9_7f4a_7c15), owner))
}

/// A person with a name, an address of mail and a role.
fn user(owner: u64) -> User {
    User {
        id: user_id(owner),
        login: LoginName::parse(&format!("person.{owner:06}@example.com")).expect("a login"),
        display_name: DisplayName::parse(&format!("Person Number {owner:06}")).expect("a name"),
        roles: Roles::parse(&["reader"]).expect("a role"),
        create_time: MADE,
        update_time: MADE,
        password_time: Some(MADE),
        ..samples::user(owner, Epoch::FIRST)
    }
}

/// A session on a device with an address of its own and one of a few user agents.
fn session(number: u64) -> Session {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let client = Client {
        ip: Some(IpAddr::V6(Ipv6Addr::from_bits(u128::from(number)))),
        user_agent: format!(
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/{}.0.0.0",
            number % 30
        ),
        device_name: String::new(),
    };
    let owner = number / SESSIONS_PER_USER;
    let id = SessionId::mint(MADE, random);
    Session { id, user_id: user_id(owner), client, ..samples::session(number, owner, Epoch::FIRST) }
}

fn entry(number: u64) -> (TokenDigest, Session, User) {
    (digest(number), session(number), user(number / SESSIONS_PER_USER))
}

#[test]
fn a_session_takes_at_most_two_hundred_bytes_with_its_third_of_a_user() {
    let table = Table::new(1);
    let sessions_max = usize::try_from(SESSIONS).expect("fits");
    let limits = MemoryLimits { sessions_max, dead_max: 1_000, changes_max: 1_000 };
    let mut held = None;
    let counted = allocation_counter::measure(|| {
        let mut keeper = Keeper::new(Arc::clone(&table), limits).encoding(encode_user);
        keeper.begin_at(Position::ZERO);
        for begin in (0..SESSIONS).step_by(usize::try_from(PAGE).expect("fits")) {
            keeper.fill(fill(0, (begin..begin + PAGE).map(entry).collect()), MADE);
        }
        held = Some(keeper);
    });
    let mut keeper = held.expect("it was made");
    assert_eq!(keeper.holding().sessions, sessions_max);
    let bytes = u64::try_from(counted.bytes_current).expect("some") / SESSIONS;
    println!("{bytes} bytes a session");
    assert!(bytes <= BYTES_MAX, "{bytes} bytes a session");

    // What is read once more, or replaced by others, leaves nothing behind but the use of it.
    let counted = allocation_counter::measure(|| {
        for begin in (0..2 * SESSIONS).step_by(usize::try_from(PAGE).expect("fits")) {
            keeper.fill(fill(0, (begin..begin + PAGE).map(entry).collect()), MADE);
        }
        keeper.fill(fill(0, Vec::new()), MADE);
    });
    assert_eq!(keeper.holding().sessions, sessions_max);
    let more = counted.bytes_current / i64::try_from(SESSIONS).expect("fits");
    assert!(more <= 30, "{more} bytes a session more");
}
