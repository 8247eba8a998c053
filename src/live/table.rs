//! What readers see: sessions by the digests of their tokens. A look-up makes no allocation, takes no lock and writes
//! nothing but the last use.

use std::hash::BuildHasherDefault;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use papaya::HashMap;

use super::digest::DigestHasher;
use super::encoded::EncodedUser;
use super::facts::Standing;
use super::lease::{Lease, Leased};
use super::session::{Held, HeldDead, HeldSession, Verdict};
use super::token_keys::TokenKeySet;
use super::uses::Uses;
use crate::domain::client::{Binding, Client};
use crate::domain::id::{Epoch, SessionId, UserId};
use crate::domain::session::{BindingVerdict, Death, Session};
use crate::domain::time::{BootTime, UnixMillis};
use crate::domain::token::TokenDigest;
use crate::mutation::Mutation;

/// Sessions in memory. Readers share it; the keeper alone changes it.
#[derive(Debug)]
pub struct Table {
    pub(super) sessions: HashMap<TokenDigest, Held, BuildHasherDefault<DigestHasher>>,
    /// Sessions born before are over. Only goes up.
    pub(super) everyone_epoch: AtomicI64,
    pub(super) uses: Uses,
    pub(super) token_keys: TokenKeySet,
}

/// What memory says of a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LookUp<T> {
    /// Its session is good; what was made of it.
    Good(T),
    /// Its session is over.
    Over(Death),
    /// No session has it.
    NotKnown,
    /// The database has to be asked.
    Miss,
}

/// A session that is good, and its user, for as long as the answer is made.
#[derive(Debug)]
pub struct GoodSession<'t> {
    session: &'t HeldSession,
    user: EncodedUser<'t>,
    uses: &'t Uses,
    digest: &'t TokenDigest,
}

impl Table {
    /// An empty one, that queues at most `uses_max` uses to be written down, where no other node uses the sessions.
    pub fn new(uses_max: usize) -> Arc<Self> {
        Self::beside_others(uses_max, Duration::ZERO)
    }

    /// The same where other nodes use the sessions as well: the last uses that come within `lead` of the moment when a
    /// session seems idle to them are to be written before they are answered.
    pub fn beside_others(uses_max: usize, lead: Duration) -> Arc<Self> {
        Arc::new(Self {
            sessions: HashMap::default(),
            everyone_epoch: AtomicI64::new(0),
            uses: Uses::new(uses_max, lead),
            token_keys: TokenKeySet::default(),
        })
    }

    /// Looks up whose session the token of `digest` is, and makes an answer of it if it is good. None while the lease does
    /// not hold by `clock`. `now` turns the moment at which it held into the database's time.
    pub fn look_up<T>(
        &self,
        lease: &Lease,
        clock: impl Fn() -> BootTime,
        digest: &TokenDigest,
        now: impl FnOnce(BootTime) -> UnixMillis,
        answer: impl FnOnce(&GoodSession<'_>) -> T,
    ) -> Option<LookUp<T>> {
        if Mutation::StateBeforeLease.is_on() {
            let found = self.find(digest, now(clock()), answer);
            return lease.ask(clock).map(|_| found);
        }
        let leased = lease.ask(clock)?;
        Some(self.look_up_leased(leased, digest, now(leased.now()), answer))
    }

    /// The same for whoever has asked the lease, at `now`. Only for a question that had come by then: one that comes later
    /// could be told by a lease which has run out since that a session is good whose revocation has returned.
    pub fn look_up_leased<T>(
        &self,
        _leased: Leased,
        digest: &TokenDigest,
        now: UnixMillis,
        answer: impl FnOnce(&GoodSession<'_>) -> T,
    ) -> LookUp<T> {
        self.find(digest, now, answer)
    }

    fn find<T>(
        &self,
        digest: &TokenDigest,
        now: UnixMillis,
        answer: impl FnOnce(&GoodSession<'_>) -> T,
    ) -> LookUp<T> {
        let guard = self.sessions.guard();
        match self.sessions.get(digest, &guard) {
            None => LookUp::Miss,
            Some(Held::Dead(dead)) => dead.told(),
            Some(Held::Session(session)) => {
                // Before the facts of users: where a log begins anew, these are forgotten first.
                let everyone = self.everyone_epoch();
                let facts = session.user.facts();
                // Behind the facts of the user, never before: see `HeldSession::user_epoch`.
                let by_epoch = facts.verdict_on(session.user_epoch());
                let standing = facts.standing();
                match (session.check(&standing, by_epoch, everyone, now), standing) {
                    (Verdict::Good, Standing::Active(user)) => {
                        LookUp::Good(answer(&GoodSession { session, user, uses: &self.uses, digest }))
                    }
                    (Verdict::Over(death), _) => LookUp::Over(death),
                    (Verdict::Good | Verdict::Ask, _) => LookUp::Miss,
                }
            }
        }
    }

    /// Whether the session of the token is past its deadlines if the time is `time`. For whoever was told already that it is
    /// over by them at another time.
    pub fn is_past_deadlines(&self, digest: &TokenDigest, time: UnixMillis) -> bool {
        let guard = self.sessions.guard();
        match self.sessions.get(digest, &guard) {
            Some(Held::Session(session)) => !session.is_within_deadlines(time),
            Some(Held::Dead(_)) | None => false,
        }
    }

    /// The token keys that the database knows.
    pub fn token_keys(&self) -> &TokenKeySet {
        &self.token_keys
    }

    /// The book of uses to be written down.
    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    pub(super) fn everyone_epoch(&self) -> Epoch {
        Epoch::from_i64(self.everyone_epoch.load(Ordering::Acquire))
    }
}

impl HeldDead {
    fn told<T>(&self) -> LookUp<T> {
        self.death.map_or(LookUp::NotKnown, LookUp::Over)
    }
}

impl GoodSession<'_> {
    /// The public name of the session.
    pub fn id(&self) -> SessionId {
        self.session.id
    }

    /// The user's name that never changes.
    pub fn user_id(&self) -> UserId {
        self.session.user.id()
    }

    /// The user as answers tell it, behind the id.
    pub fn user_encoded(&self) -> EncodedUser<'_> {
        self.user
    }

    /// When the person last proved who they are.
    pub fn authenticate_time(&self) -> UnixMillis {
        self.session.terms.authenticate_time(self.session.id)
    }

    /// The absolute end.
    pub fn expire_time(&self) -> UnixMillis {
        self.session.terms.expire_time(self.session.id)
    }

    /// Whether the person asked to be remembered.
    pub fn is_remembered(&self) -> bool {
        self.session.terms.remembered
    }

    /// When the session was made.
    pub fn create_time(&self) -> UnixMillis {
        self.session.terms.create_time(self.session.id)
    }

    /// The last use that this node knows of.
    pub fn last_seen_time(&self) -> UnixMillis {
        self.session.last_use.seen()
    }

    /// How long after its last use the session ends.
    pub fn idle_limit(&self) -> Duration {
        self.session.terms.idle_limit
    }

    /// How the person proved who they are.
    pub fn methods(&self) -> &[String] {
        self.session.terms.methods.as_slice()
    }

    /// The network address of the device; none where it is not known.
    pub fn ip(&self) -> Option<IpAddr> {
        self.session.address.unpack(self.session.terms.address)
    }

    /// The User-Agent header of the device; empty where it is not known.
    pub fn user_agent(&self) -> &str {
        &self.session.terms.user_agent
    }

    /// What the person calls the device; empty where it is not known.
    pub fn device_name(&self) -> &str {
        &self.session.terms.device_name
    }

    /// Whether it would be good as well if the time were `now`.
    pub fn is_good_at(&self, now: UnixMillis) -> bool {
        self.session.is_within_deadlines(now)
    }

    /// What use from `client` does to the session.
    pub fn bound_to(&self, client: &Client, binding: Binding) -> BindingVerdict {
        binding.verdict(self.session.is_used_by(client), self.is_remembered())
    }

    /// Whether a use at `now` has to be written before it is answered, since other nodes are about to take the session for
    /// idle.
    pub fn is_to_be_written_first(&self, now: UnixMillis) -> bool {
        let lead = self.uses.lead;
        !lead.is_zero() && !Mutation::LastUseWrittenLate.is_on() && self.session.seems_idle_within(lead, now)
    }

    /// Counts a use at `now`.
    pub fn note_use(&self, now: UnixMillis) {
        if self.session.note_use(now) {
            self.uses.queue(self.session, *self.digest);
        }
    }

    /// The whole session.
    pub fn to_session(&self) -> Session {
        self.session.to_session()
    }
}
