//! What can be done to the service in a random history, and the dice that choose it.

use crate::support::dice::Dice;

/// Users that a history knows: each is a login name and an id, and either may be of another user than the other.
pub const USERS: usize = 6;
/// Passwords that a history uses; the last one breaks the rules.
pub const PASSWORDS: [&str; 4] =
    ["correct horse battery staple", "a completely different phrase", "yet another long password", "short"];
/// Lifetimes that are asked for, in seconds: shorter than the idle limit, between, and above every limit.
const LIFETIMES: [i64; 4] = [60, 1_800, 7_200, 100_000_000];
const SECOND: u64 = 1;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// How far the clock is moved; on both sides of the fresh window and of the writing of last uses.
const SHORT: [u64; 4] = [SECOND, 70, 800, 1_000];
/// The same on both sides of the idle limit and the lifetimes.
const LONG: [u64; 4] = [HOUR / 2, HOUR + 1, 13 * HOUR, 8 * DAY];

/// A session of the history, or a token that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presented {
    /// The token of the session with this number, counted from the latest.
    Token(usize),
    /// The same with one character changed.
    Altered(usize),
}

/// How long a session shall live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Whether the person asks to be remembered.
    pub remember: bool,
    /// At most so many seconds.
    pub lifetime: Option<i64>,
}

impl Wish {
    /// Nothing special.
    pub const PLAIN: Self = Self { remember: false, lifetime: None };
}

/// Which sessions shall end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// By token.
    Token(Presented),
    /// By id: of the session with this number.
    Session(usize),
    /// All of a user, but for a session perhaps, which may be anybody's.
    User(usize, Option<usize>),
    /// All of everyone.
    Everyone,
}

/// Who changes a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The user of a session.
    Session(Presented),
    /// The user of a login name.
    Login(usize),
}

/// One step of a history. Users and passwords are numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    CreateUser { login: usize, id: usize, password: Option<usize> },
    LogIn { login: usize, password: usize, wish: Wish },
    CreateSession { id: usize, wish: Wish },
    Validate { who: Presented, max_auth_age: Option<i64> },
    Load { who: Presented },
    Revoke(Ending),
    ChangePassword { owner: Owner, current: usize, new: usize },
    SetPassword { id: usize, new: usize },
    Reauthenticate { who: Presented, password: usize },
    SetActive { id: usize, active: bool },
    DeleteUser { id: usize },
    ListSessions { id: usize },
    Advance { seconds: u64 },
    Restart,
}

/// The first steps of every history: somebody to ask about.
pub fn opening() -> Vec<Operation> {
    (0..USERS - 1)
        .map(|number| Operation::CreateUser { login: number, id: number, password: Some(0) })
        .collect()
}

/// Rolls the next step. Cheap ones are common (a password takes longer to hash than everything else together), and what
/// ends most of the world is rare.
pub fn roll(dice: &mut Dice) -> Operation {
    match dice.below(100) {
        0..6 => {
            let id = dice.below(USERS);
            let login = if dice.chance(75) { id } else { dice.below(USERS) };
            Operation::CreateUser { login, id, password: dice.chance(60).then(|| password(dice)) }
        }
        6..11 => Operation::LogIn { login: dice.below(USERS), password: password(dice), wish: wish(dice) },
        11..29 => Operation::CreateSession { id: dice.below(USERS), wish: wish(dice) },
        29..57 => Operation::Validate {
            who: presented(dice),
            max_auth_age: dice.chance(20).then(|| dice.pick(&[0, 60, 900, 4_000])),
        },
        57..65 => Operation::Load { who: presented(dice) },
        65..72 => Operation::Revoke(ending(dice)),
        72..76 => Operation::ChangePassword {
            owner: if dice.chance(50) {
                Owner::Session(presented(dice))
            } else {
                Owner::Login(dice.below(USERS))
            },
            current: password(dice),
            new: password(dice),
        },
        76..77 => Operation::SetPassword { id: dice.below(USERS), new: password(dice) },
        77..81 => Operation::Reauthenticate { who: presented(dice), password: password(dice) },
        81..85 => Operation::SetActive { id: dice.below(USERS), active: dice.chance(85) },
        85..86 => Operation::DeleteUser { id: dice.below(USERS) },
        86..92 => Operation::ListSessions { id: dice.below(USERS) },
        92..99 => {
            let moves = if dice.chance(70) { &SHORT } else { &LONG };
            Operation::Advance { seconds: dice.pick(moves) }
        }
        _ => Operation::Restart,
    }
}

/// Mostly the one password that most users have, so that many sign-ins succeed.
fn password(dice: &mut Dice) -> usize {
    if dice.chance(70) { 0 } else { dice.below(PASSWORDS.len()) }
}

fn wish(dice: &mut Dice) -> Wish {
    Wish { remember: dice.chance(25), lifetime: dice.chance(25).then(|| dice.pick(&LIFETIMES)) }
}

/// Mostly a late session: the early ones are over sooner or later, and stay so.
fn presented(dice: &mut Dice) -> Presented {
    if dice.chance(5) { Presented::Altered(late(dice)) } else { Presented::Token(late(dice)) }
}

fn late(dice: &mut Dice) -> usize {
    if dice.chance(85) { dice.below(6) } else { dice.below(1_000) }
}

fn ending(dice: &mut Dice) -> Ending {
    match dice.below(100) {
        0..40 => Ending::Token(presented(dice)),
        40..65 => Ending::Session(late(dice)),
        65..75 => Ending::User(dice.below(USERS), None),
        75..95 => Ending::User(dice.below(USERS), Some(late(dice))),
        _ => Ending::Everyone,
    }
}
