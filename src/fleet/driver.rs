//! The I/O around a member: one thread that polls the log over a connection of its own, and is the one writer of memory.
//! Whatever others want memory to take in comes here as a command.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::follower::{Asked, Refused};
use super::hearing::{Hearing, hinted};
use super::member::{Member, Next};
use super::seen_changes::{LostBatch, SEEN_AGE_MAX, SEEN_BYTES_MAX};
use super::shared::{Shared, count};
use crate::domain::change::LoggedChange;
use crate::domain::id::{NodeId, Nonce, Position};
use crate::domain::time::BootTime;
use crate::host::{self, Entropy};
use crate::live::keeper::{EndKnown, Fill};
use crate::store::coordination::{AckCommit, Joined, NewNode, Polled, WRITE_AGAIN_MAX, WrittenAgain};
use crate::store::{self, Stamp, StoreError};

/// Rows of the log that one poll reads at most.
const ROWS_MAX: u32 = 1_000;
/// Commands that are obeyed between two looks at the log.
const COMMANDS_MAX: usize = 256;
/// How long to wait before asking again for hints that could not be had.
const HINT_RETRY: Duration = Duration::from_secs(1);
/// How often the loop turns at least, which shows that the thread works.
const TURN_INTERVAL: Duration = Duration::from_secs(1);
/// How long leaving the fleet may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one question may take where leases are short, or not known yet: a part of a lease otherwise, so that a
/// connection that died silently is given up while there is still time to ask over another one.
const QUESTION_LIMIT_MIN: Duration = Duration::from_millis(500);
const QUESTION_LIMIT_FIRST: Duration = Duration::from_millis(1_500);
const QUESTIONS_PER_LEASE: u32 = 3;

/// What memory shall take in. Each is acknowledged when it did.
pub(super) enum Command {
    /// Rows that this node has written.
    Apply(Vec<LoggedChange>, oneshot::Sender<()>),
    /// What was read, and under which id this node was in the fleet when the read began.
    Fill(Option<NodeId>, Fill, oneshot::Sender<()>),
    /// A change whose outcome is unknown.
    EndKnown(EndKnown, oneshot::Sender<()>),
}

/// The follower's thread.
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) member: Member,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) name: String,
    pub(super) poll: Duration,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) stop: CancellationToken,
    /// Ids whose rows may be in the list of nodes although this node does not go by them.
    pub(super) left_behind: Vec<NodeId>,
    /// Lost changes that are written again together; fewer after each attempt that failed.
    pub(super) batch: usize,
    /// The id by which it tries to join.
    pub(super) joining: Option<NodeId>,
    /// What of the log could not be read at the last poll, so that the log says it once.
    pub(super) unreadable: Option<String>,
    /// Whether it ran before: then it ended in a panic.
    pub(super) has_run: bool,
}

/// Gives the lease up however the thread ends: where nobody applies rows any more, nobody may answer.
struct GiveUp(Arc<Shared>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.lease.give_up();
        self.0.set_node(None);
    }
}

/// An acknowledgement that is on its way.
#[derive(Clone, Copy)]
struct Ack {
    position: Position,
    commit: AckCommit,
    sent: BootTime,
}

/// Gives the lease up at once where a step on memory panics. Declared after whatever wakes a waiter when it is dropped: a
/// revoker that stops waiting must not find a lease.
struct GiveUpOnPanic<'a>(&'a Shared);

impl Drop for GiveUpOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lease.give_up();
        }
    }
}

/// What was asked of the database, and came back.
enum Done {
    Joined(NodeId, BootTime, store::Result<Joined>),
    WroteAgain(LostBatch, store::Result<WrittenAgain>),
    Polled(Asked, store::Result<Polled>),
    Acknowledged(Ack, store::Result<()>),
    /// It is time for the next poll.
    Idled,
}

impl Driver {
    /// Follows the log until told to stop.
    /// Called again after a panic, it begins anew.
    pub(super) async fn run(&mut self) {
        let (stop, shared) = (self.stop.clone(), Arc::clone(&self.shared));
        let _give_up = GiveUp(Arc::clone(&shared));
        if std::mem::replace(&mut self.has_run, true) {
            self.begin_anew();
        }
        let mut work = self.join();
        let (mut hint, mut hearing) = (hinted(Arc::clone(&shared), Duration::ZERO), Hearing::default());
        let mut commands = Vec::new();
        let mut turns = tokio::time::interval(TURN_INTERVAL);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = turns.tick() => count(&shared.counts.follower_turns),
                done = &mut work => work = self.go_on(done),
                count = self.commands.recv_many(&mut commands, COMMANDS_MAX) => {
                    if count == 0 {
                        // Nobody is left who could ask this node anything.
                        break;
                    }
                    self.obey_all(&mut commands);
                }
                heard = &mut hint => {
                    hearing.hear(&heard, &shared.counts, shared.clock.boottime());
                    shared.nudged.notify_one();
                    hint = hinted(Arc::clone(&shared), if heard.is_ok() { Duration::ZERO } else { HINT_RETRY });
                }
            }
        }
    }

    /// Leaves the fleet, so that nobody waits for this node.
    pub(super) async fn leave(&mut self) {
        let shared = Arc::clone(&self.shared);
        shared.set_node(None);
        self.left_behind.extend(self.member.leave().into_iter().chain(self.joining));
        for node in std::mem::take(&mut self.left_behind) {
            match tokio::time::timeout(LEAVE_TIMEOUT, shared.coordination.leave(node)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "this node did not leave the fleet by itself"),
                Err(_) => tracing::warn!("this node could not leave the fleet in time"),
            }
        }
    }

    /// A panic may have left memory torn: what was alive is forgotten and read again, what was over stays over, and the
    /// node joins under a new id.
    fn begin_anew(&mut self) {
        self.left_behind.extend(self.member.recover().into_iter().chain(self.joining.take()));
        self.unreadable = None;
        self.shared.set_holding(self.member.holding());
    }

    /// Takes in what came back, and begins what is next.
    fn go_on(&mut self, done: Done) -> BoxFuture<'static, Done> {
        match done {
            Done::Joined(node, sent, Ok(joined)) => self.joined(node, joined, sent),
            Done::Joined(_, _, Err(error)) => {
                tracing::warn!(%error, "this node cannot join the fleet; it tries again");
                self.poll_failed()
            }
            Done::WroteAgain(batch, written) => self.wrote_again(&batch, written),
            Done::Polled(asked, Ok(polled)) => self.hear(asked, &polled),
            Done::Polled(_, Err(StoreError::Corrupt(why))) => self.corrupt(&why),
            Done::Polled(asked, Err(error)) => {
                tracing::debug!(%error, "the log was not read; it is tried again");
                let pause = self.poll_failed();
                // Who waited that long for the answer has waited enough.
                let waited = self.shared.clock.boottime().since(asked.at);
                if waited >= self.poll { self.ask() } else { pause }
            }
            Done::Acknowledged(Ack { position, commit, sent }, Ok(())) => {
                self.member.acknowledged(position, commit, sent, self.shared.clock.boottime());
                self.idle()
            }
            Done::Acknowledged(Ack { commit, sent, .. }, Err(error)) => {
                self.member.not_acknowledged(commit, sent);
                tracing::debug!(%error, "a position was not acknowledged; it is tried again");
                self.idle()
            }
            Done::Idled => self.ask(),
        }
    }

    fn joined(&mut self, node: NodeId, joined: Joined, sent: BootTime) -> BoxFuture<'static, Done> {
        self.left_behind.clear();
        self.joining = None;
        self.member.joined(node, joined, sent);
        self.shared.set_node(Some(node));
        count(&self.shared.counts.starts);
        tracing::info!(node_id = %node, position = joined.position.as_i64(), "this node joined the fleet");
        self.ask()
    }

    fn hear(&mut self, asked: Asked, polled: &Polled) -> BoxFuture<'static, Done> {
        if self.unreadable.take().is_some() {
            tracing::info!("the change log can be read again");
        }
        let (shared, now) = (Arc::clone(&self.shared), self.shared.clock.boottime());
        shared.counts.head.store(polled.head.as_i64(), Ordering::Relaxed);
        shared.time.learn(polled.time, asked.at, now);
        let heard = self.member.hear(asked, polled, now);
        shared.set_known_lease(self.member.known_lease());
        shared.counts.applied.store(self.member.applied().as_i64(), Ordering::Release);
        if heard.is_ok() {
            shared.counts.asked_nanos.store(asked.at.as_nanos(), Ordering::Release);
        }
        let next = match heard {
            Ok(Next::Acknowledge(position, commit)) => self.acknowledge(position, commit),
            Ok(Next::Again) => self.ask(),
            Ok(Next::Idle) => self.idle(),
            Ok(Next::Wait) => self.wait(),
            Ok(Next::Join) => self.join(),
            Err(refused) => self.refused(refused, polled.head),
        };
        if self.member.applied() < polled.head {
            shared.nudged.notify_one();
        }
        count(&shared.counts.polls);
        shared.set_holding(self.member.holding());
        shared.polled.notify_waiters();
        next
    }

    fn refused(&mut self, refused: Refused, head: Position) -> BoxFuture<'static, Done> {
        tracing::error!(?refused, "this node may not answer from memory any more");
        if refused.lost_commits() {
            count(&self.shared.counts.chain_breaks);
            let (kept, dropped) = self.member.kept_and_dropped(head);
            self.shared.counts.changes_forgotten.fetch_add(dropped, Ordering::Relaxed);
            tracing::error!(
                kept,
                position = self.member.applied().as_i64(),
                "the change log no longer holds the row that this node applied last: the database lost committed \
                 changes, or deleted them while this node was silent; those that it saw are written again"
            );
            if dropped > 0 {
                tracing::error!(
                    dropped,
                    hours_max = SEEN_AGE_MAX.as_secs() / 3_600,
                    bytes_max = SEEN_BYTES_MAX,
                    "lost changes may be beyond repair, because this node no longer kept them: end the sessions that \
                     they were to end, or everyone's with `latchkey fleet new-log`"
                );
            }
        }
        if refused.needs_new_start() {
            self.left_behind.extend(self.member.leave());
            self.shared.set_node(None);
        }
        self.wait()
    }

    /// The log holds a row that this node cannot apply, so it cannot know the latest state. It polls on: the row may be
    /// repaired, or this node replaced by a version that knows it.
    fn corrupt(&mut self, why: &str) -> BoxFuture<'static, Done> {
        self.shared.lease.give_up();
        if self.unreadable.as_deref() != Some(why) {
            tracing::error!(why, "the change log cannot be read; this node answers UNAVAILABLE until it can");
            self.unreadable = Some(why.to_owned());
        }
        self.poll_failed()
    }

    /// Leaves under the ids of before, which hold no lease any more. Then it writes a batch of what was lost again, or
    /// joins anew where nothing is left to write.
    fn join(&mut self) -> BoxFuture<'static, Done> {
        self.left_behind.extend(self.member.leave());
        self.shared.set_node(None);
        let time = self.shared.time.now();
        let stamp = Stamp { time, nonce: Nonce(host::random(&*self.entropy)) };
        // Where the answer is lost, the row may be there all the same, and everybody would wait for it: the next attempt
        // removes it first. Nobody ever held a lease by that id, so it is taken again.
        let before: Vec<_> = self.left_behind.iter().copied().chain(self.joining).collect();
        let mint = || NodeId::mint(time, host::random(&*self.entropy));
        let node = NewNode { id: *self.joining.get_or_insert_with(mint), name: self.name.clone() };
        let coordination = Arc::clone(&self.shared.coordination);
        let clock = Arc::clone(&self.shared.clock);
        let lost = self.member.to_write_again(self.batch);
        async move {
            let sent = clock.boottime();
            for before in before {
                if let Err(error) = coordination.leave(before).await {
                    return Done::Joined(node.id, sent, Err(error));
                }
            }
            if let Some(lost) = lost {
                let written = coordination.write_again(&lost.changes, stamp).await;
                return Done::WroteAgain(lost, written);
            }
            let sent = clock.boottime();
            Done::Joined(node.id, sent, coordination.join(node.clone()).await)
        }
        .boxed()
    }

    /// A batch of lost changes was written again, or could not be: then fewer are tried together.
    fn wrote_again(
        &mut self,
        batch: &LostBatch,
        written: store::Result<WrittenAgain>,
    ) -> BoxFuture<'static, Done> {
        match written {
            Ok(WrittenAgain { last, .. }) => {
                self.left_behind.clear();
                let count = u64::try_from(batch.changes.len()).unwrap_or(u64::MAX);
                self.shared.counts.changes_written_again.fetch_add(count, Ordering::Relaxed);
                self.member.wrote_again(batch, last);
                self.batch = self.batch.saturating_mul(2).min(WRITE_AGAIN_MAX);
                if self.member.to_write_again(1).is_none() {
                    tracing::info!("the lost changes that this node has seen are in force again");
                }
                self.join()
            }
            Err(error) => {
                let changes = batch.changes.len();
                tracing::warn!(%error, changes, "lost changes were not written again; this node tries again");
                self.batch = (changes / 2).max(1);
                self.poll_failed()
            }
        }
    }

    fn ask(&mut self) -> BoxFuture<'static, Done> {
        let (Some(node), Some(asked)) = (self.member.node(), self.member.ask(self.shared.clock.boottime()))
        else {
            return self.join();
        };
        let (coordination, limit) = (Arc::clone(&self.shared.coordination), self.question_limit());
        async move { Done::Polled(asked, answered(limit, coordination.poll(node, asked.from, ROWS_MAX)).await) }
            .boxed()
    }

    fn acknowledge(&mut self, position: Position, commit: AckCommit) -> BoxFuture<'static, Done> {
        let Some(node) = self.member.node() else { return self.join() };
        let (coordination, limit) = (Arc::clone(&self.shared.coordination), self.question_limit());
        let nonce = self.member.nonce();
        // Before a connection is asked for, as with a poll: the lease counts from here.
        let ack = Ack { position, commit, sent: self.shared.clock.boottime() };
        async move {
            let acknowledged = coordination.acknowledge(node, position, nonce, commit);
            Done::Acknowledged(ack, answered(limit, acknowledged).await)
        }
        .boxed()
    }

    /// How long one question may take.
    fn question_limit(&self) -> Duration {
        let part = |lease: Duration| (lease / QUESTIONS_PER_LEASE).max(QUESTION_LIMIT_MIN);
        self.shared.known_lease().map_or(QUESTION_LIMIT_FIRST, |known| part(known.lease.current))
    }

    /// Waits for the next poll, or for a hint that there is something to read.
    fn idle(&self) -> BoxFuture<'static, Done> {
        let (shared, poll) = (Arc::clone(&self.shared), self.poll);
        async move {
            tokio::select! {
                biased;
                () = shared.nudged.notified() => {}
                () = pause(poll) => {}
            }
            Done::Idled
        }
        .boxed()
    }

    /// Waits for the next poll whatever hints come, since the last one failed.
    fn wait(&self) -> BoxFuture<'static, Done> {
        let poll = self.poll;
        async move {
            pause(poll).await;
            Done::Idled
        }
        .boxed()
    }

    fn poll_failed(&self) -> BoxFuture<'static, Done> {
        count(&self.shared.counts.polls_failed);
        self.shared.polled.notify_waiters();
        self.wait()
    }

    /// Changes whose outcome is unknown often come in crowds, and may each mean that memory is gone through: they are taken
    /// together. Who does not wait for the acknowledgement any more does not miss it.
    fn obey_all(&mut self, commands: &mut Vec<Command>) {
        let (mut unknown, mut waiting) = (Vec::new(), Vec::new());
        for command in commands.drain(..) {
            match command {
                Command::Apply(rows, done) => {
                    let _give_up = GiveUpOnPanic(&self.shared);
                    self.member.apply_own(&rows, self.shared.clock.boottime());
                    let _ = done.send(());
                }
                Command::Fill(reader, fill, done) => {
                    let _give_up = GiveUpOnPanic(&self.shared);
                    self.member.fill(reader, fill, self.shared.time.now());
                    let _ = done.send(());
                }
                Command::EndKnown(what, done) => {
                    unknown.push(what);
                    waiting.push(done);
                }
            }
        }
        if !unknown.is_empty() {
            let _give_up = GiveUpOnPanic(&self.shared);
            self.shared.unsettled.add(self.member.end_known(&unknown));
            for done in waiting {
                let _ = done.send(());
            }
        }
    }
}

/// The answer of the database, or that there was none within `limit`; the question is given up then.
async fn answered<T>(limit: Duration, asked: impl Future<Output = store::Result<T>>) -> store::Result<T> {
    let too_late = |_| StoreError::Unavailable(format!("no answer within {} ms", limit.as_millis()));
    tokio::time::timeout(limit, asked).await.map_err(too_late)?
}

#[expect(clippy::disallowed_methods, reason = "the follower polls by a timer; this is its one home")]
pub(super) async fn pause(span: Duration) {
    tokio::time::sleep(span).await;
}
