//! SIGKILL in the midst of many calls: what was acknowledged is there afterwards, and nothing is there by half.

use std::collections::{BTreeMap, HashMap};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use latchkey::domain::id::{Epoch, Position, UserId};
use latchkey::store::{ChangeKind, LoggedChange, Store, UserKey};
use rustix::process::Signal;
use tonic::Code;

use super::callers::{Caller, Trade};
use super::ledger::{Ledger, Person};
use super::{PASSWORD, connect, own_turn, prepare, start};
use crate::history::books::Known;
use crate::history::checker::{self, Answer, Event, Summary};
use crate::history::client::{Client, Outcome};
use crate::history::operation::Wish;
use crate::support::databases::{TestDatabase, on_each_engine};
use crate::support::dice::{Dice, replay, seeds};
use crate::support::node_process::NodeProcess;
use crate::support::refusals::reason_of;
use crate::support::waiting::eventually;

/// Calls under way at any time; a quarter of them of each trade.
const CALLERS: usize = 200;
/// Callers that share a connection, of which each may carry a hundred calls.
const CALLERS_PER_CONNECTION: usize = 25;
/// How often the node is killed.
const ROUNDS: usize = 3;
/// Questions at a time while it is verified what is there.
const QUESTIONS: usize = 32;
/// Users of whom nothing was under way and whose sign-in is tried; each takes a hash.
const SIGN_INS_TRIED: usize = 10;

on_each_engine!(what_was_acknowledged_survives_a_kill);

async fn what_was_acknowledged_survives_a_kill(db: &TestDatabase) {
    let _turn = own_turn().await;
    let (own, folder) =
        (TestDatabase::create_empty(db.engine()).await, tempfile::tempdir().expect("a folder"));
    prepare(folder.path(), &own);
    let (seed, ledger) = (*seeds(0).first().expect("a seed"), Ledger::default());
    let mut dice = Dice::new(seed);
    let mut node = start_node(&own, folder.path());
    for round in 1..=ROUNDS {
        let acknowledged = load_and_kill(&mut node, &ledger, &mut dice).await;
        node = start_node(&own, folder.path());
        verify(&node, &ledger, seed).await;
        println!("{}: round {round}: killed after {acknowledged} acknowledged calls", db.engine());
    }
    node.signal(Signal::TERM);
    assert_eq!(node.ended().await.code, Some(0), "a node that was killed before stops as any other");
    let store = own.open().await;
    verify_log(&store, &ledger).await;
    store.close().await;
    let history = ledger.books.history();
    println!("{}: {}", db.engine(), Summary::of(&history, &checker::check(&history)));
    own.discard().await;
}

fn start_node(db: &TestDatabase, folder: &std::path::Path) -> NodeProcess {
    start(folder, db.url(), &["--password-hash-threads", "2", "--database-acquire-timeout-ms", "20000"])
}

/// Lets all callers loose, kills the node at a moment that the dice choose, and says how many calls were acknowledged.
async fn load_and_kill(node: &mut NodeProcess, ledger: &Ledger, dice: &mut Dice) -> usize {
    let trades = [Trade::SignsIn, Trade::ChangesPasswords, Trade::EndsSessions, Trade::AddsUsers];
    let mut callers = Vec::new();
    for first in (0..CALLERS).step_by(CALLERS_PER_CONNECTION) {
        let channel = connect(node).await;
        for number in first..first + CALLERS_PER_CONNECTION {
            let own = Dice::new(dice.number());
            let caller = Caller::new(ledger, channel.clone(), format!("caller-{number}"), own).await;
            callers.push((caller, trades[number % trades.len()]));
        }
    }
    let before = ledger.acknowledged();
    // Everything else takes less time than to change a password, and has happened often by then.
    let moment = ledger.changes() + 1 + dice.below(12);
    let kill = async {
        eventually("enough calls", async || ledger.changes() >= moment).await;
        node.signal(Signal::KILL);
    };
    let work = join_all(callers.into_iter().map(|(caller, trade)| caller.work(trade)));
    futures_util::join!(work, kill);
    let ended = node.ended().await;
    assert_eq!(ended.code, None, "it was killed and did not end by itself: {ended:?}");
    ledger.acknowledged() - before
}

/// Asks the node for everything that was acknowledged, and for what may have happened.
async fn verify(node: &NodeProcess, ledger: &Ledger, seed: u64) {
    let client = Client::new(connect(node).await);
    let alive = ask_all(&client, ledger).await;
    verify_endings(ledger, &alive);
    verify_passwords(&client, ledger, &alive).await;
    verify_users(&client, ledger).await;
    let violations = checker::check(&ledger.books.history());
    assert!(violations.is_empty(), "{violations:#?}; {}", replay(seed));
}

/// Asks for every session there ever was, and gives those that are good.
async fn ask_all(client: &Client, ledger: &Ledger) -> HashMap<String, bool> {
    let ask = async |session: Known| {
        let begin = ledger.books.tick();
        let answer = match client.clone().validate(session.token, None).await {
            Ok(_) => Answer::Good,
            Err(refused) => {
                let (code, reason) = reason_of(&refused);
                assert_eq!(code, Code::Unauthenticated, "{reason}");
                Answer::Over
            }
        };
        ledger.books.record(begin, [Event::Asked { session: session.id.clone(), answer }]);
        (session.id, answer == Answer::Good)
    };
    let asked = futures_util::stream::iter(ledger.books.sessions()).map(ask).buffer_unordered(QUESTIONS);
    asked.collect().await
}

/// A change of a password that was under way has happened wholly, with the end of all sessions, or not at all; and an
/// acknowledged one stays. (There is one hash a user, so a password that is good says that all others are not.)
async fn verify_passwords(client: &Client, ledger: &Ledger, alive: &HashMap<String, bool>) {
    let (under_way, settled): (Vec<_>, Vec<_>) = ledger
        .people()
        .into_iter()
        .filter(|(_, person)| person.was_changed())
        .partition(|(_, person)| person.perhaps.is_some());
    let verify = async |(login, person): (String, Person)| {
        let last = person.passwords.last().expect("a password");
        let happened = match &person.perhaps {
            Some(new) if !can_sign_in(client, ledger, &login, last).await => {
                assert!(can_sign_in(client, ledger, &login, new).await, "{login}: neither password is good");
                true
            }
            _ => false,
        };
        let mut sessions = ledger.books.sessions().into_iter().filter(|one| one.user == person.id);
        // The caller opens a session before each change, so there was one to end.
        let left = sessions.any(|one| alive.get(&one.id) == Some(&true));
        assert_eq!(left, !happened, "{login}: the password is of one state, the sessions of another");
        ledger.update(&login, |person| {
            let new = person.perhaps.take().filter(|_| happened);
            person.passwords.extend(new);
        });
    };
    let verified = futures_util::stream::iter(under_way).map(verify).buffer_unordered(QUESTIONS);
    verified.collect::<Vec<()>>().await;
    for (login, person) in settled.iter().take(SIGN_INS_TRIED) {
        let [.., before, last] = person.passwords.as_slice() else { panic!("{login} was not changed") };
        assert!(can_sign_in(client, ledger, login, last).await, "{login}: the password was taken back");
        assert!(!can_sign_in(client, ledger, login, before).await, "{login}: an old password is good again");
    }
}

async fn can_sign_in(client: &Client, ledger: &Ledger, login: &str, password: &str) -> bool {
    let begin = ledger.books.tick();
    match client.clone().log_in(login.to_owned(), password, Wish::PLAIN).await {
        Ok(outcome) => {
            ledger.signed_in(begin, &outcome, None);
            true
        }
        Err(refused) => {
            assert_eq!(reason_of(&refused).1, "INVALID_CREDENTIALS");
            false
        }
    }
}

/// Where all sessions of a user were being ended, either all are over or none is.
fn verify_endings(ledger: &Ledger, alive: &HashMap<String, bool>) {
    for (user, except) in ledger.take_perhaps_ended() {
        let sessions = ledger.books.sessions();
        // The caller opened the last ones just before, and nothing else has touched them.
        let last = sessions.iter().rev().filter(|one| one.user == user).take(2);
        let to_end: Vec<_> =
            last.filter(|one| Some(&one.id) != except.as_ref()).map(|one| alive[&one.id]).collect();
        assert!(to_end.iter().all(|state| *state == to_end[0]), "{user}: ended by half: {to_end:?}");
        assert!(except.is_none_or(|except| alive[&except]), "{user}: what was to go on is over");
    }
}

/// Whoever was acknowledged is there under both names; whoever was not is there wholly or not at all.
async fn verify_users(client: &Client, ledger: &Ledger) {
    let find = async |(login, person): (String, Person)| {
        let found =
            client.clone().find_user(login.clone()).await.unwrap_or_else(|_| panic!("{login} is gone"));
        assert_eq!(found.user_id, person.id, "{login}");
    };
    let people = futures_util::stream::iter(ledger.people()).map(find).buffer_unordered(QUESTIONS);
    people.collect::<Vec<()>>().await;
    for login in ledger.take_perhaps_made() {
        match client.clone().find_user(login).await {
            Ok(user) => {
                let opened = client.clone().create_session(user.user_id, Wish::PLAIN).await;
                assert!(matches!(opened, Ok(Outcome::SignedIn { .. })), "{opened:?}");
            }
            Err(refused) => assert_eq!(reason_of(&refused).1, "USER_NOT_FOUND"),
        }
    }
    let added = |(login, person): &(String, Person)| login.contains("-made-") && !person.passwords.is_empty();
    for (login, _) in ledger.people().into_iter().filter(added).take(SIGN_INS_TRIED) {
        assert!(
            can_sign_in(client, ledger, &login, PASSWORD).await,
            "{login} came back without the password"
        );
    }
}

impl Person {
    fn was_changed(&self) -> bool {
        self.passwords.len() > 1 || self.perhaps.is_some()
    }
}

/// The log has no gap, raises each epoch by one, and ends where the users are.
async fn verify_log(store: &dyn Store, ledger: &Ledger) {
    let mut rows: Vec<LoggedChange> = Vec::new();
    loop {
        let after = rows.last().map_or(Position::ZERO, |row| row.position);
        let page = store.changes_after(after, 500).await.expect("the log can be read");
        if page.is_empty() {
            break;
        }
        rows.extend(page);
    }
    let positions: Vec<_> = rows.iter().map(|row| row.position.as_i64()).collect();
    let gapless: Vec<_> = (1..).take(rows.len()).collect();
    assert_eq!(positions, gapless);
    let mut epochs: BTreeMap<UserId, Epoch> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.kind() != ChangeKind::SessionEnded) {
        let (user, epoch) = (row.user().expect("a user"), row.epoch().expect("an epoch"));
        if let Some(before) = epochs.insert(user, epoch) {
            assert_eq!(epoch, before.next(), "{row:?}");
        }
    }
    assert!(!epochs.is_empty(), "nobody lost sessions");
    for (user, epoch) in epochs {
        let key = UserKey::Id(user);
        let credentials = store.credentials(key).await.expect("it answers").expect("the user is there");
        assert_eq!(credentials.user.credential_epoch, epoch, "{user}");
        assert_eq!(credentials.position.as_i64(), *positions.last().expect("a position"));
    }
    let changed = ledger.people().into_values().filter(Person::was_changed).count();
    assert!(changed > 0, "no password was changed");
}
