//! The barrier in one node: once a call that ends sessions has returned, no way of asking accepts one of them, before and
//! after a restart, and each says the reason of the error table. What was not to end goes on.

use std::time::Duration;

use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use latchkey::grpc::proto::{admin, v1};

use crate::support::databases::{TestDatabase, on_each_engine};
use crate::support::server::{OTHER_PASSWORD, PASSWORD, TestServer};

on_each_engine!(log_out, by_id, all_of_a_user, all_of_a_user_but_one, everyone, password_changed);
on_each_engine!(password_set, user_disabled, user_deleted, proved_again, above_the_cap);

/// Sessions of two users before something ends, and who is expected to be where afterwards.
struct Scene {
    server: TestServer,
    ada: v1::User,
    /// Sessions of ada.
    one: v1::LoginResponse,
    two: v1::LoginResponse,
    /// A session of somebody else.
    stranger: String,
}

impl Scene {
    async fn set(database: &TestDatabase) -> Self {
        let server = TestServer::start(database).await;
        let (ada, bob) = (server.add_user("ada").await, server.add_bare_user("bob").await);
        let one = server.log_in("ada").await;
        server.advance(Duration::from_secs(1)).await;
        let two = server.log_in("ada").await;
        let stranger = server.open_session(&bob).await.session_token;
        for token in [&one.session_token, &two.session_token, &stranger] {
            server.assert_good(token).await;
        }
        Self { server, ada, one, two, stranger }
    }

    fn id_of(login: &v1::LoginResponse) -> String {
        login.session.as_ref().expect("a session").session_id.clone()
    }

    /// Asserts what every token is worth, restarts, and asserts it again.
    async fn assert(self, database: &TestDatabase, dead: &[&str], reason: &str, good: &[&str]) -> TestServer {
        let mut server = self.server;
        for round in ["before", "after"] {
            for token in dead {
                server.assert_dead(token, reason).await;
            }
            for token in good {
                server.assert_good(token).await;
            }
            if round == "before" {
                server = server.restart(database).await;
            }
        }
        server
    }

    /// The tokens of the scene.
    fn tokens(&self) -> [String; 3] {
        [self.one.session_token.clone(), self.two.session_token.clone(), self.stranger.clone()]
    }
}

async fn log_out(database: &TestDatabase) {
    let scene = Scene::set(database).await;
    let [one, two, stranger] = scene.tokens();
    let ended = scene.server.log_out(&one).await;
    assert_eq!(ended.revoked_count, 1);
    assert!(ended.position > 0);
    let again = scene.server.log_out(&one).await;
    assert_eq!(again.revoked_count, 0, "it is over already");
    assert!(again.position >= ended.position, "its end lies behind the position of every answer");
    scene.assert(database, &[&one], "SESSION_REVOKED", &[&two, &stranger]).await;
}

async fn by_id(database: &TestDatabase) {
    let scene = Scene::set(database).await;
    let [one, two, stranger] = scene.tokens();
    let target = Target::SessionId(Scene::id_of(&scene.one));
    assert_eq!(scene.server.revoke(target.clone()).await.expect("ended").revoked_count, 1);
    assert_eq!(scene.server.revoke(target).await.expect("ended").revoked_count, 0);
    scene.assert(database, &[&one], "SESSION_REVOKED", &[&two, &stranger]).await;
}

async fn all_of_a_user(database: &TestDatabase) {
    let scene = Scene::set(database).await;
    let [one, two, stranger] = scene.tokens();
    let all = v1::UserSessions { user_id: scene.ada.user_id.clone(), except_session_id: String::new() };
    assert_eq!(scene.server.revoke(Target::User(all)).await.expect("ended").revoked_count, 2);
    let server = scene.assert(database, &[&one, &two], "SESSION_REVOKED", &[&stranger]).await;
    server.assert_good(&server.log_in("ada").await.session_token).await;
}

async fn all_of_a_user_but_one(database: &TestDatabase) {
    let scene = Scene::set(database).await;
    let [one, two, stranger] = scene.tokens();
    let but_two =
        v1::UserSessions { user_id: scene.ada.user_id.clone(), except_session_id: Scene::id_of(&scene.two) };
    assert_eq!(scene.server.revoke(Target::User(but_two.clone())).await.expect("ended").revoked_count, 1);
    assert_eq!(scene.server.revoke(Target::User(but_two)).await.expect("ended").revoked_count, 0);
    scene.assert(database, &[&one], "SESSION_REVOKED", &[&two, &stranger]).await;
}

async fn everyone(database: &TestDatabase) {
    let scene = Scene::set(database).await;
    let [one, two, stranger] = scene.tokens();
    let ended = scene.server.revoke(Target::Everyone(v1::Everyone {})).await.expect("ended");
    assert_eq!(ended.revoked_count, 3);
    let server = scene.assert(database, &[&one, &two, &stranger], "SESSION_REVOKED", &[]).await;
    server.assert_good(&server.log_in("ada").await.session_token).await;
}

async fn password_changed(database: &TestDatabase) {
    let scene = Scene::set(database).await;
    let [one, two, stranger] = scene.tokens();
    let request = v1::ChangePasswordRequest {
        who: Some(v1::change_password_request::Who::SessionToken(one.clone())),
        current_password: PASSWORD.to_owned(),
        new_password: OTHER_PASSWORD.to_owned(),
        client: None,
    };
    let changed = scene.server.auth().await.change_password(request).await.expect("changed").into_inner();
    assert_eq!(changed.revoked_count, 2);
    let new = changed.session_token;
    scene.assert(database, &[&one, &two], "CREDENTIALS_CHANGED", &[&new, &stranger]).await;
}

async fn password_set(database: &TestDatabase) {
    let scene = Scene::set(database).await;
    let [one, two, stranger] = scene.tokens();
    let request =
        admin::SetPasswordRequest { user_id: scene.ada.user_id.clone(), password: OTHER_PASSWORD.to_owned() };
    let set = scene.server.users().await.set_password(request).await.expect("set").into_inner();
    assert_eq!(set.revoked_count, 2);
    assert!(set.position > 0);
    scene.assert(database, &[&one, &two], "CREDENTIALS_CHANGED", &[&stranger]).await;
}

async fn user_disabled(database: &TestDatabase) {
    let scene = Scene::set(database).await;
    let [one, two, stranger] = scene.tokens();
    let disabled = scene.server.disable(&scene.ada).await;
    assert_eq!(disabled.revoked_count, 2);
    assert_eq!(scene.server.disable(&scene.ada).await.revoked_count, 0, "disabled already");
    let ada = disabled.user.expect("a user");
    let server = scene.assert(database, &[&one, &two], "USER_DISABLED", &[&stranger]).await;
    // Who may sign in again starts anew: what ended stays ended.
    let active = v1::User { state: v1::UserState::Active.into(), ..ada };
    server.update_user(active, &["state"]).await.expect("active again");
    for token in [&one, &two] {
        server.verdict(token).await.expect_err("what ended stays ended");
    }
    server.assert_good(&server.log_in("ada").await.session_token).await;
}

async fn user_deleted(database: &TestDatabase) {
    let scene = Scene::set(database).await;
    let [one, two, stranger] = scene.tokens();
    assert_eq!(scene.server.delete(&scene.ada).await.revoked_count, 2);
    let user_id = scene.ada.user_id.clone();
    let server = scene.assert(database, &[&one, &two], "USER_DISABLED", &[&stranger]).await;
    // Nor does somebody new under the old id and name inherit a session.
    let again = admin::CreateUserRequest { login: "ada".to_owned(), user_id, ..Default::default() };
    server.create_user(again).await;
    for token in [&one, &two] {
        server.verdict(token).await.expect_err("what ended stays ended");
    }
}

async fn proved_again(database: &TestDatabase) {
    let scene = Scene::set(database).await;
    let [one, two, stranger] = scene.tokens();
    let request =
        v1::ReauthenticateRequest { session_token: one.clone(), password: PASSWORD.to_owned(), client: None };
    let answer = scene.server.auth().await.reauthenticate(request).await.expect("proved").into_inner();
    let new = answer.session_token;
    scene.assert(database, &[&one], "SESSION_REVOKED", &[&new, &two, &stranger]).await;
}

async fn above_the_cap(database: &TestDatabase) {
    let scene = Scene::set(database).await;
    let [one, two, stranger] = scene.tokens();
    let mut newer = Vec::new();
    for _ in 0..48 {
        scene.server.advance(Duration::from_millis(1)).await;
        newer.push(scene.server.open_session(&scene.ada).await.session_token);
    }
    scene.server.assert_good(&one).await;
    scene.server.advance(Duration::from_millis(1)).await;
    newer.push(scene.server.open_session(&scene.ada).await.session_token);
    let good = [&two, &stranger, &newer[0], &newer[48]].map(String::as_str);
    scene.assert(database, &[&one], "SESSION_REVOKED", &good).await;
}
