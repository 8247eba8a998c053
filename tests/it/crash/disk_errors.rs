//! The disk under a SQLite file fails for a while: it is full, or its writes or syncs answer an error. Whatever was
//! acknowledged during that time and after it is there when the node was killed, and nobody has to restart the node.

use latchkey::grpc::proto::v1::change_password_request::Who;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use rustix::io::Errno;
use rustix::process::Signal;
use tonic::{Code, Status};

use super::database_lost::readiness;
use super::{PASSWORD, PASSWORD_HASH, connect, own_turn, start_with};
use crate::history::client::{Client, Outcome};
use crate::history::operation::Wish;
use crate::support::failing_disk::{FailingDisk, Operation, say_cannot_mount};
use crate::support::node_process::{NodeProcess, program, run};
use crate::support::refusals::reason_of;
use crate::support::waiting::eventually;

const NEW_PASSWORD: &str = "quite another battery staple";
/// How often a change is tried while the disk fails: a connection that is not given up after the first failure shows
/// what is wrong with it after the next.
const TRIES: usize = 2;

/// One connection makes what becomes of it plain; with several, that of a failed change is left aside for a while.
const ONE_CONNECTION: &str = "1";
const SEVERAL_CONNECTIONS: &str = "4";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_log_writes_that_fail() {
    for error in [Errno::NOSPC, Errno::IO, Errno::DQUOT] {
        survives(&FailingDisk::injected(Operation::Write, error), ONE_CONNECTION).await;
    }
    survives(&FailingDisk::injected(Operation::Write, Errno::NOSPC), SEVERAL_CONNECTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_log_syncs_that_fail() {
    for connections in [ONE_CONNECTION, SEVERAL_CONNECTIONS] {
        survives(&FailingDisk::injected(Operation::Sync, Errno::IO), connections).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_full_disk() {
    for connections in [ONE_CONNECTION, SEVERAL_CONNECTIONS] {
        let Some(disk) = FailingDisk::small() else {
            return say_cannot_mount("what_was_acknowledged_survives_a_full_disk");
        };
        survives(&disk, connections).await;
    }
}

/// What is taken away from somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    EndSession,
    SetPassword,
    ChangePassword,
    Disable,
    Delete,
}

const CHANGES: [Action; 5] =
    [Action::EndSession, Action::SetPassword, Action::ChangePassword, Action::Disable, Action::Delete];

/// Somebody of whom only one thing is changed, ever.
#[derive(Clone, Debug)]
struct Person {
    login: String,
    id: String,
    token: String,
    change: Action,
}

impl Person {
    async fn add(client: &mut Client, login: String, change: Action) -> Self {
        let made = client.import_user(login.clone(), PASSWORD_HASH).await.expect("a user");
        let Outcome::UserMade(user) = made else { panic!("no user: {made:?}") };
        let signed_in = client.create_session(user.user_id.clone(), Wish::PLAIN).await.expect("a session");
        let Outcome::SignedIn { token, .. } = signed_in else { panic!("no session: {signed_in:?}") };
        Self { login, id: user.user_id, token, change }
    }

    /// One of each change.
    async fn add_all(client: &mut Client, when: &str) -> Vec<Self> {
        let mut all = Vec::new();
        for change in CHANGES {
            all.push(Self::add(client, format!("{when}-{change:?}"), change).await);
        }
        all
    }

    /// Makes the change. That it was made already, by a call whose outcome was unknown, counts as made.
    async fn make_change(&self, client: &mut Client) -> Result<(), Status> {
        let id = self.id.clone();
        let answer = match self.change {
            Action::EndSession => client.revoke(Target::SessionToken(self.token.clone())).await,
            Action::SetPassword => client.set_password(id, NEW_PASSWORD).await,
            Action::ChangePassword => {
                client.change_password(Who::Login(self.login.clone()), PASSWORD, NEW_PASSWORD).await
            }
            Action::Disable => client.set_active(id, false).await,
            Action::Delete => client.delete_user(id).await,
        };
        match answer {
            Ok(_) => Ok(()),
            Err(refused) if is_made_already(self.change, &refused) => Ok(()),
            Err(refused) => Err(refused),
        }
    }

    /// Whether the change is in force.
    async fn is_changed(&self, client: &mut Client) -> bool {
        let session_is_over = match client.validate(self.token.clone(), None).await {
            Ok(_) => false,
            Err(refused) => {
                let (code, reason) = reason_of(&refused);
                assert_eq!(code, Code::Unauthenticated, "{reason}");
                true
            }
        };
        let rest = match self.change {
            Action::EndSession => true,
            Action::SetPassword | Action::ChangePassword => {
                client.log_in(self.login.clone(), PASSWORD, Wish::PLAIN).await.is_err()
                    && client.log_in(self.login.clone(), NEW_PASSWORD, Wish::PLAIN).await.is_ok()
            }
            Action::Disable => client.log_in(self.login.clone(), PASSWORD, Wish::PLAIN).await.is_err(),
            Action::Delete => client.find_user(self.login.clone()).await.is_err(),
        };
        session_is_over && rest
    }
}

fn is_made_already(change: Action, refused: &Status) -> bool {
    match change {
        Action::ChangePassword => refused.code() == Code::Unauthenticated,
        Action::Delete => refused.code() == Code::NotFound,
        Action::EndSession | Action::SetPassword | Action::Disable => false,
    }
}

fn serve(disk: &FailingDisk, connections: &str) -> NodeProcess {
    let url = format!("sqlite://{}/latchkey.db?mode=rwc", disk.folder().display());
    let limits = ["--database-connections-max", connections, "--maintenance-poll-ms", "50"];
    start_with(disk.folder(), &url, &limits, &disk.environment())
}

async fn survives(disk: &FailingDisk, connections: &str) {
    let _turn = own_turn().await;
    let mut make_key = program(disk.folder());
    make_key.args(["key", "new", "token.key"]);
    assert_eq!(run(make_key, "").code, Some(0));
    let mut node = serve(disk, connections);
    let mut client = Client::new(connect(&node).await);
    let bystander = Person::add(&mut client, "bystander".to_owned(), Action::EndSession).await;
    let during = Person::add_all(&mut client, "during").await;
    let after = Person::add_all(&mut client, "after").await;

    disk.fail();
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for person in &during {
        for _ in 0..TRIES {
            match person.make_change(&mut client).await {
                Ok(()) => {
                    acknowledged.push(person.clone());
                    break;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 0, "the disk did not fail");

    disk.recover();
    for person in &after {
        let what = format!("{person:?} is acknowledged once the disk works again");
        eventually(&what, async || person.make_change(&mut client.clone()).await.is_ok()).await;
        acknowledged.push(person.clone());
    }
    eventually("the node is ready again by itself", async || readiness(&node.http).await == 200).await;
    eventually("memory answers again", async || {
        client.clone().validate(bystander.token.clone(), None).await.is_ok()
    })
    .await;

    node.signal(Signal::KILL);
    assert_eq!(node.ended().await.code, None);
    let node = serve(disk, connections);
    let mut client = Client::new(connect(&node).await);
    client.validate(bystander.token.clone(), None).await.expect("nobody ended this session");
    for person in acknowledged {
        assert!(person.is_changed(&mut client).await, "acknowledged and undone: {person:?}");
    }
}
