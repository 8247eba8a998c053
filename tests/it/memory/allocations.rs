//! Nothing is allocated or freed between the text of a token and an answer about it, whatever the answer is.

use std::time::Duration;

use latchkey::domain::change::ChangeKind;
use latchkey::domain::id::Epoch;
use latchkey::domain::session::Death;
use latchkey::domain::time::{BootTime, UnixMillis};
use latchkey::domain::token::{KEY_LEN, KeyId, KeyRing, NotGenuine, TokenKey};
use latchkey::live::keeper::{Fill, Keeper};
use latchkey::live::table::LookUp;

use super::samples::{BEGIN, IDLE_LIMIT, LIFETIME, Memory, TOLD, fill, row, session, session_id, user};

/// What a check ends with.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Answer {
    NotGenuine(NotGenuine),
    Expired,
    LeaseLost,
    Memory(LookUp<usize>),
}

/// A node with one session for each way to end.
struct Node {
    memory: Memory,
    keeper: Keeper,
    ring: KeyRing,
}

fn ring(id: u8) -> KeyRing {
    KeyRing::new(vec![TokenKey::new(KeyId(id), [id; KEY_LEN])]).expect("a ring")
}

impl Node {
    fn new(uses_max: usize) -> Self {
        let (memory, keeper) = Memory::new(uses_max);
        memory.lease.publish(memory.now().plus(Duration::from_secs(5)));
        Self { memory, keeper, ring: ring(1) }
    }

    fn token(&self, number: u8) -> String {
        self.ring.mint(BEGIN.plus(LIFETIME), &[number; 32]).0.expose().to_owned()
    }

    /// Takes in session `number`, the only one of its user.
    fn take_in(&mut self, number: u8) -> String {
        let genuine = self.ring.mint(BEGIN.plus(LIFETIME), &[number; 32]).1;
        let number_of = u64::from(number);
        let (session, user) = (session(number_of, number_of, Epoch::FIRST), user(number_of, Epoch::FIRST));
        self.keeper.fill(fill(0, vec![(genuine.digest, session, user)]), BEGIN);
        self.token(number)
    }

    /// What a node does with a token, and what it answers of a good one: here how much there is to tell.
    fn check(&self, text: &str, now: UnixMillis) -> Answer {
        let genuine = match self.ring.verify(text) {
            Ok(genuine) => genuine,
            Err(why) => return Answer::NotGenuine(why),
        };
        if now >= genuine.expire_time {
            return Answer::Expired;
        }
        let Memory { table, lease, .. } = &self.memory;
        let found = table.look_up(
            lease,
            || self.memory.now(),
            &genuine.digest,
            |_| now,
            |good| {
                good.note_use(now);
                good.user_encoded().principal().len()
            },
        );
        found.map_or(Answer::LeaseLost, Answer::Memory)
    }
}

/// How many allocations `work` makes, and how many more it makes than it frees.
fn allocations(work: impl FnOnce()) -> (u64, i64) {
    let counted = allocation_counter::measure(work);
    (counted.count_total, counted.count_current)
}

#[track_caller]
fn assert_free(node: &Node, text: &str, now: UnixMillis, expected: &Answer) {
    let mut answer = None;
    let counted = allocations(|| answer = Some(node.check(text, now)));
    assert_eq!(answer.as_ref(), Some(expected));
    assert_eq!(counted, (0, 0), "allocations for {expected:?}");
}

#[test]
fn no_answer_allocates() {
    let mut node = Node::new(100);
    let good = Answer::Memory(LookUp::Good(TOLD.len()));
    let over = |death| Answer::Memory(LookUp::Over(death));
    let later = BEGIN.plus(Duration::from_secs(1));
    // A thread that asks for the first time is given its place in the books of the map, once.
    let warm = node.take_in(0);
    assert_eq!(node.check(&warm, BEGIN), good);

    let used = node.take_in(1);
    assert_free(&node, &used, later, &good);
    assert_eq!(node.memory.table.uses_unwritten().len(), 1, "the first use is queued");
    assert_free(&node, &used, later.plus(Duration::from_secs(1)), &good);

    let with_one_changed = format!("{}x", &used[..used.len() - 1]);
    for forged in ["", "lk1_", "x", &used[1..], &used[..used.len() - 1], &with_one_changed, &"ä".repeat(75)]
    {
        assert_free(&node, forged, later, &Answer::NotGenuine(NotGenuine::Forged));
    }
    let end = BEGIN.plus(LIFETIME);
    let foreign = ring(2).mint(end, &[1; 32]).0.expose().to_owned();
    assert_free(
        &node,
        &foreign,
        later,
        &Answer::NotGenuine(NotGenuine::UnknownKey { key: KeyId(2), expire_time: end }),
    );
    assert_free(&node, &used, end, &Answer::Expired);

    let unknown = node.token(100);
    assert_free(&node, &unknown, later, &Answer::Memory(LookUp::Miss));
    let asked = vec![node.ring.verify(&unknown).expect("genuine").digest];
    let nothing = Fill { asked, ..fill(0, Vec::new()) };
    node.keeper.fill(nothing, BEGIN);
    assert_free(&node, &unknown, later, &Answer::Memory(LookUp::NotKnown));

    let idle = node.take_in(2);
    let too_late = BEGIN.plus(IDLE_LIMIT);
    assert_free(&node, &idle, too_late, &Answer::Memory(LookUp::Miss));
    let genuine = node.ring.verify(&idle).expect("genuine");
    let read_again = fill(0, vec![(genuine.digest, session(2, 2, Epoch::FIRST), user(2, Epoch::FIRST))]);
    node.keeper.fill(read_again, too_late);
    assert_free(&node, &idle, too_late, &over(Death::Expired));

    for (number, kind, death) in [
        (3, ChangeKind::SessionEnded, Death::Revoked),
        (4, ChangeKind::SessionMisused, Death::BindingMismatch),
        (5, ChangeKind::UserDisabled, Death::UserDisabled),
        (6, ChangeKind::UserDeleted, Death::UserDisabled),
    ] {
        let token = node.take_in(number);
        let named = kind.is_of_one_session().then(|| session_id(u64::from(number)));
        node.keeper.apply(&row(1, kind, u64::from(number), named, Epoch::FIRST.next()));
        assert_free(&node, &token, later, &over(death));
    }
    for (number, kind, death) in [
        (7, ChangeKind::UserSessionsEnded, Death::Revoked),
        (8, ChangeKind::PasswordChanged, Death::CredentialsChanged),
    ] {
        let token = node.take_in(number);
        node.keeper.apply(&row(1, kind, u64::from(number), None, Epoch::FIRST.next()));
        assert_free(&node, &token, later, &over(death));
        let genuine = node.ring.verify(&token).expect("genuine");
        let owner = u64::from(number);
        let mut after = user(owner, Epoch::FIRST.next());
        if kind == ChangeKind::PasswordChanged {
            after.password_epoch = after.credential_epoch;
        }
        let read = fill(1, vec![(genuine.digest, session(owner, owner, Epoch::FIRST), after)]);
        node.keeper.fill(read, BEGIN);
        assert_free(&node, &token, later, &over(death));
    }

    node.memory.advance(Duration::from_secs(5));
    assert_free(&node, &used, later, &Answer::LeaseLost);
    node.memory.lease.publish(BootTime::from_nanos(u64::MAX));
    assert_free(&node, &used, later, &good);
    node.keeper.apply(&row(2, ChangeKind::EveryoneEnded, 0, None, Epoch::FIRST.next()));
    assert_free(&node, &used, later, &over(Death::Revoked));
}

#[test]
fn a_use_for_which_there_is_no_room_allocates_nothing_either() {
    let mut node = Node::new(1);
    let tokens: Vec<_> = (0..4).map(|number| node.take_in(number)).collect();
    let later = BEGIN.plus(Duration::from_secs(1));
    node.check(&tokens[0], later);
    for token in &tokens[1..] {
        let good = Answer::Memory(LookUp::Good(TOLD.len()));
        assert_free(&node, token, later, &good);
    }
    assert_eq!(node.memory.table.uses_unwritten().len(), 1);
}

#[test]
fn an_answer_that_allocates_is_noticed() {
    let mut node = Node::new(1);
    let token = node.take_in(0);
    let genuine = node.ring.verify(&token).expect("genuine");
    let look_up = || {
        let Memory { table, lease, .. } = &node.memory;
        table.look_up(
            lease,
            || node.memory.now(),
            &genuine.digest,
            |_| BEGIN,
            |good| good.user_encoded().whole().to_vec(),
        )
    };
    assert_eq!(look_up(), Some(LookUp::Good(TOLD.into())));
    let (made, left) = allocations(|| assert!(look_up().is_some()));
    assert_eq!((made, left), (1, 0), "made and freed again");
    let freed = look_up();
    assert_eq!(allocations(|| drop(freed)), (0, -1), "freed only");
}
