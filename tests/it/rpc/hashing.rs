//! While a password is hashed, everything else goes on: no connection of the database is held for it.

use std::sync::Arc;

use latchkey::grpc::proto::v1;
use latchkey::store::sql::{SqlLimits, SqlStore};

use crate::support::databases::{TestDatabase, on_each_engine, url_of};
use crate::support::raw_call::metric;
use crate::support::server::{
    OTHER_PASSWORD, PASSWORD, TestServer, config, key_ring, log_in_request, new_user,
};
use crate::support::waiting::{eventually, in_time};

on_each_engine!(a_sign_in_that_hashes_holds_no_connection);

/// One connection in all, and one hashing thread, which is held: whoever kept the connection while hashing would keep it
/// from everybody.
async fn a_sign_in_that_hashes_holds_no_connection(database: &TestDatabase) {
    let mut config = config();
    config.password.hash_threads = 1;
    let limits = SqlLimits { connections_max: 1, ..SqlLimits::default() };
    let store = SqlStore::open(&url_of(database.url()), limits).await.expect("the store opens");
    let server = TestServer::try_start_on(store, &config, Arc::default(), key_ring(), |store| store).await;
    let server = server.unwrap_or_else(|why| panic!("{why}"));
    let ada = server.add_user("ada").await;
    server.add_user("eve").await;
    let token = server.open_session(&ada).await.session_token;

    server.hashing.hold();
    let held = server.create_user(new_user("bob", PASSWORD));
    let (mut auth, mut auth_too, mut auth_again) =
        (server.auth().await, server.auth().await, server.auth().await);
    let change = v1::ChangePasswordRequest {
        who: Some(v1::change_password_request::Who::Login("eve".to_owned())),
        current_password: PASSWORD.to_owned(),
        new_password: OTHER_PASSWORD.to_owned(),
        client: None,
    };
    let prove = v1::ReauthenticateRequest {
        session_token: server.open_session(&ada).await.session_token,
        password: PASSWORD.to_owned(),
        client: None,
    };
    let meanwhile = async {
        let queue = async || metric(&server, "latchkey_hash_queue_length").await == 3;
        eventually("three wait for the thread", queue).await;
        server.assert_good(&token).await;
        server.open_session(&ada).await;
        server.add_bare_user("carol").await;
        assert_eq!(metric(&server, "latchkey_hash_queue_length").await, 3, "they are still waiting");
        server.hashing.release();
    };
    // Each says at once what went wrong: the others wait for as long as it is not in the queue.
    let all = async {
        tokio::join!(
            held,
            async {
                // Whoever came before the thread is held would not wait.
                server.hashing.reached().await;
                tokio::join!(
                    async { auth.login(log_in_request("ada", PASSWORD)).await.expect("signed in") },
                    async { auth_too.change_password(change).await.expect("changed") },
                    async { auth_again.reauthenticate(prove).await.expect("proved") },
                )
            },
            meanwhile
        )
    };
    in_time("the end of the hashing", Box::pin(all)).await;
}
