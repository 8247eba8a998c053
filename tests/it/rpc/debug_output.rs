//! Nothing secret is in the `Debug` of anything: a line that someone adds in a hurry prints a name and two dots.

use std::fmt::Debug;

use latchkey::config::{ApiKeyDigest, Config};
use latchkey::domain::id::{Epoch, Position, SessionId, UserId};
use latchkey::domain::login_name::LoginName;
use latchkey::domain::password::{Password, PasswordHash};
use latchkey::domain::session::{Methods, Session};
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::{KEY_LEN, KeyId, KeyRing, TokenDigest, TokenKey};
use latchkey::domain::user::{Attributes, DisplayName, Roles, User, UserState};
use latchkey::grpc::proto::{admin, v1};
use latchkey::store::{Credentials, NewSession, NewUser, PasswordChange};
use latchkey::usecases::change_password::Passwords;
use latchkey::usecases::create_user;
use prost::Message;

use super::contract::Contract;

const MARK: &str = "Mk7Q";

/// How to read a message of each type and print it.
macro_rules! printers {
    ($($package:ident::{$($message:ident),* $(,)?}),* $(,)?) => {
        vec![$($((stringify!($package), stringify!($message), print::<$package::$message> as Printer),)*)*]
    };
}

type Printer = fn(&[u8]) -> String;

fn print<M: Message + Default + Debug>(bytes: &[u8]) -> String {
    format!("{:?}", M::decode(bytes).expect("the message is whole"))
}

fn printers() -> Vec<(&'static str, &'static str, Printer)> {
    printers! {
        v1::{
            LoginRequest, LoginResponse, LoadUserRequest, LoadUserResponse, ValidateSessionRequest,
            ValidateSessionResponse, StreamValidateSessionsRequest, StreamValidateSessionsResponse, QuestionRefused,
            RevokeSessionsRequest, UserSessions, Everyone, RevokeSessionsResponse, ListSessionsRequest,
            ListSessionsResponse, ReauthenticateRequest, ReauthenticateResponse, ChangePasswordRequest,
            ChangePasswordResponse, CreateSessionRequest, CreateSessionResponse, Session, Client, User,
        },
        admin::{
            CreateUserRequest, CreateUserResponse, GetUserRequest, GetUserResponse, ListUsersRequest,
            ListUsersResponse, UpdateUserRequest, UpdateUserResponse, SetPasswordRequest, SetPasswordResponse,
            DeleteUserRequest, DeleteUserResponse, ImportUsersRequest, ImportUsersResponse, ImportUserResult,
            ImportRefused, ListNodesRequest, ListNodesResponse, Node, StartNewLogRequest, StartNewLogResponse,
            SetLeaseRequest, SetLeaseResponse,
            ForgetTokenKeyRequest, ForgetTokenKeyResponse,
        },
    }
}

/// Whether a field of this name holds a secret, whatever the contract says about it.
fn is_secret(field: &str) -> bool {
    let of_page = field.contains("page_token");
    (field.contains("password") || field.contains("token")) && !of_page && field != "password_hash_scheme"
}

#[test]
fn no_message_shows_a_secret() {
    let contract = Contract::read();
    let printers = printers();
    let mut looked_at = 0;
    for (name, _) in contract.messages() {
        let (_, _, print) = printers
            .iter()
            .find(|(package, message, _)| {
                let package = if *package == "v1" { "latchkey.v1" } else { "latchkey.admin.v1" };
                name == format!(".{package}.{message}")
            })
            .unwrap_or_else(|| panic!("{name} is not in the list of this test"));
        for filled in contract.with_each_text(&name, MARK.as_bytes()) {
            if is_secret(&filled.name) {
                let printed = print(&filled.message);
                assert!(!printed.contains(MARK), "{name}.{}: {printed}", filled.path);
                looked_at += 1;
            }
        }
    }
    assert_eq!(looked_at, 19, "secret fields of the contract, also of messages inside messages");
}

#[test]
fn a_field_that_is_no_secret_is_still_shown() {
    let client = v1::Client { device_name: MARK.to_owned(), ..v1::Client::default() };
    assert!(format!("{client:?}").contains(MARK), "the test above would pass for messages that show nothing");
}

fn user() -> User {
    User {
        id: UserId::mint(UnixMillis::from_millis(1), [1; 10]),
        login: LoginName::parse(MARK).expect("a login"),
        display_name: DisplayName::default(),
        state: UserState::Active,
        roles: Roles::default(),
        attributes: Attributes::default(),
        credential_epoch: Epoch::FIRST,
        password_epoch: Epoch::FIRST,
        create_time: UnixMillis::from_millis(1),
        update_time: UnixMillis::from_millis(1),
        password_time: None,
    }
}

fn new_session() -> NewSession {
    let time = UnixMillis::from_millis(1);
    let session = Session {
        id: SessionId::mint(time, [1; 10]),
        user_id: user().id,
        user_epoch: Epoch::FIRST,
        everyone_epoch: Epoch::FIRST,
        create_time: time,
        authenticate_time: time,
        expire_time: time,
        last_seen_time: time,
        idle_limit: std::time::Duration::ZERO,
        remembered: false,
        methods: Methods::password(),
        client: latchkey::domain::client::Client::default(),
        ended: None,
    };
    NewSession { session, digest: TokenDigest([77; 16]) }
}

#[test]
fn no_value_inside_shows_a_secret() {
    let password = Password::parse("Mk7Q the password").expect("a password");
    let hash = PasswordHash::from_phc("$argon2id$Mk7Q".to_owned());
    let ring = KeyRing::new(vec![TokenKey::new(KeyId(1), [77; KEY_LEN])]).expect("a ring");
    let (token, genuine) = ring.mint(UnixMillis::from_millis(1), &[77; 32]);
    let new_user = NewUser {
        id: user().id,
        login: user().login,
        display_name: DisplayName::default(),
        roles: Roles::default(),
        attributes: Attributes::default(),
        password_hash: Some(hash.clone()),
        create_time: UnixMillis::from_millis(1),
    };
    let credentials = Credentials {
        user: user(),
        password_hash: Some(hash.clone()),
        everyone_epoch: Epoch::FIRST,
        position: Position::ZERO,
    };
    let change = PasswordChange { verified_epoch: Epoch::FIRST, hash: hash.clone(), session: new_session() };
    let passwords = Passwords { current: password.clone(), new: password.clone() };
    let config = Config {
        database_url: serde_json::from_str("\"postgres://a:Mk7Q@db.example/b\"").expect("a URL"),
        token_keys: Some(serde_json::from_str("\"Mk7Q\"").expect("a secret")),
        ..Config::default()
    };
    let printed = [
        format!("{password:?} {hash:?} {token:?} {ring:?} {genuine:?}"),
        format!("{:?} {:?}", user(), new_session()),
        format!("{new_user:?} {credentials:?} {change:?} {passwords:?} {config:?}"),
        format!("{:?}", create_user::Secret::Password(password)),
        format!("{:?}", create_user::Secret::Imported(hash)),
        format!("{:?}", ApiKeyDigest([77; 32])),
    ];
    for text in printed {
        for secret in [MARK, "77, 77", token.expose(), &token.expose()[20..60], "$argon2", "MMMM"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
