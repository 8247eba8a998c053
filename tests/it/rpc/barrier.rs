//! Revocations that wait for a node which says nothing: what it costs the database, and how long it takes.

use futures_util::future::join_all;
use latchkey::domain::id::NodeId;
use latchkey::fleet::follower::wait_for_silent;
use latchkey::host::{SystemEntropy, random};
use latchkey::store::coordination::{Coordination as _, NewNode};
use tokio::sync::Semaphore;

use crate::support::databases::{TestDatabase, on_each_server};
use crate::support::interposed_store::{START, shut_gate};
use crate::support::raw_call::metric;
use crate::support::server::{LEASE, TestServer};
use crate::support::waiting::eventually;

/// How many wait at the same time.
const MANY: usize = 60;

on_each_server!(those_who_wait_for_a_silent_node_read_the_list_of_nodes_together);

async fn those_who_wait_for_a_silent_node_read_the_list_of_nodes_together(db: &TestDatabase) {
    let server = TestServer::start(db).await;
    let ada = server.add_bare_user("ada").await;
    let mut tokens = Vec::new();
    for _ in 0..MANY / 3 {
        tokens.push(server.open_session(&ada).await.session_token);
    }
    let bob = server.add_bare_user("bob").await;
    let carol = server.add_bare_user("carol").await;
    for _ in tokens.len()..MANY {
        tokens
            .push(server.open_session(if tokens.len() % 2 == 0 { &bob } else { &carol }).await.session_token);
    }
    let silent = NodeId::mint(START, random(&SystemEntropy));
    server.store.join(NewNode { id: silent, name: "silent".to_owned() }).await.expect("joined");

    let (gate, fault) = shut_gate();
    server.faults.set("nodes", fault);
    let (before, hints) = (server.faults.calls("nodes"), server.faults.calls("hint"));
    let barriers = metric(&server, "latchkey_barriers_total").await;
    let all_end = join_all(tokens.iter().map(|token| server.log_out(token)));
    let meanwhile = async {
        eventually("every end is committed and applied", async || {
            metric(&server, "latchkey_dead_in_memory").await == u64::try_from(MANY).expect("few")
        })
        .await;
        for token in &tokens {
            server.assert_dead(token, "SESSION_REVOKED").await;
        }
        let reads = server.faults.calls("nodes") - before;
        // One for all who wait, and one of the node that looks after the others.
        assert!(reads <= 2, "{reads} reads at the same time");
        assert_eq!(metric(&server, "latchkey_barriers_total").await, barriers, "all of them wait");
        gate.add_permits(Semaphore::MAX_PERMITS);
        eventually("the nodes were read again and again", async || server.faults.calls("nodes") - before > 4)
            .await;
        assert_eq!(metric(&server, "latchkey_barriers_total").await, barriers, "one says nothing");
        server.advance(wait_for_silent(LEASE)).await;
    };
    let (answers, ()) = tokio::join!(all_end, meanwhile);
    assert!(answers.iter().all(|answer| answer.revoked_count == 1));
    let hints = server.faults.calls("hint") - hints;
    assert!(hints < 10, "{hints} hints for {MANY} ends");
}
