//! A quiet connection is asked whether it lives, and one that does not answer is closed.

use std::time::Duration;

use latchkey::host::{Clock as _, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::server::TestServer;
use crate::support::waiting::in_time;

/// What a client says first: the preface, and settings that ask for nothing (RFC 9113, section 3.4).
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: u8 = 6;
const ACK: u8 = 1;
const FRAME_HEAD: usize = 9;
const INTERVAL: Duration = Duration::from_millis(200);
/// At most so long ago was the last tick of the machine.
const TICK: Duration = Duration::from_millis(20);
/// More than fit into the time that a silent connection has.
const QUESTIONS: u32 = 15;

/// A client that does not answer by itself.
struct Client(TcpStream);

impl Client {
    async fn connect(server: &TestServer) -> Self {
        let mut stream = TcpStream::connect(server.address).await.expect("a connection");
        stream.write_all(HELLO).await.expect("sent");
        Self(stream)
    }

    /// The payload of the next PING that asks; none once the connection is closed.
    async fn asked(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut head = [0; FRAME_HEAD];
            self.0.read_exact(&mut head).await.ok()?;
            let len = usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; len];
            self.0.read_exact(&mut payload).await.ok()?;
            if head[3] == PING && head[4] & ACK == 0 {
                return Some(payload);
            }
        }
    }

    async fn answer(&mut self, payload: &[u8]) {
        let mut frame = vec![0, 0, 8, PING, ACK, 0, 0, 0, 0];
        frame.extend(payload);
        self.0.write_all(&frame).await.expect("sent");
    }
}

#[tokio::test]
async fn a_connection_that_does_not_say_that_it_lives_is_closed() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| {
        config.grpc.keepalive_interval_ms = u64::try_from(INTERVAL.as_millis()).expect("fits");
        config.grpc.keepalive_timeout_ms = 2_000;
    })
    .await;
    let (mut mute, mut alive) = (Client::connect(&server).await, Client::connect(&server).await);
    let ends = async {
        mute.asked().await.expect("it is asked");
        assert_eq!(mute.asked().await, None, "once, and then it is closed");
    };
    let stays = async {
        let begun = SystemClock.boottime();
        for _ in 0..QUESTIONS {
            let asked = alive.asked().await.expect("whoever answers is asked again");
            alive.answer(&asked).await;
        }
        SystemClock.boottime().since(begun)
    };
    let both = async { tokio::join!(ends, stays) };
    let ((), took) = in_time("the end of one, and many questions to the other", both).await;
    assert!(
        took + TICK * QUESTIONS > INTERVAL * QUESTIONS,
        "it is asked when it is quiet, and not before: {took:?}"
    );
}
