//! A session, and the one rule that says whether it still stands.
//!
//! Validity is computed from deadlines, epochs and `now` on every read, never from what a sweeper has or has not removed.

use std::time::Duration;

use super::client::{Binding, Client};
use super::id::{Epoch, SessionId, UserId};
use super::invalid::Invalid;
use super::time::UnixMillis;
use super::user::{User, UserState, name};

/// Ways of proving who one is that a session may name.
pub const METHODS_MAX: usize = 8;

/// One signed-in device of one user, from sign-in to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    /// The public name.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// The user's credential epoch it was born with, or was re-stamped with when its siblings were ended.
    pub user_epoch: Epoch,
    /// The epoch of everyone it was born with.
    pub everyone_epoch: Epoch,
    /// When it was made, database time.
    pub create_time: UnixMillis,
    /// When the person last proved who they are.
    pub authenticate_time: UnixMillis,
    /// Its absolute end.
    pub expire_time: UnixMillis,
    /// When it was last used, as far as the database knows.
    pub last_seen_time: UnixMillis,
    /// How long it may go unused.
    pub idle_limit: Duration,
    /// Whether the person asked to be remembered.
    pub remembered: bool,
    /// How the person proved who they are (RFC 8176 names).
    pub methods: Methods,
    /// The device that signed in.
    pub client: Client,
    /// When and why it was ended before its time, if it was.
    pub ended: Option<Ended>,
}

/// The end of a session that did not simply run out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// When, database time.
    pub time: UnixMillis,
    /// Why.
    pub reason: EndReason,
}

/// Why a session was ended. The numbers are what the database holds and never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndReason {
    /// Logged out, or ended by an administrator.
    Revoked = 1,
    /// The password changed.
    CredentialsChanged = 2,
    /// The user was disabled or deleted.
    UserDisabled = 3,
    /// The person proved again who they are and got a new token.
    Replaced = 4,
    /// The user signed in on more devices than allowed, and this session was the oldest.
    Capped = 5,
    /// It was used from another device under strong binding.
    BindingMismatch = 6,
}

impl EndReason {
    /// The number that the database holds.
    pub const fn as_i16(self) -> i16 {
        self as i16
    }

    /// Reads the number back.
    pub const fn from_i16(number: i16) -> Option<Self> {
        Some(match number {
            1 => Self::Revoked,
            2 => Self::CredentialsChanged,
            3 => Self::UserDisabled,
            4 => Self::Replaced,
            5 => Self::Capped,
            6 => Self::BindingMismatch,
            _ => return None,
        })
    }
}

/// How far ahead of `now` a session may have been made. One from beyond that was made under a clock that was wrong, and
/// would outlive its lifetime by as much, perhaps by decades. Clocks that are wrong by hours, as by a time zone, end no
/// session.
pub const FUTURE_MAX: Duration = Duration::from_hours(24);

/// Why a session is not good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// Past its absolute or idle deadline.
    Expired,
    /// Ended by log-out or an administrator.
    Revoked,
    /// Ended because the password changed.
    CredentialsChanged,
    /// The user is disabled or gone.
    UserDisabled,
    /// Ended because it was used from another device.
    BindingMismatch,
}

impl From<EndReason> for Death {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Revoked | EndReason::Replaced | EndReason::Capped => Self::Revoked,
            EndReason::CredentialsChanged => Self::CredentialsChanged,
            EndReason::UserDisabled => Self::UserDisabled,
            EndReason::BindingMismatch => Self::BindingMismatch,
        }
    }
}

impl Session {
    /// Whether the session stands at `now`. `user` is its user as of the same read, none when the user is gone;
    /// `last_seen` is the latest use that this node knows of.
    pub fn check(
        &self,
        user: Option<&User>,
        everyone: Epoch,
        last_seen: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), Death> {
        // The reason never changes. Whatever ends the sessions of a user marks those that had not ended; so one without a
        // mark was ended by the epoch of everyone first, if by both.
        if let Some(ended) = self.ended {
            return Err(ended.reason.into());
        }
        if self.everyone_epoch != everyone {
            return Err(Death::Revoked);
        }
        let Some(user) = user.filter(|user| user.state == UserState::Active) else {
            return Err(Death::UserDisabled);
        };
        if self.user_epoch != user.credential_epoch {
            let password = self.user_epoch < user.password_epoch;
            return Err(if password { Death::CredentialsChanged } else { Death::Revoked });
        }
        if self.create_time > now.plus(FUTURE_MAX) {
            return Err(Death::Expired);
        }
        if now >= self.expire_time || now >= self.last_seen_time.max(last_seen).plus(self.idle_limit) {
            return Err(Death::Expired);
        }
        Ok(())
    }

    /// The absolute life it was given, which a session in its place gets as well. (The end was cut to whole seconds.)
    pub fn lifetime(&self) -> Duration {
        let millis = self.expire_time.since(self.create_time).as_millis();
        Duration::from_secs(u64::try_from(millis.div_ceil(1_000)).unwrap_or(u64::MAX))
    }

    /// Whether the person proved who they are within `window` before `now`.
    pub fn is_fresh(&self, window: Duration, now: UnixMillis) -> bool {
        now.since(self.authenticate_time) < window
    }

    /// What use from `client` does to the session.
    pub fn bound_to(&self, client: &Client, binding: Binding) -> BindingVerdict {
        binding.verdict(self.client.matches(client), self.remembered)
    }
}

impl Binding {
    /// What use does to a session, by whether it comes from the `same_device` and whether the session is `remembered`.
    pub fn verdict(self, same_device: bool, remembered: bool) -> BindingVerdict {
        if self == Self::None || same_device {
            BindingVerdict::Same
        } else if self == Self::Strong && !remembered {
            BindingVerdict::Ends
        } else {
            BindingVerdict::NotFresh
        }
    }
}

/// What use from a device does to a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BindingVerdict {
    /// Nothing.
    Same,
    /// It does not count as fresh in this answer.
    NotFresh,
    /// It ends.
    Ends,
}

/// How the person proved who they are: up to [`METHODS_MAX`] names such as `pwd` or `otp` (RFC 8176).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Methods(Vec<String>);

impl Methods {
    /// Reads the names; at least one.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, Invalid> {
        if names.is_empty() || names.len() > METHODS_MAX {
            return Err(Invalid::new(format!(
                "must hold 1 to {METHODS_MAX} names such as `pwd` or `otp` (RFC 8176)"
            )));
        }
        names.iter().map(|method| name(method.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// By password.
    pub fn password() -> Self {
        Self(vec!["pwd".to_owned()])
    }

    /// The names.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// How long sessions live. None of the spans may be without end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionPolicy {
    /// Absolute life of a session.
    pub lifetime: Duration,
    /// How long a session may go unused.
    pub idle_limit: Duration,
    /// Absolute life of a remembered session.
    pub remembered_lifetime: Duration,
    /// How long a remembered session may go unused.
    pub remembered_idle_limit: Duration,
    /// How long after proving who they are a person counts as fresh.
    pub fresh_window: Duration,
    /// Sessions a user may hold; the oldest ends when one more begins.
    pub per_user_max: u32,
    /// What use from another device does.
    pub binding: Binding,
}

impl SessionPolicy {
    /// The absolute and the idle span of a new session; a requested lifetime can only shorten it.
    pub fn spans(&self, remember: bool, requested: Option<Duration>) -> (Duration, Duration) {
        let (lifetime, idle) = if remember {
            (self.remembered_lifetime, self.remembered_idle_limit)
        } else {
            (self.lifetime, self.idle_limit)
        };
        (requested.map_or(lifetime, |span| span.min(lifetime)), idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::login_name::LoginName;

    const NOW: UnixMillis = UnixMillis::from_millis(1_000_000_000);

    fn user() -> User {
        User {
            id: UserId::mint(NOW, [0; 10]),
            login: LoginName::parse("ada").expect("a login"),
            display_name: crate::domain::user::DisplayName::default(),
            state: UserState::Active,
            roles: crate::domain::user::Roles::default(),
            attributes: crate::domain::user::Attributes::default(),
            credential_epoch: Epoch::FIRST,
            password_epoch: Epoch::FIRST,
            create_time: NOW,
            update_time: NOW,
            password_time: None,
        }
    }

    fn session() -> Session {
        Session {
            id: SessionId::mint(NOW, [0; 10]),
            user_id: user().id,
            user_epoch: Epoch::FIRST,
            everyone_epoch: Epoch::FIRST,
            create_time: NOW,
            authenticate_time: NOW,
            expire_time: NOW.plus(Duration::from_secs(100)),
            last_seen_time: NOW,
            idle_limit: Duration::from_secs(10),
            remembered: false,
            methods: Methods::password(),
            client: Client::parse("192.0.2.1", "a", "").expect("a client"),
            ended: None,
        }
    }

    fn check(session: &Session, user: &User, now: UnixMillis) -> Result<(), Death> {
        session.check(Some(user), Epoch::FIRST, session.last_seen_time, now)
    }

    #[test]
    fn deadlines_hold_to_the_millisecond() {
        let mut session = session();
        let idle_end = NOW.plus(Duration::from_secs(10));
        assert_eq!(check(&session, &user(), idle_end.minus(Duration::from_millis(1))), Ok(()));
        assert_eq!(check(&session, &user(), idle_end), Err(Death::Expired));
        assert_eq!(session.check(Some(&user()), Epoch::FIRST, idle_end, idle_end), Ok(()), "used since");
        session.last_seen_time = NOW.plus(Duration::from_secs(99));
        assert_eq!(check(&session, &user(), session.expire_time.minus(Duration::from_millis(1))), Ok(()));
        assert_eq!(check(&session, &user(), session.expire_time), Err(Death::Expired));
    }

    #[test]
    fn every_way_to_end_has_its_reason() {
        let (good, active) = (session(), user());
        assert_eq!(good.check(None, Epoch::FIRST, NOW, NOW), Err(Death::UserDisabled), "deleted");
        let disabled = User { state: UserState::Disabled, ..user() };
        assert_eq!(check(&good, &disabled, NOW), Err(Death::UserDisabled));
        let ended_all = User { credential_epoch: Epoch::FIRST.next(), ..user() };
        assert_eq!(check(&good, &ended_all, NOW), Err(Death::Revoked));
        let changed = User { password_epoch: Epoch::FIRST.next(), ..ended_all };
        assert_eq!(check(&good, &changed, NOW), Err(Death::CredentialsChanged));
        assert_eq!(good.check(Some(&active), Epoch::FIRST.next(), NOW, NOW), Err(Death::Revoked), "everyone");
        for number in 1..=6 {
            let reason = EndReason::from_i16(number).expect("a reason");
            assert_eq!(reason.as_i16(), number);
            let ended = Session { ended: Some(Ended { time: NOW, reason }), ..session() };
            assert_eq!(check(&ended, &active, NOW), Err(reason.into()));
        }
        assert_eq!((EndReason::from_i16(0), EndReason::from_i16(7)), (None, None));
    }

    #[test]
    fn a_session_from_the_future_epoch_is_not_good_either() {
        let ahead = Session { user_epoch: Epoch::FIRST.next(), ..session() };
        assert_eq!(check(&ahead, &user(), NOW), Err(Death::Revoked));
    }

    #[test]
    fn a_session_from_beyond_tomorrow_does_not_live_for_decades() {
        let decades = Duration::from_hours(24 * 365 * 30);
        let made = |ahead| {
            let (create_time, expire_time) = (NOW.plus(ahead), NOW.plus(ahead + Duration::from_secs(100)));
            Session { create_time, expire_time, last_seen_time: create_time, ..session() }
        };
        assert_eq!(check(&made(FUTURE_MAX), &user(), NOW), Ok(()), "clocks are wrong by hours");
        for ahead in [FUTURE_MAX + Duration::from_millis(1), decades] {
            assert_eq!(check(&made(ahead), &user(), NOW), Err(Death::Expired));
        }
    }

    #[test]
    fn freshness_is_a_half_open_window() {
        let window = Duration::from_secs(5);
        assert!(session().is_fresh(window, NOW.plus(Duration::from_millis(4_999))));
        assert!(!session().is_fresh(window, NOW.plus(window)));
    }

    #[test]
    fn binding_ends_only_what_it_should() {
        let elsewhere = Client::parse("198.51.100.1", "a", "").expect("a client");
        let remembered = Session { remembered: true, ..session() };
        assert_eq!(session().bound_to(&elsewhere, Binding::None), BindingVerdict::Same);
        assert_eq!(session().bound_to(&elsewhere, Binding::Basic), BindingVerdict::NotFresh);
        assert_eq!(session().bound_to(&elsewhere, Binding::Strong), BindingVerdict::Ends);
        assert_eq!(remembered.bound_to(&elsewhere, Binding::Strong), BindingVerdict::NotFresh);
        assert_eq!(session().bound_to(&session().client, Binding::Strong), BindingVerdict::Same);
    }

    #[test]
    fn a_requested_lifetime_only_shortens() {
        let policy = SessionPolicy {
            lifetime: Duration::from_secs(100),
            idle_limit: Duration::from_secs(10),
            remembered_lifetime: Duration::from_secs(1_000),
            remembered_idle_limit: Duration::from_secs(500),
            fresh_window: Duration::from_secs(5),
            per_user_max: 50,
            binding: Binding::None,
        };
        assert_eq!(policy.spans(false, None), (Duration::from_secs(100), Duration::from_secs(10)));
        assert_eq!(policy.spans(false, Some(Duration::from_secs(7))).0, Duration::from_secs(7));
        assert_eq!(policy.spans(false, Some(Duration::MAX)).0, Duration::from_secs(100));
        assert_eq!(policy.spans(true, None), (Duration::from_secs(1_000), Duration::from_secs(500)));
    }
}
