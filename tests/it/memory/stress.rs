//! Eight readers and the one writer, on memory itself, for a few seconds: revocations that a silent node learns of late.
//!
//! Each round has a session that ends and a sibling that goes on. The clock passes the end of the lease: from here on the
//! revocation counts as returned. Then it is applied, and a new lease is published. Loom's models are in `orders`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use latchkey::domain::change::ChangeKind;
use latchkey::domain::id::{Epoch, SessionId};
use latchkey::host::{Clock as _, SystemClock};
use latchkey::live::keeper::Keeper;
use latchkey::live::table::LookUp;

use super::samples::{BEGIN, Memory, digest, fill, row, session, session_id, user};

const READERS: usize = 8;
const SPAN: Duration = Duration::from_secs(3);
const ROUNDS_MIN: u64 = 20;
const LEASE: Duration = Duration::from_secs(5);
/// Looks of all readers that the writer waits for in each phase of a round.
const LOOKS: u64 = 2 * READERS as u64;

/// The phases of a round.
const LIVE: u64 = 0;
const EXPIRED: u64 = 1;
const APPLYING: u64 = 2;
const LEASED: u64 = 3;
const PHASES: u64 = 4;

struct Play {
    memory: Memory,
    /// The round, and within it the phase.
    moment: AtomicU64,
    looks: AtomicU64,
    stop: AtomicBool,
}

/// How a round ends its session.
#[derive(Clone, Copy)]
enum Ended {
    Alone,
    ByAll,
    ByPassword,
}

impl Ended {
    fn of(round: u64) -> Self {
        [Self::Alone, Self::ByAll, Self::ByPassword][usize::try_from(round % 3).expect("fits")]
    }

    fn kind(self) -> ChangeKind {
        match self {
            Self::Alone => ChangeKind::SessionEnded,
            Self::ByAll => ChangeKind::UserSessionsEnded,
            Self::ByPassword => ChangeKind::PasswordChanged,
        }
    }

    /// The session that the row names: the one that ends, or the one that goes on.
    fn names(self, round: u64) -> SessionId {
        match self {
            Self::Alone => ending(round),
            Self::ByAll | Self::ByPassword => staying(round),
        }
    }
}

fn ending(round: u64) -> SessionId {
    session_id(2 * round)
}

fn staying(round: u64) -> SessionId {
    session_id(2 * round + 1)
}

impl Play {
    fn enter(&self, round: u64, phase: u64) {
        self.moment.store(round * PHASES + phase, Ordering::SeqCst);
        let looks = self.looks.load(Ordering::Relaxed);
        while self.looks.load(Ordering::Relaxed) < looks + LOOKS && !self.stop.load(Ordering::Relaxed) {
            thread::yield_now();
        }
    }

    fn play_round(&self, keeper: &mut Keeper, round: u64) {
        let (first, second) = (Epoch::FIRST, Epoch::FIRST.next());
        let position = i64::try_from(round).expect("fits");
        let found = |number, epoch| (digest(number), session(number, round, epoch), user(round, epoch));
        keeper.fill(fill(position - 1, vec![found(2 * round, first), found(2 * round + 1, first)]), BEGIN);
        self.memory.lease.publish(self.memory.now().plus(LEASE));
        self.enter(round, LIVE);
        self.memory.advance(LEASE);
        self.enter(round, EXPIRED);
        self.moment.store(round * PHASES + APPLYING, Ordering::SeqCst);
        let ended = Ended::of(round);
        let asked_at = self.memory.now();
        keeper.apply(&row(position, ended.kind(), round, Some(ended.names(round)), second));
        self.memory.lease.publish(asked_at.plus(LEASE));
        self.enter(round, LEASED);
        // Whoever missed reads the user again.
        let epoch = if matches!(ended, Ended::Alone) { first } else { second };
        keeper.fill(fill(position, vec![found(2 * round + 1, epoch)]), BEGIN);
        self.enter(round, LEASED);
    }

    fn read(&self) -> Seen {
        let mut seen = Seen::default();
        while !self.stop.load(Ordering::Relaxed) {
            let moment = self.moment.load(Ordering::SeqCst);
            let (round, phase) = (moment / PHASES, moment % PHASES);
            let ending = self.memory.ask(&digest(2 * round), BEGIN);
            let staying = self.memory.ask(&digest(2 * round + 1), BEGIN);
            let same = self.moment.load(Ordering::SeqCst) == moment;
            self.looks.fetch_add(1, Ordering::Relaxed);
            if round == 0 {
                continue;
            }
            let good = ending == Some(LookUp::Good(()));
            assert!(phase == LIVE || !good, "good in round {round} after the revocation returned");
            let spared = matches!(staying, None | Some(LookUp::Good(()) | LookUp::Miss));
            assert!(spared, "what goes on was refused in round {round}, phase {phase}: {staying:?}");
            if same && phase == EXPIRED {
                assert!(ending.is_none() && staying.is_none(), "answered without a lease in round {round}");
                seen.unanswered += 1;
            }
            seen.good += u64::from(good);
            seen.over += u64::from(matches!(ending, Some(LookUp::Over(_))));
        }
        seen
    }
}

/// How often each answer was given.
#[derive(Default)]
struct Seen {
    good: u64,
    over: u64,
    unanswered: u64,
}

#[test]
fn readers_beside_the_writer_are_never_told_what_is_over() {
    let (memory, mut keeper) = Memory::new(100);
    let (moment, looks, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let play = Play { memory, moment, looks, stop };
    let begun = SystemClock.boottime();
    let (rounds, seen) = thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(|| {
                    let stopping = StopOnDrop(&play.stop);
                    let seen = play.read();
                    drop(stopping);
                    seen
                })
            })
            .collect();
        let mut round = 0;
        let has_time = |round| SystemClock.boottime().since(begun) < SPAN || round < ROUNDS_MIN;
        while !play.stop.load(Ordering::Relaxed) && has_time(round) {
            round += 1;
            play.play_round(&mut keeper, round);
        }
        play.stop.store(true, Ordering::Relaxed);
        let seen: Vec<_> =
            readers.into_iter().map(|reader| reader.join().expect("nothing wrong was seen")).collect();
        (round, seen)
    });
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    let (good, over, unanswered) =
        (sum(|seen| seen.good), sum(|seen| seen.over), sum(|seen| seen.unanswered));
    println!("{rounds} rounds: {good} good, {over} over, {unanswered} unanswered");
    assert!(
        good > 0 && over > 0 && unanswered > 0,
        "{rounds} rounds: {good} good, {over} over, {unanswered} unanswered"
    );
}

/// A reader that has seen something wrong ends the play.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
