//! One call after the other: every answer is what the oracle says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use latchkey::config::Config;
use latchkey::store::Store;

use super::client::Outcome;
use super::faulty_store::{FaultyStore, Flaw};
use super::operation::{Operation, opening, roll};
use super::oracle::{Oracle, PER_USER_MAX};
use super::player::Player;
use crate::support::databases::{Engine, TestDatabase, on_each_engine};
use crate::support::dice::{Dice, replay, seeds};
use crate::support::server::{TestServer, config, forgetful, key_ring};

/// Steps that are shown of a history that went wrong.
const SHOWN: usize = 12;

on_each_engine!(every_answer_is_what_the_oracle_says);

async fn every_answer_is_what_the_oracle_says(db: &TestDatabase) {
    let (count, steps) = if db.engine() == Engine::Sqlite { (5, 300) } else { (1, 200) };
    let mut all = Tally::default();
    for seed in seeds(count) {
        // Histories share the names of their users, so each has a database of its own.
        let own = TestDatabase::create(db.engine()).await;
        // Now and then memory has room for next to nothing: that never changes an answer.
        let config = if seed % 2 == 0 { history_config() } else { forgetful(history_config()) };
        let played = play(&own, seed, steps, true, &config, |store| store).await;
        let tally = played.unwrap_or_else(|wrong| panic!("{wrong}"));
        println!("{}: seed {seed}: {tally}, all as expected", db.engine());
        all.add(tally);
        own.discard().await;
    }
    if all.total() > 5 * steps {
        all.assert_rich();
    }
}

/// The same on stores that do what they must not; the oracle has to notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_answer_is_noticed() {
    for flaw in [Flaw::ForgetsEveryThirdEnding, Flaw::CachesSessions, Flaw::CachesSessionsNowAndThen] {
        let db = TestDatabase::create(Engine::Sqlite).await;
        let config = forgetful(history_config());
        let played = play(&db, 1, 300, false, &config, |store| FaultyStore::over(store, flaw)).await;
        let wrong = played.expect_err("a store with a flaw went unnoticed");
        assert!(wrong.contains("expected"), "{flaw:?}: {wrong}");
    }
}

/// What was answered, and how often.
#[derive(Debug, Default)]
struct Tally(BTreeMap<String, usize>);

impl Tally {
    fn count(&mut self, outcome: &Outcome) {
        let name = match outcome {
            Outcome::Refused(_, reason) => reason,
            Outcome::UserMade(_) => "user made",
            Outcome::SignedIn { .. } => "signed in",
            Outcome::Good(_) => "good",
            Outcome::Loaded(..) => "loaded",
            Outcome::Ended(_) => "ended",
            Outcome::UserChanged(..) => "user changed",
            Outcome::Listed(_) => "listed",
            Outcome::Nothing => return,
        };
        *self.0.entry(name.to_owned()).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        for (name, count) in other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// Checks that the histories went everywhere: each kind of answer came, and most were not refusals.
    fn assert_rich(&self) {
        let all = [
            "user made",
            "signed in",
            "good",
            "loaded",
            "ended",
            "user changed",
            "listed",
            "INVALID_CREDENTIALS",
            "SESSION_TOKEN_INVALID",
            "SESSION_EXPIRED",
            "SESSION_REVOKED",
            "CREDENTIALS_CHANGED",
            "USER_DISABLED",
            "REAUTHENTICATION_REQUIRED",
            "PASSWORD_REFUSED",
            "LOGIN_TAKEN",
            "USER_ID_TAKEN",
            "USER_NOT_FOUND",
        ];
        let never: Vec<_> = all.into_iter().filter(|name| !self.0.contains_key(*name)).collect();
        assert_eq!(never, [] as [&str; 0], "never answered");
        let refused: usize = self
            .0
            .iter()
            .filter(|(name, _)| name.chars().all(|c| !c.is_lowercase()))
            .map(|(_, count)| count)
            .sum();
        assert!(refused * 2 < self.total(), "{refused} of {} answers were refusals", self.total());
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers", self.total())?;
        self.0.iter().try_for_each(|(name, count)| write!(f, ", {count} {name}"))
    }
}

/// Plays a history and tells the first answer that was wrong, with the steps that led there.
async fn play(
    db: &TestDatabase,
    seed: u64,
    steps: usize,
    restarts: bool,
    config: &Config,
    over: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
) -> Result<Tally, String> {
    let (mut dice, mut oracle, mut tally) = (Dice::new(seed), Oracle::default(), Tally::default());
    let server = TestServer::try_start_over(db, config, Arc::default(), key_ring(), over).await;
    let mut player = Player::new(db, server.expect("the server starts"));
    let (mut shown, mut wrong) = (Vec::new(), None);
    let mut opening = opening().into_iter();
    for step in 0..steps {
        // No two things happen in one moment, so that "oldest" and "newest" have a meaning.
        player.advance(Duration::from_secs(1), &mut oracle).await;
        let operation = match opening.next().unwrap_or_else(|| roll(&mut dice)) {
            Operation::Restart if !restarts => continue,
            operation => operation,
        };
        let outcome;
        (player, outcome) = player.play(operation, &mut oracle).await;
        tally.count(&outcome);
        shown.push(format!("{step}: {operation:?}\n    -> {outcome:?}"));
        if let Err(why) = oracle.check(operation, &outcome) {
            let last = shown.split_off(shown.len().saturating_sub(SHOWN)).join("\n");
            wrong = Some(format!("step {step}: {why}; {}\nthe last steps:\n{last}", replay(seed)));
            break;
        }
        player.settle(&mut oracle).await;
    }
    player.stop().await;
    wrong.map_or(Ok(tally), Err)
}

fn history_config() -> Config {
    let mut config = config();
    config.session.per_user_max = u32::try_from(PER_USER_MAX).expect("a small number");
    config
}
