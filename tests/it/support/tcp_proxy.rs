//! The network between a node and its database, in the hands of the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the network does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// It carries everything.
    Up,
    /// It carries requests and keeps the answers back until it is up again.
    SlowAnswers,
    /// It carries everything up to a question that holds this text, and keeps the answers from there on back until it is up
    /// again.
    SlowFrom(&'static str),
    /// It carries answers and keeps the requests back until it is up again.
    SlowQuestions,
    /// It carries everything, and each answer this much later.
    LateAnswers(Duration),
    /// Connections are broken, and new ones are refused.
    Refusing,
    /// Nothing is carried and nobody is told. Connections from that time stay dead for ever.
    Silent,
}

/// What the network does, and how often all connections were broken.
type State = (Network, u64);

/// A proxy before a database server.
pub struct TcpProxy {
    /// Where it listens.
    pub address: SocketAddr,
    state: watch::Sender<State>,
    waiting: Arc<AtomicUsize>,
}

impl TcpProxy {
    /// Carries connections to `server`, until the test ends.
    pub async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, state) = watch::channel((Network::Up, 0));
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&waiting);
        beside(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, state, waiting) = (server.clone(), state.clone(), Arc::clone(&counter));
                beside(async move { Connection { client, state, waiting }.carry(&server).await });
            }
        });
        Self { address, state: sender, waiting }
    }

    /// Changes what the network does, for connections that are there and for new ones.
    pub fn set(&self, network: Network) {
        self.state.send_modify(|state| state.0 = network);
    }

    /// Breaks all connections; new ones are carried.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.1 += 1);
    }

    /// How many connections wait for an answer.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

#[expect(clippy::disallowed_methods, reason = "the network of a test works beside the test")]
fn beside(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

/// One connection of a node.
struct Connection {
    client: TcpStream,
    state: watch::Receiver<State>,
    waiting: Arc<AtomicUsize>,
}

impl Connection {
    /// Carries bytes both ways until a side closes, or the network breaks it: then both sides are closed by being dropped.
    async fn carry(mut self, server: &str) {
        let (first, cuts) = *self.state.borrow_and_update();
        match first {
            Network::Refusing => return,
            Network::Silent => return self.never_end().await,
            _ => {}
        }
        let Ok(mut server) = TcpStream::connect(server).await else { return };
        let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        // A new connection waits as well: for a greeting, which some servers give before anything is asked.
        let mut wait = Some(Waiting::new(&self.waiting));
        let mut is_slow_by_now = false;
        loop {
            let (network, cuts_now) = *self.state.borrow_and_update();
            let slow_from = match network {
                Network::SlowFrom(text) => Some(text.as_bytes()),
                _ => None,
            };
            is_slow_by_now &= slow_from.is_some();
            let keeps_answers = network == Network::SlowAnswers || is_slow_by_now;
            let keeps_questions = network == Network::SlowQuestions;
            match network {
                _ if cuts_now != cuts => return,
                Network::Refusing => return,
                // The server's side is kept open as well, as by a cable that was cut.
                Network::Silent => return self.never_end().await,
                _ => {}
            }
            let carried = tokio::select! {
                changed = self.state.changed() => changed.is_ok(),
                read = self.client.read(&mut asked), if !keeps_questions => {
                    wait.get_or_insert_with(|| Waiting::new(&self.waiting));
                    let bytes = &asked[..*read.as_ref().unwrap_or(&0)];
                    let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
                    is_slow_by_now |= slow_from.is_some_and(holds);
                    pass(read, &asked, &mut server).await
                }
                read = server.read(&mut answered), if !keeps_answers => {
                    if let Network::LateAnswers(by) = network {
                        later(by).await;
                    }
                    wait = None;
                    pass(read, &answered, &mut self.client).await
                }
            };
            if !carried {
                return;
            }
        }
    }

    /// Holds the connection open without ever reading from it again, until the test ends.
    async fn never_end(&mut self) {
        while self.state.changed().await.is_ok() {}
    }
}

/// Counts a connection that waits for an answer, until it got it or is gone.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Comes so much later.
async fn later(by: Duration) {
    let _ = tokio::time::timeout(by, std::future::pending::<()>()).await;
}

/// Passes on what was read; false at the end.
async fn pass(read: std::io::Result<usize>, bytes: &[u8], to: &mut TcpStream) -> bool {
    match read {
        Ok(count) if count > 0 => to.write_all(&bytes[..count]).await.is_ok(),
        _ => false,
    }
}
