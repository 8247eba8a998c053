//! Somebody holds the row of one user locked (a forgotten transaction of an operator, say): log-outs of others do not
//! notice, and that user's wait for the lock and fail alone if it outlasts them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use latchkey::grpc::proto::v1::UserSessions;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use latchkey::host::ManualClock;
use latchkey::store::sql::{SqlLimits, SqlStore};
use tonic::Code;

use crate::support::databases::{Raw, TestDatabase, on_each_server, url_of};
use crate::support::refusals::assert_refused;
use crate::support::server::{TestServer, config, key_ring};
use crate::support::waiting::in_time;

on_each_server![
    a_locked_user_delays_nobody_elses_log_out,
    a_locked_user_fails_alone_when_the_lock_stays,
    what_waits_for_a_lock_leaves_connections_to_others,
];

/// Log-outs of others at the same time.
const OTHERS: usize = 24;

async fn holder_of(db: &TestDatabase, login: &str) -> Raw {
    let holder = db.raw().await;
    holder.run("BEGIN").await;
    holder.rows(&format!("SELECT user_id FROM users WHERE login_key = '{login}' FOR UPDATE")).await;
    holder
}

fn all_of(user_id: &str) -> Target {
    Target::User(UserSessions { user_id: user_id.to_owned(), except_session_id: String::new() })
}

/// A user who is there, and the tokens of others.
async fn crowd(server: &TestServer) -> (String, Vec<String>) {
    let bob = server.add_bare_user("bob").await;
    server.open_session(&bob).await;
    let mut tokens = Vec::new();
    for number in 0..OTHERS {
        let user = server.add_bare_user(&format!("user-{number}")).await;
        tokens.push(server.open_session(&user).await.session_token);
    }
    (bob.user_id, tokens)
}

async fn a_locked_user_delays_nobody_elses_log_out(db: &TestDatabase) {
    let server = TestServer::start(db).await;
    let (bob, tokens) = crowd(&server).await;
    let holder = holder_of(db, "bob").await;
    let of_bob = server.revoke(all_of(&bob));
    tokio::pin!(of_bob);
    assert!(futures_util::poll!(&mut of_bob).is_pending());
    let others = join_all(tokens.iter().map(|token| server.log_out(token)));
    // The lock is held until they have all been answered.
    let others = async {
        tokio::select! {
            biased;
            answer = &mut of_bob => panic!("the lock is held: {answer:?}"),
            others = others => others,
        }
    };
    let answers = in_time("the log-outs of others", others).await;
    assert!(answers.iter().all(|answer| answer.revoked_count == 1));
    holder.run("ROLLBACK").await;
    let answer = in_time("the locked user's", of_bob).await.expect("the lock is gone");
    assert_eq!(answer.revoked_count, 1);
}

async fn a_locked_user_fails_alone_when_the_lock_stays(db: &TestDatabase) {
    let limits = SqlLimits { lock_timeout: Duration::from_secs(1), ..SqlLimits::default() };
    let store = SqlStore::open(&url_of(db.url()), limits).await.expect("the store opens");
    let clock = Arc::new(ManualClock::default());
    let server = TestServer::try_start_on(store, &config(), clock, key_ring(), |store| store).await;
    let server = server.expect("the server starts");
    let (bob, tokens) = crowd(&server).await;
    let holder = holder_of(db, "bob").await;
    let both = async { tokio::join!(server.revoke(all_of(&bob)), server.log_out(&tokens[0])) };
    let (of_bob, other) = in_time("both", both).await;
    assert_refused(of_bob, Code::Unavailable, "STORE_UNAVAILABLE");
    assert_eq!(other.revoked_count, 1);
    holder.run("ROLLBACK").await;
    let answer = server.revoke(all_of(&bob)).await.expect("the lock is gone");
    assert_eq!(answer.revoked_count, 1);
}

async fn what_waits_for_a_lock_leaves_connections_to_others(db: &TestDatabase) {
    let server = TestServer::start(db).await;
    let (bob, tokens) = crowd(&server).await;
    let holder = holder_of(db, "bob").await;
    // More than there are connections.
    let of_bob = join_all((0..64).map(|_| server.revoke(all_of(&bob))));
    tokio::pin!(of_bob);
    let others = async {
        for token in &tokens {
            assert_eq!(server.log_out(token).await.revoked_count, 1);
        }
    };
    let others = async {
        tokio::select! {
            biased;
            answers = &mut of_bob => panic!("the lock is held: {answers:?}"),
            () = others => {}
        }
    };
    in_time("the log-outs of others", others).await;
    holder.run("ROLLBACK").await;
    let answers = in_time("the locked user's", of_bob).await;
    assert!(answers.iter().any(Result::is_ok), "the lock is gone");
}
