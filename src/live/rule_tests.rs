//! Memory holds to the one rule of `domain::session::Session::check`, and writes down uses as `uses` says.

use std::time::Duration;

use proptest::prelude::*;

use super::samples::*;
use super::table::LookUp;
use crate::domain::id::Epoch;
use crate::domain::session::{EndReason, Ended, FUTURE_MAX, Session};
use crate::domain::user::{User, UserState};

const GOOD: LookUp<()> = LookUp::Good(());

prop_compose! {
    /// A session with its user, as one read may show them.
    fn any_case()(
        credential in 1_i64..4, password in 1_i64..4, born in 1_i64..4,
        everyone in 1_i64..3, born_everyone in 1_i64..3,
        (gone, disabled) in (prop::bool::weighted(0.1), prop::bool::weighted(0.2)),
        reason in prop::option::weighted(0.3, 1_i16..7),
        ahead in prop::option::weighted(0.1, 0_u64..60),
        (life, idle, seen, age) in (0_u64..50, 0_u64..50, 0_u64..50, 0_u64..60),
    ) -> (Session, Option<User>, i64, Duration) {
        let millis = Duration::from_millis;
        let ended = reason.and_then(EndReason::from_i16).map(|reason| Ended { time: NOW, reason });
        let session = Session {
            create_time: ahead.map_or(NOW, |ahead| NOW.plus(FUTURE_MAX).plus(millis(ahead))),
            everyone_epoch: Epoch::from_i64(born_everyone.min(everyone)),
            expire_time: NOW.plus(millis(life)),
            last_seen_time: NOW.plus(millis(seen)),
            idle_limit: millis(idle),
            ended,
            ..session(1, born.min(credential))
        };
        let state = if disabled { UserState::Disabled } else { UserState::Active };
        let password_epoch = Epoch::from_i64(password.min(credential));
        let user = (!gone).then(|| User { state, password_epoch, ..user(1, credential) });
        (session, user, everyone, millis(age))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn memory_says_what_the_rule_says((session, user, everyone, age) in any_case()) {
        let now = NOW.plus(age);
        let everyone = Epoch::from_i64(everyone);
        let rule = session.check(user.as_ref(), everyone, session.last_seen_time, now);
        let mut memory = Memory::new(LIMITS, 10);
        let fill = super::keeper::Fill { everyone_epoch: everyone, ..read(1, session, user) };
        memory.keeper.fill(fill, now);
        let told = memory.look_up_at(1, now);
        prop_assert_eq!(told, rule.map_or_else(LookUp::Over, LookUp::Good));
    }
}

#[test]
fn a_session_that_seems_idle_is_asked_for_once_before_it_is_over() {
    let mut memory = Memory::with(1);
    let later = NOW.plus(Duration::from_mins(40));
    assert_eq!(memory.look_up_at(1, later), LookUp::Miss, "it may have been used elsewhere");
    let used = Session { last_seen_time: NOW.plus(Duration::from_mins(20)), ..session(1, 1) };
    memory.keeper.fill(read(1, used.clone(), Some(user(1, 1))), later);
    assert_eq!(memory.look_up_at(1, later), GOOD);
    let too_late = NOW.plus(Duration::from_mins(50));
    memory.keeper.fill(read(1, used, Some(user(1, 1))), too_late);
    assert_eq!(memory.look_up_at(1, too_late), LookUp::Over(crate::domain::session::Death::Expired));
}

#[test]
fn a_use_that_is_written_down_late_is_asked_for_again() {
    let mut memory = Memory::new(LIMITS, 10);
    // It lasts, so that nothing but the idle limit ends it.
    let long = Session { expire_time: NOW.plus(Duration::from_hours(12)), ..session(1, 1) };
    let unused = read(1, long.clone(), Some(user(1, 1)));
    memory.keeper.fill(unused.clone(), NOW);
    let expired = LookUp::Over(crate::domain::session::Death::Expired);
    let end = NOW.plus(Duration::from_mins(30));
    let [soon, later] = [1, 1_001].map(|millis| end.plus(Duration::from_millis(millis)));
    memory.keeper.fill(unused.clone(), soon);
    assert_eq!(memory.look_up_at(1, soon), expired);
    assert_eq!(memory.look_up_at(1, later), LookUp::Miss, "another node may have written a use since");
    memory.keeper.fill(unused, later);
    assert_eq!(memory.look_up_at(1, later), expired);
    let used = Session { last_seen_time: NOW.plus(Duration::from_mins(29)), ..long };
    memory.keeper.fill(read(1, used.clone(), Some(user(1, 1))), later.plus(Duration::from_secs(1)));
    assert_eq!(memory.look_up_at(1, later.plus(Duration::from_secs(2))), GOOD);
    let written = NOW.plus(Duration::from_mins(29 + 30 + 2));
    memory.keeper.fill(read(1, used.clone(), Some(user(1, 1))), written.minus(Duration::from_millis(1)));
    let soon = written.plus(Duration::from_secs(1));
    assert_eq!(memory.look_up_at(1, soon), LookUp::Miss, "a millisecond too early is too early");
    // To be sure that it is not earlier, memory asks for half a second more.
    let for_good = written.plus(Duration::from_millis(600));
    memory.keeper.fill(read(1, used, Some(user(1, 1))), for_good);
    assert_eq!(
        memory.look_up_at(1, for_good.plus(Duration::from_hours(1))),
        expired,
        "by now all is written"
    );
}

#[test]
fn a_use_is_written_down_once_a_minute() {
    let memory = Memory::with(1);
    let (soon, later) = (NOW.plus(Duration::from_secs(30)), NOW.plus(Duration::from_secs(61)));
    assert_eq!(memory.table.uses_due(later), [], "nothing was used");
    assert_eq!(memory.note_use(1, soon), GOOD);
    assert_eq!(memory.table.uses_due(soon), [], "it was written half a minute ago");
    assert_eq!(memory.table.unwritten_use(session_id(1)), Some(soon));
    let due = [(session_id(1), soon)];
    assert_eq!(memory.table.uses_due(later), due);
    assert_eq!(memory.table.uses_unwritten(), due);
    memory.table.uses_written(&due);
    assert_eq!((memory.table.uses_unwritten(), memory.table.uses_due(later)), (vec![], vec![]));
}

#[test]
fn a_use_between_reading_the_book_and_writing_it_is_not_lost() {
    let memory = Memory::with(1);
    let (first, second) = (NOW.plus(Duration::from_secs(70)), NOW.plus(Duration::from_secs(80)));
    memory.note_use(1, first);
    let due = memory.table.uses_due(first);
    memory.note_use(1, second);
    memory.table.uses_written(&due);
    assert_eq!(memory.table.uses_unwritten(), [(session_id(1), second)]);
}

#[test]
fn the_last_use_of_a_session_that_leaves_memory_is_kept() {
    let mut memory = Memory::with(1);
    let used = NOW.plus(Duration::from_secs(5));
    memory.note_use(1, used);
    memory.keeper.begin_at(at(1));
    assert_eq!(memory.look_up(1), LookUp::Miss);
    assert_eq!(memory.table.unwritten_use(session_id(1)), Some(used));
    assert_eq!(memory.table.uses_due(used), [(session_id(1), used)], "at once: nobody else knows of it");
    memory.table.uses_written(&[(session_id(1), used)]);
    assert_eq!(memory.table.uses_unwritten(), []);
}

#[test]
fn where_the_queue_is_full_the_next_use_tries_again() {
    let mut memory = Memory::new(LIMITS, 2);
    let used = NOW.plus(Duration::from_secs(70));
    for number in 1..=3 {
        memory.know(1, number);
        memory.note_use(number, used);
    }
    assert_eq!(memory.table.uses_due(used).len(), 2);
    memory.note_use(3, used);
    assert_eq!(memory.table.uses_due(used).len(), 3);
}
