//! Two calls at once: a sign-in under way does not outlive what ended everything meanwhile, and of two changes of one
//! password exactly one wins.

use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use latchkey::grpc::proto::{admin, v1};
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase, on_each_engine};
use crate::support::interposed_store::shut_gate;
use crate::support::raw_call::metric;
use crate::support::refusals::assert_refused;
use crate::support::server::{OTHER_PASSWORD, PASSWORD, TestServer, log_in_request, new_user};
use crate::support::waiting::eventually;

on_each_engine!(dead_on_arrival, exactly_one_change_wins);

/// Signs ada in, and lets `meanwhile` happen after her password was verified and before her session is written.
async fn sign_in_during(server: &TestServer, meanwhile: impl Future<Output = ()>) -> String {
    let (gate, fault) = shut_gate();
    let before = server.faults.calls("create_session");
    server.faults.set("create_session", fault);
    let meanwhile = async {
        server.faults.asked_for("create_session", before + 1).await;
        meanwhile.await;
        server.faults.clear();
        gate.add_permits(1);
    };
    let mut client = server.auth().await;
    let (signed_in, ()) = tokio::join!(client.login(log_in_request("ada", PASSWORD)), meanwhile);
    signed_in.expect("the password was right when it was verified").into_inner().session_token
}

async fn dead_on_arrival(database: &TestDatabase) {
    let server = TestServer::start(database).await;
    let ada = server.add_user("ada").await;

    let end_user = async {
        let all = v1::UserSessions { user_id: ada.user_id.clone(), except_session_id: String::new() };
        server.revoke(Target::User(all)).await.expect("ended");
    };
    let token = sign_in_during(&server, end_user).await;
    server.assert_dead(&token, "SESSION_REVOKED").await;

    let everyone = async {
        server.revoke(Target::Everyone(v1::Everyone {})).await.expect("ended");
    };
    let token = sign_in_during(&server, everyone).await;
    server.assert_dead(&token, "SESSION_REVOKED").await;

    let change = async {
        let (user_id, password) = (ada.user_id.clone(), OTHER_PASSWORD.to_owned());
        let request = admin::SetPasswordRequest { user_id, password };
        server.users().await.set_password(request).await.expect("set");
    };
    let token = sign_in_during(&server, change).await;
    server.assert_dead(&token, "CREDENTIALS_CHANGED").await;
    assert_eq!(server.sessions(&ada.user_id).await, [], "none of them stands");
}

#[tokio::test]
async fn a_user_who_is_disabled_or_deleted_during_a_sign_in_is_out() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_user("ada").await;
    let token = sign_in_during(&server, async {
        server.disable(&ada).await;
    })
    .await;
    server.assert_dead(&token, "USER_DISABLED").await;
    let active = v1::User { state: v1::UserState::Active.into(), ..ada.clone() };
    server.update_user(active, &["state"]).await.expect("active again");
    server.verdict(&token).await.expect_err("it was born before the user was disabled");
    let token = sign_in_during(&server, async {
        server.delete(&ada).await;
    })
    .await;
    server.assert_dead(&token, "USER_DISABLED").await;
}

async fn exactly_one_change_wins(database: &TestDatabase) {
    let server = TestServer::start(database).await;
    let ada = server.add_user("ada").await;
    let (gate, fault) = shut_gate();
    server.faults.set("change_password", fault);
    let change = async |new: &str| {
        let request = v1::ChangePasswordRequest {
            who: Some(v1::change_password_request::Who::Login("ada".to_owned())),
            current_password: PASSWORD.to_owned(),
            new_password: new.to_owned(),
            client: None,
        };
        server.auth().await.change_password(request).await.map(tonic::Response::into_inner)
    };
    let news = ["the first of two new ones", "the second of two new ones"];
    let both_verified = async {
        server.faults.asked_for("change_password", 2).await;
        gate.add_permits(2);
    };
    let (first, second, ()) = tokio::join!(change(news[0]), change(news[1]), both_verified);
    let (won, lost, new, other) = match (first, second) {
        (Ok(won), lost @ Err(_)) => (won, lost, news[0], news[1]),
        (lost @ Err(_), Ok(won)) => (won, lost, news[1], news[0]),
        both => panic!("not exactly one won: {both:?}"),
    };
    assert_refused(lost, Code::Unauthenticated, "INVALID_CREDENTIALS");
    server.assert_good(&won.session_token).await;
    assert_eq!(server.sessions(&ada.user_id).await.len(), 1);
    server.auth().await.login(log_in_request("ada", new)).await.expect("the password that won");
    for wrong in [other, PASSWORD] {
        let outcome = server.auth().await.login(log_in_request("ada", wrong)).await;
        assert_refused(outcome, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
}

#[tokio::test]
async fn a_password_change_that_loses_against_an_administrator_changes_nothing() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_user("ada").await;
    let (gate, fault) = shut_gate();
    server.faults.set("change_password", fault);
    let request = v1::ChangePasswordRequest {
        who: Some(v1::change_password_request::Who::Login("ada".to_owned())),
        current_password: PASSWORD.to_owned(),
        new_password: "what the thief wanted".to_owned(),
        client: None,
    };
    let administrator = async {
        server.faults.asked_for("change_password", 1).await;
        let (user_id, password) = (ada.user_id.clone(), OTHER_PASSWORD.to_owned());
        let request = admin::SetPasswordRequest { user_id, password };
        server.users().await.set_password(request).await.expect("set");
        gate.add_permits(1);
    };
    let mut thief = server.auth().await;
    let (outcome, ()) = tokio::join!(thief.change_password(request), administrator);
    assert_refused(outcome, Code::Unauthenticated, "INVALID_CREDENTIALS");
    server.auth().await.login(log_in_request("ada", OTHER_PASSWORD)).await.expect("the last word");
}

#[tokio::test]
async fn an_upgrade_of_the_hash_keeps_sessions_and_happens_once() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let request = admin::CreateUserRequest {
        password_hash: cheap_hash_of(PASSWORD),
        password_hash_scheme: "argon2id".to_owned(),
        ..new_user("ada", "")
    };
    let ada = server.create_user(request).await;
    let before = server.open_session(&ada).await.session_token;
    let first = server.log_in("ada").await;
    eventually("the upgrade is written", async || server.faults.calls("upgrade_password_hash") == 1).await;
    server.assert_good(&before).await;
    server.assert_good(&first.session_token).await;
    // From now on one computation is enough: the hash is that of the policy.
    let runs = async || metric(&server, "latchkey_hash_runs_total").await;
    let upgraded = async || {
        let before = runs().await;
        server.log_in("ada").await;
        runs().await == before + 1
    };
    eventually("a sign-in costs one computation", upgraded).await;
    server.log_in("ada").await;
    let server = server.restart(&database).await;
    server.log_in("ada").await;
    assert_eq!(server.faults.calls("upgrade_password_hash"), 0);
    let loaded = server.load_by_token(&before).await.expect("good").user.expect("a user");
    assert_eq!(loaded.password_time, ada.password_time, "the password is the same");
}

#[tokio::test]
async fn an_upgrade_that_fails_harms_nobody() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let request = admin::CreateUserRequest { password_hash: cheap_hash_of(PASSWORD), ..new_user("ada", "") };
    server.create_user(request).await;
    server.faults.set("upgrade_password_hash", crate::support::interposed_store::Fault::Unavailable);
    let token = server.log_in("ada").await.session_token;
    server.faults.asked_for("upgrade_password_hash", 1).await;
    server.assert_good(&token).await;
    server.faults.clear();
    server.log_in("ada").await;
    server.faults.asked_for("upgrade_password_hash", 2).await;
}

/// A hash far below the policy, as another system would have made it.
fn cheap_hash_of(password: &str) -> String {
    use argon2::password_hash::PasswordHasher as _;
    let params = argon2::Params::new(64, 1, 1, None).expect("small costs");
    let hasher = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    hasher.hash_password_with_salt(password.as_bytes(), b"a salt of 16 b..").expect("a hash").to_string()
}

#[tokio::test]
async fn many_sign_ins_at_once_never_exceed_the_cap() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.session.per_user_max = 5).await;
    let ada = server.add_bare_user("ada").await;
    let made = futures_util::future::join_all((0..40).map(|_| server.open_session(&ada))).await;
    assert_eq!(server.sessions(&ada.user_id).await.len(), 5);
    let mut good = 0;
    for session in made {
        good += usize::from(server.validate(&session.session_token).await.is_ok());
    }
    assert_eq!(good, 5);
}
