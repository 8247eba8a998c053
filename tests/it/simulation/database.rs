//! A model of the database: what is committed is there at once and in the order of its numbers, until a fail-over loses
//! the last commits and numbers are given again.

mod ending;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use latchkey::domain::change::{ChangeKind, LogEntry, LoggedChange};
use latchkey::domain::id::{Epoch, LogId, NodeId, Nonce, Position, SessionId, UserId};
use latchkey::domain::session::{EndReason, Session};
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::TokenDigest;
use latchkey::domain::user::{User, UserState};
use latchkey::live::keeper::{Fill, Filled};
use latchkey::mutation::Mutation;
use latchkey::store::coordination::{Joined, LeaseDuration, NodeRow, NodeState, Polled, Roster, ServerId};
use latchkey::store::{Change, Credentials};
use uuid::Uuid;

use super::clock::Moment;
use super::people;

/// What takes validity away, or changes a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revocation {
    Session(SessionId),
    User(UserId, Option<SessionId>),
    Password(UserId, Option<SessionId>),
    Disable(UserId),
    Enable(UserId),
    Everyone,
}

/// A transaction that was begun and is not committed yet.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    what: Revocation,
    /// Only in the broken variant: numbers are not given at the commit, but like those of a sequence.
    number: Option<Position>,
}

/// The database server.
#[derive(Clone, Debug)]
pub struct Database {
    state: State,
    /// What was before each of the last commits, the oldest first.
    before: VecDeque<State>,
    /// How many of them are kept.
    kept_max: usize,
    /// Whether it takes writes.
    pub is_primary: bool,
    /// Which server it is.
    pub server: ServerId,
    /// Its clock.
    pub clock: DatabaseClock,
    nonces: u64,
    sequence: Position,
}

/// The clock of the database server, which may jump.
#[derive(Clone, Copy, Debug, Default)]
pub struct DatabaseClock {
    /// Milliseconds by which it is ahead of the true time.
    pub ahead: i64,
}

impl DatabaseClock {
    /// What it shows.
    pub fn time(self, now: Moment) -> UnixMillis {
        UnixMillis::from_millis(time(now).as_millis() + self.ahead)
    }
}

#[derive(Clone, Debug)]
struct State {
    log: LogId,
    head: Position,
    lease: LeaseDuration,
    everyone: Epoch,
    // Shared with the states of before, as long as nothing in it changes.
    rows: Rc<BTreeMap<Position, LoggedChange>>,
    users: Rc<BTreeMap<UserId, User>>,
    sessions: Rc<BTreeMap<TokenDigest, Session>>,
    digests: Rc<BTreeMap<SessionId, TokenDigest>>,
    nodes: BTreeMap<NodeId, NodeRow>,
}

impl Database {
    /// One that gives leases of `lease`, knows so many users, and can lose up to `kept_max` commits.
    pub fn new(lease: Duration, users: usize, kept_max: usize) -> Self {
        let users = (0..users).map(people::user).map(|user| (user.id, user)).collect();
        let state = State {
            log: LogId::from_uuid(Uuid::from_u128(1)),
            head: Position::ZERO,
            lease: LeaseDuration::settled(lease),
            everyone: Epoch::FIRST,
            rows: Rc::default(),
            users: Rc::new(users),
            sessions: Rc::default(),
            digests: Rc::default(),
            nodes: BTreeMap::new(),
        };
        let (before, nonces, sequence) = (VecDeque::new(), 0, Position::ZERO);
        let clock = DatabaseClock::default();
        Self { state, before, kept_max, is_primary: true, server: ServerId(1), clock, nonces, sequence }
    }

    /// Loses the last `lost` commits, of whatever kind, and says which rows of the log were among them.
    pub fn fail_over(&mut self, lost: usize) -> HashSet<Nonce> {
        let keep = self.before.len().saturating_sub(lost);
        let Some(state) = self.before.drain(keep..).next() else { return HashSet::new() };
        let had = self.nonces();
        self.state = state;
        &had - &self.nonces()
    }

    /// The same, and the list of nodes loses one that had just joined.
    pub fn fail_over_without(&mut self, lost: usize, node: NodeId) {
        self.fail_over(lost);
        self.state.nodes.remove(&node);
    }

    /// The same, and the list of nodes stays as it was: they acknowledged what the log lost.
    pub fn fail_over_of_the_log_alone(&mut self, lost: usize) {
        let nodes = self.state.nodes.clone();
        self.fail_over(lost);
        self.state.nodes = nodes;
    }

    /// Whether the session is there, ended or not.
    pub fn knows(&self, session: SessionId) -> bool {
        self.state.digests.contains_key(&session)
    }

    /// Adds the row of a node. It is never lost: whoever revokes cannot wait for a node that nobody has heard of.
    pub fn insert_node(&mut self, id: NodeId, now: Moment) {
        self.before.clear();
        let (applied, join_time) = (self.state.head, self.clock.time(now));
        let (state, name) = (NodeState::Live, String::new());
        let nonce = self.state.rows.get(&applied).map(|row| row.nonce);
        let row = NodeRow {
            id,
            name,
            state,
            applied,
            nonce,
            is_logged: true,
            join_time,
            heard_time: join_time,
            evict_time: None,
        };
        self.state.nodes.insert(id, row);
    }

    /// Where a node that joined starts.
    pub fn start(&self) -> Joined {
        let position = self.state.head;
        let nonce = self.state.rows.get(&position).map(|row| row.nonce);
        Joined { log: self.state.log, position, nonce }
    }

    /// What a poll reads.
    pub fn poll(&self, node: NodeId, from: Position, limit: usize, now: Moment) -> Polled {
        let state = &self.state;
        Polled {
            log: state.log,
            head: state.head,
            lease: state.lease,
            node: state.nodes.get(&node).map(|row| row.state),
            is_primary: self.is_primary,
            server: self.server,
            time: self.clock.time(now),
            rows: state.rows.range(from..).take(limit).map(|(_, row)| row.clone()).collect(),
        }
    }

    /// Moves the position of a node forward, if the log holds the row that it applied last.
    pub fn acknowledge(&mut self, node: NodeId, applied: Position, nonce: Option<Nonce>, now: Moment) {
        let held = self.state.rows.get(&applied).map(|row| row.nonce);
        if nonce.is_some() && nonce != held {
            return;
        }
        self.begin_commit();
        if let Some(row) = self.state.nodes.get_mut(&node) {
            if row.applied <= applied {
                (row.applied, row.nonce) = (applied, nonce);
            }
            let heard = self.clock.time(now);
            // Another one than before, whatever the clock does.
            let same = row.heard_time == heard;
            row.heard_time = if same { heard.plus(Duration::from_millis(1)) } else { heard };
        }
    }

    /// Removes the row of a node.
    pub fn leave(&mut self, node: NodeId) {
        self.begin_commit();
        self.state.nodes.remove(&node);
    }

    /// The nodes.
    pub fn nodes(&self, now: Moment) -> Roster {
        let logged = |row: &NodeRow| {
            let held = self.state.rows.get(&row.applied).map(|row| row.nonce);
            row.applied == Position::ZERO || (held.is_some() && held == row.nonce)
        };
        let nodes = self.state.nodes.values();
        let nodes = nodes.map(|row| NodeRow { is_logged: logged(row), ..row.clone() }).collect();
        Roster { time: self.clock.time(now), head: self.state.head, lease: self.state.lease, nodes }
    }

    /// Marks a silent node.
    pub fn mark_evicting(&mut self, node: NodeId, heartbeat: UnixMillis, now: Moment) {
        self.begin_commit();
        let row = self.state.nodes.get_mut(&node);
        let silent = |row: &&mut NodeRow| row.state == NodeState::Live && row.heard_time == heartbeat;
        if let Some(row) = row.filter(silent) {
            row.state = NodeState::Evicting;
            row.evict_time = Some(self.clock.time(now));
        }
    }

    /// Removes the row of an evicting node.
    pub fn remove_evicted(&mut self, node: NodeId) {
        self.begin_commit();
        if self.state.nodes.get(&node).is_some_and(|row| row.state == NodeState::Evicting) {
            self.state.nodes.remove(&node);
        }
    }

    /// How long leases are.
    pub fn lease(&self) -> LeaseDuration {
        self.state.lease
    }

    /// Writes how long leases are, if that still is `from`. Like the row of a node it is never lost.
    pub fn change_lease(&mut self, from: LeaseDuration, to: LeaseDuration) {
        if self.state.lease == from {
            self.before.clear();
            self.state.lease = to;
        }
    }

    /// What a sign-in decides on.
    pub fn credentials(&self, user: UserId) -> Credentials {
        let user = self.state.users[&user].clone();
        let (everyone_epoch, position) = (self.state.everyone, self.state.head);
        Credentials { user, password_hash: None, everyone_epoch, position }
    }

    /// Adds a session.
    pub fn create_session(&mut self, digest: TokenDigest, session: Session) {
        self.begin_commit();
        Rc::make_mut(&mut self.state.digests).insert(session.id, digest);
        Rc::make_mut(&mut self.state.sessions).insert(digest, session);
    }

    /// Reads sessions for memory.
    pub fn read(&self, asked: &[TokenDigest]) -> Fill {
        let find = |digest: &TokenDigest| {
            let session = self.state.sessions.get(digest)?.clone();
            let user = self.state.users.get(&session.user_id).cloned();
            Some(Filled { digest: *digest, session, user })
        };
        Fill {
            position: self.state.head,
            everyone_epoch: self.state.everyone,
            asked: asked.to_vec(),
            found: asked.iter().filter_map(find).collect(),
        }
    }

    /// Gives the log another name, as after a restore from a backup of the first moment, and ends everyone's sessions.
    pub fn start_new_log(&mut self, now: Moment) {
        self.state.log = LogId::from_uuid(Uuid::from_u128(2));
        self.state.everyone = Epoch::FIRST;
        for user in Rc::make_mut(&mut self.state.users).values_mut() {
            (user.credential_epoch, user.password_epoch) = (Epoch::FIRST, Epoch::FIRST);
        }
        self.revoke(Revocation::Everyone, now);
    }

    /// Begins a revocation.
    pub fn begin(&mut self, what: Revocation) -> Begun {
        let number = Mutation::NumberFromASequence.is_on().then(|| {
            self.sequence = self.sequence.next();
            self.sequence
        });
        Begun { what, number }
    }

    /// Commits it. What is in force already writes nothing.
    pub fn commit(&mut self, begun: Begun, now: Moment) -> Change {
        self.begin_commit();
        let row = |kind, user, session, epoch| Some(entry(kind, user, session, epoch));
        let entry = match begun.what {
            Revocation::Session(id) => self.end_one(id, now).then(|| {
                let user = self.session(id).map(|session| session.user_id);
                entry(ChangeKind::SessionEnded, user, Some(id), None)
            }),
            Revocation::User(id, except) => {
                let (kept, epoch) = self.end_all(id, except, EndReason::Revoked, now);
                row(ChangeKind::UserSessionsEnded, Some(id), kept, Some(epoch))
            }
            Revocation::Password(id, except) => {
                let (kept, epoch) = self.end_all(id, except, EndReason::CredentialsChanged, now);
                self.user_mut(id).password_epoch = epoch;
                row(ChangeKind::PasswordChanged, Some(id), kept, Some(epoch))
            }
            Revocation::Disable(id) if self.user_mut(id).state == UserState::Active => {
                let (_, epoch) = self.end_all(id, None, EndReason::UserDisabled, now);
                self.user_mut(id).state = UserState::Disabled;
                row(ChangeKind::UserDisabled, Some(id), None, Some(epoch))
            }
            Revocation::Disable(_) => None,
            Revocation::Enable(id) => {
                let user = self.user_mut(id);
                user.state = UserState::Active;
                let epoch = user.credential_epoch;
                row(ChangeKind::UserChanged, Some(id), None, Some(epoch))
            }
            Revocation::Everyone => {
                self.state.everyone = self.state.everyone.next();
                row(ChangeKind::EveryoneEnded, None, None, Some(self.state.everyone))
            }
        };
        let rows: Vec<_> = entry.into_iter().map(|entry| self.append(entry, begun.number, now)).collect();
        Change { ended: 0, position: rows.last().map_or(self.state.head, |row| row.position), rows }
    }

    /// Begins a revocation and commits it.
    pub fn revoke(&mut self, what: Revocation, now: Moment) -> Change {
        let begun = self.begin(what);
        self.commit(begun, now)
    }

    /// Writes again what was lost, and says what the last row of the log is.
    pub fn write_again(&mut self, lost: &[LoggedChange], now: Moment) -> Option<(Position, Nonce)> {
        self.begin_commit();
        for change in lost {
            self.write_one_again(change, now);
        }
        self.state.rows.get(&self.state.head).map(|row| (row.position, row.nonce))
    }

    fn write_one_again(&mut self, change: &LoggedChange, now: Moment) {
        let entry = match (change.kind(), change.user(), change.session(), change.epoch()) {
            (ChangeKind::SessionEnded, _, Some(session), _) => {
                self.end_one(session, now).then_some(change.entry)
            }
            (ChangeKind::UserChanged, ..) => Some(change.entry),
            (ChangeKind::EveryoneEnded, .., Some(epoch)) if self.state.everyone < epoch => {
                self.state.everyone = epoch;
                Some(change.entry)
            }
            (kind, Some(user), except, Some(epoch)) if self.user_mut(user).credential_epoch < epoch => {
                let reason = if kind == ChangeKind::PasswordChanged {
                    EndReason::CredentialsChanged
                } else {
                    EndReason::Revoked
                };
                let before = Epoch::from_i64(epoch.as_i64() - 1);
                let kept = self.end_all_from(user, before, except, reason, now);
                if kind == ChangeKind::PasswordChanged {
                    self.user_mut(user).password_epoch = epoch;
                }
                if kind == ChangeKind::UserDisabled {
                    self.user_mut(user).state = UserState::Disabled;
                }
                Some(entry(kind, Some(user), kept, Some(epoch)))
            }
            _ => None,
        };
        if let Some(entry) = entry {
            self.append(entry, None, now);
        }
    }

    fn append(&mut self, entry: LogEntry, number: Option<Position>, now: Moment) -> LoggedChange {
        let position = number.unwrap_or_else(|| self.state.head.next());
        self.nonces += 1;
        let nonce = Nonce(self.nonces.to_le_bytes());
        let row = LoggedChange { position, nonce, entry, time: time(now) };
        self.state.head = self.state.head.max(position);
        Rc::make_mut(&mut self.state.rows).insert(position, row.clone());
        row
    }

    fn session(&self, id: SessionId) -> Option<&Session> {
        self.state.digests.get(&id).and_then(|digest| self.state.sessions.get(digest))
    }

    fn user_mut(&mut self, id: UserId) -> &mut User {
        Rc::make_mut(&mut self.state.users).get_mut(&id).expect("users are never removed")
    }

    /// Something is committed: what was before is kept, as far as it can be lost.
    fn begin_commit(&mut self) {
        if self.kept_max > 0 {
            self.before.push_back(self.state.clone());
            if self.before.len() > self.kept_max {
                self.before.pop_front();
            }
        }
    }

    fn nonces(&self) -> HashSet<Nonce> {
        self.state.rows.values().map(|row| row.nonce).collect()
    }
}

/// What a clock that is right shows.
pub fn time(now: Moment) -> UnixMillis {
    people::NOW.plus(now.age())
}

fn entry(
    kind: ChangeKind,
    user: Option<UserId>,
    session: Option<SessionId>,
    epoch: Option<Epoch>,
) -> LogEntry {
    LogEntry::from_columns(kind.as_i16(), user, session, epoch, None).expect("the fields of its kind")
}
