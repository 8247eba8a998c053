//! Between messages and domain values. What comes in is parsed here, with every bad field named; what goes out cannot fail.

use std::time::Duration;

use prost::Message as _;
use prost_types::Timestamp;

use super::proto::v1;
use crate::domain::client::Client;
use crate::domain::id::{SessionId, UserId};
use crate::domain::invalid::{FieldViolation, Invalid};
use crate::domain::login_name::LoginName;
use crate::domain::password::Password;
use crate::domain::refusal::Refusal;
use crate::domain::session::Session;
use crate::domain::time::UnixMillis;
use crate::domain::user::{User, UserState};
use crate::live::encoded::Encoded;
use crate::usecases::sign_in::SignedIn;

/// Collects what is wrong with a request, so that all of it is told at once.
#[derive(Debug, Default)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// Takes the value out of `parsed`, or remembers what is wrong with `field`.
    pub fn take<T>(&mut self, field: &'static str, parsed: Result<T, Invalid>) -> Option<T> {
        parsed.map_err(|why| self.0.push(why.in_field(field))).ok()
    }

    /// Remembers that `field` breaks a rule.
    pub fn add(&mut self, field: &'static str, why: &'static str) {
        self.0.push(FieldViolation::new(field, why));
    }

    /// Parses a login name in `field`.
    pub fn login(&mut self, field: &'static str, text: &str) -> Option<LoginName> {
        self.take(field, LoginName::parse(text))
    }

    /// Parses a password in `field`.
    pub fn password(&mut self, field: &'static str, text: &str) -> Option<Password> {
        self.take(field, Password::parse(text))
    }

    /// Parses the id of a user in `field`.
    pub fn user_id(&mut self, field: &'static str, text: &str) -> Option<UserId> {
        self.take(field, UserId::parse(text))
    }

    /// Parses the id of a session in `field`.
    pub fn session_id(&mut self, field: &'static str, text: &str) -> Option<SessionId> {
        self.take(field, SessionId::parse(text))
    }

    /// Parses a span of at least `least` in `field`; none when the message is not set, or is wrong.
    pub fn span(
        &mut self,
        field: &'static str,
        span: Option<prost_types::Duration>,
        least: Duration,
    ) -> Option<Duration> {
        let parsed = self::span(span?).filter(|span| *span >= least);
        let limit = || Invalid::new(format!("must be {} to {MAX_SPAN_SECONDS} seconds", least.as_secs()));
        self.take(field, parsed.ok_or_else(limit))
    }

    /// Refuses the request if anything was wrong with it, or gives what `read` makes of the values. `read` answers none
    /// only when a value is missing, which has been remembered then.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Refusal> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ if self.0.is_empty() => Err(Refusal::Internal),
            _ => Err(Refusal::InvalidField(self.0)),
        }
    }
}

/// The device that a request describes; none when it describes none. No description refuses a request.
pub fn client(client: Option<v1::Client>) -> Option<Client> {
    client.map(|client| Client::described(&client.ip, &client.user_agent, &client.device_name))
}

/// The longest span of the Duration message (its own documentation: about ten thousand years).
const MAX_SPAN_SECONDS: u64 = 315_576_000_000;

/// A moment as a message.
pub fn timestamp(time: UnixMillis) -> Timestamp {
    let nanos = time.as_millis().rem_euclid(1_000) * 1_000_000;
    Timestamp { seconds: time.as_secs(), nanos: i32::try_from(nanos).unwrap_or(0) }
}

/// The span of a message; none where the message is not valid, or the span is negative.
pub fn span(message: prost_types::Duration) -> Option<Duration> {
    // The conversion overflows beyond the bounds of the message.
    let wide =
        message.seconds.unsigned_abs() > MAX_SPAN_SECONDS || message.nanos.unsigned_abs() > 999_999_999;
    if wide { None } else { Duration::try_from(message).ok() }
}

/// A span as a message.
pub fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(span).unwrap_or_default()
}

/// A count as the contract has it.
pub fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A user as a message.
pub fn user(user: &User) -> v1::User {
    let state = match user.state {
        UserState::Active => v1::UserState::Active,
        UserState::Disabled => v1::UserState::Disabled,
    };
    v1::User {
        user_id: user.id.to_string(),
        login: user.login.display().to_owned(),
        display_name: user.display_name.as_str().to_owned(),
        state: state.into(),
        roles: user.roles.as_slice().to_vec(),
        attributes: user.attributes.as_map().clone().into_iter().collect(),
        create_time: Some(timestamp(user.create_time)),
        update_time: Some(timestamp(user.update_time)),
        password_time: user.password_time.map(timestamp),
    }
}

/// A user as every answer tells it, for memory, without the id: that memory knows, and it is the first field. What
/// ValidateSession says of a user is the beginning of it.
pub fn encode_user(user: &User) -> Encoded {
    let whole = v1::User { user_id: String::new(), ..self::user(user) };
    let mut principal =
        v1::ValidateSessionResponse { login: whole.login.clone(), ..v1::ValidateSessionResponse::default() };
    let login_end = principal.encoded_len();
    principal.roles.clone_from(&whole.roles);
    let login = login_end.saturating_sub(whole.login.len())..login_end;
    Encoded::new(whole.encode_to_vec(), principal.encoded_len(), login)
}

/// What [`encode_user`] made, and the id, as a message.
pub fn decode_user(id: UserId, whole: &[u8]) -> v1::User {
    let whole = v1::User::decode(whole).expect("memory keeps what `encode_user` made");
    v1::User { user_id: id.to_string(), ..whole }
}

/// The beginning of what [`encode_user`] made, and the id, as a message that says of a good session whose it is.
pub fn decode_principal(id: UserId, principal: &[u8]) -> v1::ValidateSessionResponse {
    let principal =
        v1::ValidateSessionResponse::decode(principal).expect("memory keeps what `encode_user` made");
    v1::ValidateSessionResponse { user_id: id.to_string(), ..principal }
}

/// A session as a message.
pub fn session(session: &Session, fresh: bool) -> v1::Session {
    v1::Session {
        session_id: session.id.to_string(),
        user_id: session.user_id.to_string(),
        create_time: Some(timestamp(session.create_time)),
        authenticate_time: Some(timestamp(session.authenticate_time)),
        expire_time: Some(timestamp(session.expire_time)),
        last_seen_time: Some(timestamp(session.last_seen_time)),
        idle_expire_time: Some(timestamp(
            session.last_seen_time.plus(session.idle_limit).min(session.expire_time),
        )),
        fresh,
        remembered: session.remembered,
        methods: session.methods.as_slice().to_vec(),
        client: Some(v1::Client {
            ip: session.client.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            user_agent: session.client.user_agent.clone(),
            device_name: session.client.device_name.clone(),
        }),
    }
}

/// The three parts of every answer that signs somebody in: token, session, user. Who just signed in is fresh.
pub fn signed_in(signed_in: &SignedIn) -> (String, Option<v1::Session>, Option<v1::User>) {
    let token = signed_in.token.expose().to_owned();
    (token, Some(session(&signed_in.session, true)), Some(user(&signed_in.user)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let mut wrong = Violations::default();
        wrong.login("login", "");
        wrong.password("password", "");
        wrong.user_id("user_id", "here");
        let refusal = wrong.finish(Some(())).expect_err("refused");
        let Refusal::InvalidField(fields) = refusal else { panic!("{refusal:?}") };
        assert_eq!(
            fields.iter().map(|one| one.field.as_ref()).collect::<Vec<_>>(),
            ["login", "password", "user_id"]
        );
    }

    #[test]
    fn spans_are_bounded_both_ways() {
        let least = Duration::from_secs(1);
        let read = |seconds, nanos| {
            let mut wrong = Violations::default();
            let span = wrong.span("lifetime", Some(prost_types::Duration { seconds, nanos }), least);
            (span, wrong.0.len())
        };
        assert_eq!(read(1, 500_000_000), (Some(Duration::from_millis(1_500)), 0));
        for bad in [
            (0, 999_999_999),
            (-1, 0),
            (i64::MAX, 0),
            (i64::MIN, i32::MIN),
            (5, -1_000_000_000),
            (1, i32::MAX),
        ] {
            assert_eq!(read(bad.0, bad.1), (None, 1), "{bad:?}");
        }
        assert_eq!(Violations::default().span("lifetime", None, least), None);
    }

    #[test]
    fn what_validate_session_says_of_a_user_is_the_beginning_of_the_user() {
        use crate::domain::id::{Epoch, UserId};
        use crate::domain::user::{Attributes, DisplayName, Roles};
        let now = UnixMillis::from_millis(1_000);
        for roles in [&[][..], &["reader", "writer"]] {
            let user = User {
                id: UserId::mint(now, [7; 10]),
                login: LoginName::parse("Ada").expect("a login"),
                display_name: DisplayName::parse("Ada Lovelace").expect("a name"),
                state: UserState::Active,
                roles: Roles::parse(roles).expect("roles"),
                attributes: Attributes::default(),
                credential_epoch: Epoch::FIRST,
                password_epoch: Epoch::FIRST,
                create_time: now,
                update_time: now,
                password_time: None,
            };
            let encoded = encode_user(&user);
            assert_eq!(decode_user(user.id, encoded.whole()), self::user(&user));
            assert_eq!(&encoded.whole()[encoded.login()], b"Ada");
            let principal = decode_principal(user.id, encoded.principal());
            let expected = v1::ValidateSessionResponse {
                user_id: user.id.to_string(),
                login: "Ada".to_owned(),
                roles: user.roles.as_slice().to_vec(),
                ..v1::ValidateSessionResponse::default()
            };
            assert_eq!(principal, expected);
            let id = v1::User { user_id: user.id.to_string(), ..v1::User::default() }.encode_to_vec();
            assert_eq!([&id, encoded.principal()].concat(), expected.encode_to_vec());
            assert_eq!([&id, encoded.whole()].concat(), self::user(&user).encode_to_vec());
        }
    }

    #[test]
    fn moments_before_1970_keep_their_nanoseconds_positive() {
        let time = timestamp(UnixMillis::from_millis(-1));
        assert_eq!((time.seconds, time.nanos), (-1, 999_000_000));
    }
}
