//! A user who is made under the id of one who was deleted. The making of a user is no row of the change log, so a read
//! from before it may come in after one from behind it.

use latchkey::grpc::proto::admin;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::Fault;
use crate::support::server::{TestServer, new_user};

const ID: &str = "00000000-0000-7000-8000-000000000042";

fn heir(login: &str) -> admin::CreateUserRequest {
    admin::CreateUserRequest { user_id: ID.to_owned(), ..new_user(login, "") }
}

#[tokio::test]
async fn a_late_read_of_the_deleted_user_locks_nobody_out() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.create_user(heir("ada")).await;
    let old = server.open_session(&ada).await.session_token;
    server.delete(&ada).await;
    // Nothing of her is in memory any more.
    let server = server.restart(&database).await;
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let reads = server.faults.calls("sessions_by_digest");
    let late = Fault::GateBehind(std::sync::Arc::clone(&gate));
    server.faults.set_in_turn("sessions_by_digest", [late, Fault::Pass]);
    let bob_lives = async {
        server.faults.asked_for("sessions_by_digest", reads + 1).await;
        let bob = server.create_user(heir("bob")).await;
        let token = server.open_session(&bob).await.session_token;
        server.validate(&token).await.expect("just signed in");
        gate.add_permits(1);
        (bob, token)
    };
    let (refused, (bob, token)) = tokio::join!(server.validate(&old), bob_lives);
    assert!(refused.is_err(), "she is gone");
    server.assert_good(&token).await;
    server.assert_dead(&old, "USER_DISABLED").await;
    server.log_out(&token).await;
    let again = server.open_session(&bob).await.session_token;
    server.assert_good(&again).await;
}
