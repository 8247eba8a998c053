//! Tests of `keeper`: in whatever order reads and rows meet, death beats life and nothing is forgotten too early.

use super::keeper::{EndKnown, Fill, Filled, MemoryLimits};
use super::samples::*;
use super::table::LookUp;
use crate::domain::change::ChangeKind::{
    EveryoneEnded, PasswordChanged, SessionEnded, SessionMisused, UserChanged, UserDeleted, UserDisabled,
    UserSessionsEnded,
};
use crate::domain::id::Epoch;
use crate::domain::session::{Death, Session};
use crate::domain::token::TokenDigest;
use crate::domain::user::{User, UserState};

const REVOKED: LookUp<()> = LookUp::Over(Death::Revoked);
const GOOD: LookUp<()> = LookUp::Good(());

#[test]
fn death_beats_life() {
    let mut memory = Memory::with(1);
    assert_eq!(memory.look_up(1), GOOD);
    memory.keeper.fill(read(5, ended(1), Some(user(1, 1))), NOW);
    assert_eq!(memory.look_up(1), REVOKED, "at once, ahead of the log");
    for late in [1, 4, 6] {
        memory.know(late, 1);
        assert_eq!(memory.look_up(1), REVOKED, "whatever a read of {late} says");
    }
    memory.keeper.apply(&row(5, SessionEnded, 1, Some(1), 1));
    memory.keeper.apply(&row(5, SessionEnded, 1, Some(1), 1));
    assert_eq!(memory.look_up(1), REVOKED);
}

#[test]
fn a_read_that_was_overtaken_is_left_out() {
    let mut memory = Memory::new(LIMITS, 10);
    memory.keeper.apply(&row(5, SessionEnded, 1, Some(1), 1));
    memory.keeper.apply_own(&row(9, UserSessionsEnded, 2, None, 2));
    memory.know(4, 1);
    memory.know(8, 2);
    memory.know(4, 3);
    assert_eq!([1, 2, 3].map(|one| memory.look_up(one)), [LookUp::Miss, LookUp::Miss, GOOD]);
    assert_eq!(memory.keeper.holding().overtaken, 2);
    memory.keeper.begin_at(at(20));
    memory.know(19, 3);
    assert_eq!(memory.look_up(3), LookUp::Miss, "from before all that memory knows of");
    memory.know(20, 3);
    assert_eq!(memory.look_up(3), GOOD);
}

#[test]
fn each_kind_of_row_ends_what_it_names_for_its_reason() {
    for (kind, death) in [
        (SessionEnded, Death::Revoked),
        (SessionMisused, Death::BindingMismatch),
        (UserSessionsEnded, Death::Revoked),
        (PasswordChanged, Death::CredentialsChanged),
        (UserDisabled, Death::UserDisabled),
        (EveryoneEnded, Death::Revoked),
    ] {
        let mut memory = Memory::with(1);
        memory.know(1, 2);
        let named = matches!(kind, SessionEnded | SessionMisused).then_some(1);
        memory.keeper.apply(&row(2, kind, 1, named, 2));
        if matches!(kind, UserSessionsEnded | PasswordChanged) {
            memory.keeper.fill(read(2, session(11, 2), Some(user(1, 2))), NOW);
            assert_eq!(memory.look_up(11), GOOD);
        }
        assert_eq!(memory.look_up(1), LookUp::Over(death), "{kind:?}");
        let others = if kind == EveryoneEnded { REVOKED } else { GOOD };
        assert_eq!(memory.look_up(2), others, "{kind:?}");
    }
}

#[test]
fn the_reason_is_that_of_the_first_end_after_the_birth() {
    let mut memory = Memory::with(1);
    memory.keeper.apply(&row(2, UserSessionsEnded, 1, None, 2));
    memory.keeper.fill(read(2, session(11, 2), Some(user(1, 2))), NOW);
    memory.keeper.apply(&row(3, PasswordChanged, 1, None, 3));
    let changed = User { password_epoch: Epoch::from_i64(3), ..user(1, 3) };
    memory.keeper.fill(read(3, session(21, 3), Some(changed)), NOW);
    let told = [1, 11, 21].map(|one| memory.look_up(one));
    assert_eq!(told, [REVOKED, LookUp::Over(Death::CredentialsChanged), GOOD]);
}

#[test]
fn the_session_that_goes_on_never_looks_dead() {
    let mut memory = Memory::with(1);
    memory.know(1, 11);
    // A read of the sibling is ahead of the row.
    memory.keeper.fill(read(2, session(11, 1), Some(user(1, 2))), NOW);
    assert_eq!((memory.look_up(11), memory.look_up(1)), (REVOKED, LookUp::Miss));
    memory.keeper.apply(&row(2, UserSessionsEnded, 1, Some(1), 2));
    assert_eq!((memory.look_up(11), memory.look_up(1)), (REVOKED, GOOD));
    memory.keeper.apply(&row(3, UserSessionsEnded, 1, Some(1), 3));
    assert_eq!(memory.look_up(1), LookUp::Miss, "the user is read again, the session goes on");
    memory.keeper.fill(read(3, session(1, 3), Some(user(1, 3))), NOW);
    assert_eq!(memory.look_up(1), GOOD);
}

#[test]
fn a_user_who_changed_is_read_again_and_no_older_read_counts() {
    let mut memory = Memory::with(1);
    memory.keeper.apply(&row(7, UserChanged, 1, None, 1));
    assert_eq!(memory.look_up(1), LookUp::Miss);
    memory.know(6, 1);
    assert_eq!(memory.look_up(1), LookUp::Miss, "from before the change");
    memory.know(7, 1);
    assert_eq!(memory.look_up(1), GOOD);
}

#[test]
fn a_user_who_is_disabled_bars_every_session_until_a_newer_read() {
    let disabled = User { state: UserState::Disabled, ..user(1, 1) };
    let mut memory = Memory::with(1);
    memory.keeper.fill(read(2, session(11, 1), Some(disabled)), NOW);
    assert_eq!(
        [1, 11].map(|one| memory.look_up(one)),
        [LookUp::Over(Death::UserDisabled), LookUp::Over(Death::UserDisabled)]
    );
    memory.know(1, 21);
    assert_eq!(memory.look_up(1), LookUp::Over(Death::UserDisabled), "from before");
    memory.know(3, 21);
    assert_eq!(memory.look_up(1), GOOD, "somebody enabled the user by hand, so that no session ended");
}

#[test]
fn a_read_that_found_no_user_ends_what_it_found_and_nothing_else() {
    let mut memory = Memory::with(1);
    // As of the same position, since the making of a user has none: it may be from before that.
    memory.keeper.fill(read(1, session(11, 1), None), NOW);
    let gone = LookUp::Over(Death::UserDisabled);
    assert_eq!([1, 11].map(|one| memory.look_up(one)), [LookUp::Miss, gone], "the next read decides");
    memory.know(1, 1);
    assert_eq!(memory.look_up(1), GOOD);
    for _ in 0..2 {
        memory.keeper.fill(read(1, session(11, 1), None), NOW);
    }
    assert_eq!(memory.look_up(1), LookUp::Miss);
    memory.know(1, 1);
    assert_eq!(memory.look_up(1), GOOD, "whatever else comes late");
}

#[test]
fn a_user_made_under_the_id_of_a_deleted_one_has_sessions() {
    let mut memory = Memory::with(1);
    memory.keeper.apply(&row(5, UserDeleted, 1, None, 2));
    let gone = LookUp::Over(Death::UserDisabled);
    assert_eq!(memory.look_up(1), gone);
    // A read may know of a later time than its position says.
    memory.keeper.fill(read(4, session(11, 6), Some(user(1, 6))), NOW);
    assert_eq!(memory.look_up(11), LookUp::Miss);
    memory.keeper.fill(read(5, session(11, 6), Some(user(1, 6))), NOW);
    assert_eq!([1, 11].map(|one| memory.look_up(one)), [gone, GOOD]);
}

#[test]
fn the_reason_of_an_end_never_changes() {
    let changed = User { password_epoch: Epoch::from_i64(2), ..user(1, 2) };
    // Everyone's sessions ended, then the password changed.
    let mut memory = Memory::with(1);
    memory.keeper.apply(&row(2, EveryoneEnded, 1, None, 2));
    assert_eq!(memory.look_up(1), REVOKED);
    memory.keeper.apply(&row(3, PasswordChanged, 1, None, 2));
    assert_eq!(memory.look_up(1), LookUp::Miss, "the database knows which came first");
    let everyone = |fill: Fill| Fill { everyone_epoch: Epoch::from_i64(2), ..fill };
    memory.keeper.fill(everyone(read(3, session(1, 1), Some(changed.clone()))), NOW);
    assert_eq!(memory.look_up(1), REVOKED);
    // The other way round.
    let mut memory = Memory::with(1);
    memory.keeper.apply(&row(2, PasswordChanged, 1, None, 2));
    assert_eq!(memory.look_up(1), LookUp::Over(Death::CredentialsChanged));
    memory.keeper.apply(&row(3, EveryoneEnded, 1, None, 2));
    assert_eq!(memory.look_up(1), LookUp::Miss);
    let reason = crate::domain::session::EndReason::CredentialsChanged;
    let marked = crate::domain::session::Ended { time: NOW, reason };
    let marked = Session { ended: Some(marked), ..session(1, 1) };
    memory.keeper.fill(everyone(read(3, marked, Some(changed))), NOW);
    assert_eq!(memory.look_up(1), LookUp::Over(Death::CredentialsChanged));
    // What is over does not become another end by the end of the user, nor by one in doubt.
    let mut memory = Memory::with(1);
    memory.keeper.apply(&row(2, UserSessionsEnded, 1, None, 2));
    memory.keeper.end_known(&[EndKnown::User(user_id(1), None, Death::CredentialsChanged)]);
    memory.keeper.apply(&row(3, UserDisabled, 1, None, 3));
    memory.keeper.apply(&row(4, UserDeleted, 1, None, 4));
    assert_eq!(memory.look_up(1), REVOKED);
}

#[test]
fn a_user_who_is_gone_for_good_stays_gone_where_the_change_was_lost() {
    let disabled = User { state: UserState::Disabled, ..user(1, 2) };
    for gone in [None, Some(disabled)] {
        let mut memory = Memory::with(1);
        memory.keeper.fill(read(2, session(1, 1), gone), NOW);
        assert_eq!(memory.look_up(1), LookUp::Over(Death::UserDisabled));
        memory.keeper.begin_at(at(1));
        memory.know(1, 1);
        assert!(matches!(memory.look_up(1), LookUp::Over(_)), "also where the change was lost");
    }
}

#[test]
fn a_token_that_nobody_has_is_remembered_and_does_not_hide_a_death() {
    let mut memory = Memory::with(1);
    memory.keeper.fill(read(5, ended(1), Some(user(1, 1))), NOW);
    let nobody = Fill { asked: vec![digest(1), digest(7)], found: Vec::new(), ..read(6, ended(1), None) };
    memory.keeper.fill(nobody, NOW);
    assert_eq!((memory.look_up(1), memory.look_up(7)), (REVOKED, LookUp::NotKnown));
}

#[test]
fn the_dead_are_bounded_and_none_is_forgotten_before_the_log_has_passed_it() {
    let limits = MemoryLimits { dead_max: 5, ..LIMITS };
    let mut memory = Memory::new(limits, 10);
    let die = |memory: &mut Memory, from: u64, to: u64| {
        for number in from..to {
            memory.keeper.fill(read(9, ended(number), Some(user(number % 10, 1))), NOW);
        }
    };
    die(&mut memory, 0, 10);
    let dead = |memory: &Memory| (0..40).filter(|one| memory.look_up(*one) == REVOKED).count();
    assert_eq!(dead(&memory), 10, "twice as many at most, while the log is behind");
    die(&mut memory, 10, 20);
    assert_eq!((dead(&memory), memory.keeper.holding().dead), (10, 10));
    assert_eq!(memory.look_up(15), LookUp::Miss, "without room it is asked for again");
    memory.keeper.advance(at(9));
    die(&mut memory, 20, 21);
    assert_eq!((dead(&memory), memory.look_up(20)), (5, REVOKED), "the oldest went");
    for number in 1..1_000 {
        let (one, owner) = (Session { user_id: user_id(number), ..ended(number) }, user(number, 1));
        memory.keeper.fill(read(9, one, Some(owner)), NOW);
    }
    assert!(memory.keeper.holding().users < 200, "and nor are users without sessions kept for ever");
}

#[test]
fn eviction_never_changes_an_answer() {
    let mut memory = Memory::new(MemoryLimits { sessions_max: 10, ..LIMITS }, 10);
    for number in 0..10 {
        memory.know(1, number);
    }
    memory.keeper.apply(&row(2, SessionEnded, 3, Some(3), 1));
    for number in 100..150 {
        memory.know(2, number);
    }
    assert_eq!((memory.keeper.holding().sessions, memory.look_up(3)), (10, REVOKED));
    assert!(memory.keeper.holding().evicted >= 40);
    memory.know(2, 149);
    assert!(memory.keeper.holding().users <= 11, "nor do users without sessions stay");
    for number in 0..10 {
        let told = memory.look_up(number);
        assert!(matches!(told, LookUp::Miss | LookUp::Good(())) || number == 3, "{number}: {told:?}");
    }
    memory.know(1, 3);
    assert_eq!(memory.look_up(3), REVOKED);
}

#[test]
fn of_digests_that_begin_alike_one_has_a_session_and_death_is_never_forgotten_for_it() {
    let mut memory = Memory::new(LIMITS, 10);
    let alike = [1_u8, 2].map(|last| TokenDigest([7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, last]));
    let fill = |number: usize| {
        let one = u64::try_from(number).expect("fits");
        let found =
            vec![Filled { digest: alike[number], session: session(one, 1), user: Some(user(one, 1)) }];
        Fill { found, ..read(1, session(one, 1), None) }
    };
    let told = |memory: &Memory| alike.each_ref().map(|digest| memory.look_up_digest(digest, NOW));
    for (now, expected) in [(0, [GOOD, LookUp::Miss]), (1, [LookUp::Miss, GOOD]), (0, [GOOD, LookUp::Miss])] {
        memory.keeper.fill(fill(now), NOW);
        assert_eq!(told(&memory), expected, "the one that was there makes room");
        assert_eq!(memory.keeper.holding().sessions, 1);
    }
    memory.keeper.apply(&row(2, SessionEnded, 0, Some(0), 1));
    assert_eq!(told(&memory), [REVOKED, LookUp::Miss]);
    memory.keeper.fill(fill(1), NOW);
    assert_eq!(told(&memory), [REVOKED, LookUp::Miss], "it is asked for again and again");
    let mut memory = Memory::new(LIMITS, 10);
    memory.keeper.fill(fill(1), NOW);
    let nobody = Fill { asked: vec![alike[0]], found: Vec::new(), ..fill(0) };
    memory.keeper.fill(nobody, NOW);
    assert_eq!(told(&memory), [LookUp::NotKnown, LookUp::Miss]);
}

#[test]
fn a_new_start_forgets_life_and_keeps_death() {
    let mut memory = Memory::with(1);
    memory.know(1, 2);
    memory.know(1, 3);
    memory.keeper.apply(&row(2, SessionEnded, 2, Some(2), 1));
    memory.keeper.apply(&row(3, UserSessionsEnded, 3, None, 2));
    memory.keeper.begin_at(at(1));
    assert_eq!([1, 3].map(|one| memory.look_up(one)), [LookUp::Miss, LookUp::Miss]);
    for number in 1..=3 {
        memory.know(1, number);
    }
    assert_eq!([1, 2, 3].map(|one| memory.look_up(one)), [GOOD, REVOKED, REVOKED]);
    memory.keeper.forget_epochs();
    memory.keeper.begin_at(at(1));
    for number in 1..=3 {
        memory.know(1, number);
    }
    assert_eq!([1, 2, 3].map(|one| memory.look_up(one)), [GOOD, REVOKED, GOOD], "another log");
}

#[test]
fn books_that_a_panic_left_torn_are_made_anew_from_what_the_table_holds() {
    let mut memory = Memory::with(1);
    memory.know(1, 2);
    memory.know(1, 3);
    memory.keeper.apply(&row(2, SessionEnded, 2, Some(2), 1));
    memory.keeper.apply(&row(3, UserSessionsEnded, 3, None, 2));
    memory.keeper.recover();
    assert_eq!([1, 2, 3].map(|one| memory.look_up(one)), [LookUp::Miss, REVOKED, LookUp::Miss]);
    let holding = memory.keeper.holding();
    assert_eq!((holding.sessions, holding.dead), (0, 1));
    memory.keeper.begin_at(at(1));
    for number in 1..=3 {
        memory.know(1, number);
    }
    assert_eq!([1, 2, 3].map(|one| memory.look_up(one)), [GOOD, REVOKED, REVOKED]);
    memory.keeper.apply(&row(4, SessionEnded, 1, Some(1), 1));
    assert_eq!(memory.look_up(1), REVOKED, "it is written on");
}

#[test]
fn an_unknown_outcome_ends_what_memory_holds_and_no_more() {
    let all = [1, 11, 2];
    for (what, over) in [
        (EndKnown::Session(session_id(1)), vec![1]),
        (EndKnown::Digest(digest(11)), vec![11]),
        (EndKnown::User(user_id(1), Some(session_id(11)), Death::Revoked), vec![1]),
        (EndKnown::User(user_id(1), None, Death::Revoked), vec![1, 11]),
        (EndKnown::Everyone, vec![1, 11, 2]),
        (EndKnown::Nothing, vec![]),
    ] {
        let mut memory = Memory::new(LIMITS, 10);
        for one in all {
            memory.know(1, one);
        }
        memory.keeper.end_known(&[what]);
        let told: Vec<_> = all.into_iter().filter(|one| memory.look_up(*one) == REVOKED).collect();
        assert_eq!(told, over, "{what:?}");
        memory.know(1, 31);
        assert_eq!(memory.look_up(31), GOOD, "nothing is concluded about what it does not hold");
    }
}
