//! Writing lost changes again over a slow network: the round trips of a batch do not grow with it, and attempts never
//! overlap.

use std::sync::Arc;
use std::time::Duration;

use latchkey::domain::id::{Epoch, Position, SessionId, UserId};
use latchkey::domain::user::UserState;
use latchkey::host::{Clock as _, SystemClock};
use latchkey::store::coordination::{Coordination as _, WRITE_AGAIN_MAX};
use latchkey::store::sql::{SqlLimits, SqlStore};
use latchkey::store::{LogEntry, LoggedChange, NewSession, Stamp, Store as _};
use tokio::task::JoinSet;

use super::samples::{NO_CAP, add_user, at, head, log_after, new_session, new_user, stamp, user};
use crate::support::databases::{Engine, TestDatabase, on_each_server, url_of};
use crate::support::tcp_proxy::{Network, TcpProxy};
use crate::support::waiting::eventually;

on_each_server![
    thousands_of_lost_log_outs_are_back_within_seconds,
    a_batch_takes_as_many_round_trips_as_a_single_change,
    attempts_never_overlap,
];

/// A store behind a network in the hands of the test.
async fn far(db: &TestDatabase) -> (SqlStore, TcpProxy) {
    let (account, rest) = db.url().split_once('@').expect("an account");
    let (server, name) = rest.split_once('/').expect("a database");
    let proxy = TcpProxy::start(server.to_owned()).await;
    let url = format!("{account}@{}/{name}", proxy.address);
    (SqlStore::open(&url_of(&url), SqlLimits::default()).await.expect("the store opens"), proxy)
}

fn row(entry: LogEntry) -> LoggedChange {
    let Stamp { time, nonce } = stamp(at(1));
    LoggedChange { position: Position::from_i64(77), nonce, entry, time }
}

/// Sessions of a few users, whose ends the database does not know of.
async fn lost_log_outs(db: &TestDatabase, count: usize) -> Vec<LoggedChange> {
    const WRITERS: usize = 8;
    let store = Arc::new(db.open().await);
    let mut adding = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        adding.spawn(async move {
            let ada = add_user(&*store, &format!("ada-{writer}")).await;
            let mut lost = Vec::new();
            for _ in 0..count / WRITERS {
                let NewSession { session, digest } = new_session(&ada, at(1));
                let (user, session_id) = (ada.id, session.id);
                let new = NewSession { session, digest };
                store.create_session(new, NO_CAP, stamp(at(1))).await.expect("added");
                lost.push(row(LogEntry::SessionEnded { user, session: session_id }));
            }
            lost
        });
    }
    adding.join_all().await.concat()
}

/// Writes all of it again in batches, as the follower does, and says how long it took.
async fn write_all(store: &SqlStore, lost: &[LoggedChange]) -> Duration {
    let began = SystemClock.boottime();
    for batch in lost.chunks(WRITE_AGAIN_MAX) {
        let written = store.write_again(batch, stamp(at(5))).await.expect("written");
        assert_eq!(written.change.rows.len(), batch.len());
    }
    SystemClock.boottime().since(began)
}

async fn thousands_of_lost_log_outs_are_back_within_seconds(db: &TestDatabase) {
    for (count, delay, limit) in [(5_000, 3, 30), (120, 200, 12)] {
        let lost = if count == 120 { far_lost(db).await } else { lost_log_outs(db, count).await };
        let (store, proxy) = far(db).await;
        let before = head(&store).await;
        proxy.set(Network::LateAnswers(Duration::from_millis(delay)));
        let took = write_all(&store, &lost).await;
        println!("{:?}: {} lost log-outs at {delay} ms: {} ms", db.engine(), lost.len(), took.as_millis());
        assert!(took < Duration::from_secs(limit), "{took:?} for {count} at {delay} ms");
        proxy.set(Network::Up);
        assert_eq!(log_after(&store, before).await.len(), lost.len());
        let began = SystemClock.boottime();
        for batch in lost.chunks(WRITE_AGAIN_MAX) {
            let again = store.write_again(batch, stamp(at(6))).await.expect("in force");
            assert_eq!(again.change.rows, [], "another node that knows of them does no harm");
        }
        println!(
            "{:?}: again, in force already: {} ms",
            db.engine(),
            SystemClock.boottime().since(began).as_millis()
        );
    }
}

/// The ends of all sessions of 120 users, one each, which raise epochs and keep a session.
async fn far_lost(db: &TestDatabase) -> Vec<LoggedChange> {
    let store = db.open().await;
    let mut lost = Vec::new();
    for number in 0..120 {
        let eve = add_user(&store, &format!("eve-{number}")).await;
        let NewSession { session, digest } = new_session(&eve, at(1));
        let kept = Some(session.id);
        let new = NewSession { session, digest };
        store.create_session(new, NO_CAP, stamp(at(1))).await.expect("added");
        let (user, epoch) = (eve.id, eve.credential_epoch.next());
        lost.push(row(match number % 3 {
            0 => LogEntry::UserDisabled { user, epoch },
            1 => LogEntry::PasswordChanged { user, epoch, kept },
            _ => LogEntry::UserSessionsEnded { user, epoch, kept },
        }));
    }
    lost
}

/// The control: change by change, the same changes would take as many times as long.
async fn a_batch_takes_as_many_round_trips_as_a_single_change(db: &TestDatabase) {
    let lost = far_lost(db).await;
    let (store, proxy) = far(db).await;
    proxy.set(Network::LateAnswers(Duration::from_millis(40)));
    let (singles, batch) = lost.split_at(6);
    let began = SystemClock.boottime();
    for single in singles {
        store.write_again(std::slice::from_ref(single), stamp(at(5))).await.expect("written");
    }
    let one_by_one = SystemClock.boottime().since(began);
    let together = write_all(&store, batch).await;
    println!("{:?}: 6 one by one {one_by_one:?}, 114 together {together:?}", db.engine());
    assert!(together < one_by_one, "114 together take less than 6 one by one");
    for (change, number) in lost.iter().zip(0..) {
        let after = user(&store, change.user().expect("a user")).await;
        assert_eq!(Some(after.credential_epoch), change.epoch(), "user {number}");
        let disabled = matches!(change.entry, LogEntry::UserDisabled { .. });
        assert_eq!(after.state == UserState::Disabled, disabled, "user {number}");
        let is_password = matches!(change.entry, LogEntry::PasswordChanged { .. });
        assert_eq!(Some(after.password_epoch) == change.epoch(), is_password, "user {number}");
    }
}

/// The caller of an attempt gives up while the attempt waits for a lock. The next attempt waits for it.
async fn attempts_never_overlap(db: &TestDatabase) {
    if db.engine() != Engine::Postgres {
        // The turn is the same on each engine; what waits for a lock is easy to count on this one.
        return;
    }
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let (raw, looking) = (db.raw().await, db.raw().await);
    raw.run("BEGIN").await;
    raw.run("UPDATE users SET display_name = display_name").await;
    let lost = [row(LogEntry::UserSessionsEnded { user: ada.id, epoch: Epoch::from_i64(9), kept: None })];
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND wait_event_type = 'Lock'";
    let mut first = Box::pin(store.write_again(&lost, stamp(at(5))));
    eventually("the first attempt waits for the lock", async || {
        assert!(futures_util::poll!(&mut first).is_pending());
        looking.number(waiting).await == 1
    })
    .await;
    drop(first);
    let mut second = Box::pin(store.write_again(&lost, stamp(at(6))));
    for _ in 0..100 {
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(looking.number(waiting).await, 1, "the second attempt waits for the first");
    }
    raw.run("COMMIT").await;
    let written = second.await.expect("written");
    assert_eq!(written.change.rows, [], "the first attempt ran to its end");
    assert_eq!(user(&store, ada.id).await.credential_epoch, Epoch::from_i64(9));
    let unknown = UserId::from_uuid(new_user("nobody").id.as_uuid());
    let nobody =
        [row(LogEntry::SessionEnded { user: unknown, session: SessionId::from_uuid(unknown.as_uuid()) })];
    assert_eq!(store.write_again(&nobody, stamp(at(7))).await.expect("the turn is free").change.rows, []);
}
