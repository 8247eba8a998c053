//! A SQLite file belongs to one node, by whatever name it is reached; and a node whose file was deleted or replaced stops to
//! answer, until the file is back.

use std::fs;
use std::path::{Path, PathBuf};

use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use tonic::Code;

use super::database_lost::readiness;
use super::{PASSWORD_HASH, connect, own_turn, start};
use crate::history::client::{Client, Outcome};
use crate::history::operation::Wish;
use crate::support::failing_disk::{Mount, say_cannot_mount};
use crate::support::node_process::{NodeProcess, program, run};
use crate::support::refusals::reason_of;
use crate::support::waiting::eventually;

const DATABASE: &str = "latchkey.db";

fn url(database: &Path) -> String {
    format!("sqlite://{}?mode=rwc", database.display())
}

/// A folder with a key file, and a node on a database in it.
fn serve() -> (tempfile::TempDir, PathBuf, NodeProcess) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut make_key = program(folder.path());
    make_key.args(["key", "new", "token.key"]);
    assert_eq!(run(make_key, "").code, Some(0));
    let database = folder.path().join(DATABASE);
    let node = start(folder.path(), &url(&database), &["--maintenance-poll-ms", "50"]);
    (folder, database, node)
}

#[track_caller]
fn assert_taken(folder: &Path, database: &Path) {
    let url = url(database);
    let arguments = ["--database-url", url.as_str(), "--token-key-file", "token.key"];
    let ended = NodeProcess::start(folder, &arguments).err().expect("a second node is refused");
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stderr.contains("another process uses"), "{ended:?}");
}

#[test]
fn a_second_node_is_refused_by_whatever_name_it_comes() {
    let (folder, database, node) = serve();
    assert_taken(folder.path(), &database);
    fs::remove_file(folder.path().join("latchkey.db.lock")).expect("a lock file");
    assert_taken(folder.path(), &database);
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    let link = elsewhere.join("link.db");
    fs::hard_link(&database, &link).expect("a link");
    assert_taken(folder.path(), &link);
    let mounted = elsewhere.join("mounted.db");
    fs::write(&mounted, "").expect("a file");
    if let Some(_mount) = Mount::new(&["--bind", &database.display().to_string()], &mounted) {
        assert_taken(folder.path(), &mounted);
    } else {
        say_cannot_mount("a_second_node_is_refused_by_whatever_name_it_comes, by a bind mount,");
    }
    // The control: the refusals came from the node that was there.
    assert_eq!(node.stop().code, Some(0));
    let url = url(&link);
    let arguments = ["--database-url", url.as_str(), "--token-key-file", "token.key"];
    assert!(NodeProcess::start(folder.path(), &arguments).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_files_are_gone_or_replaced_stops_to_answer_until_they_are_back() {
    let _turn = own_turn().await;
    let (folder, database, node) = serve();
    let mut client = Client::new(connect(&node).await);
    let made = client.import_user("ada".to_owned(), PASSWORD_HASH).await.expect("a user");
    let Outcome::UserMade(user) = made else { panic!("no user: {made:?}") };
    let signed_in = client.create_session(user.user_id.clone(), Wish::PLAIN).await.expect("a session");
    let Outcome::SignedIn { token, .. } = signed_in else { panic!("no session: {signed_in:?}") };
    let answers = async || client.clone().validate(token.clone(), None).await;
    let away = folder.path().join("away");
    for ending in ["", "-wal", "-shm"] {
        let file = folder.path().join(format!("{DATABASE}{ending}"));
        for is_replaced in [false, true] {
            eventually("the session is good", async || answers().await.is_ok()).await;
            eventually("the node says that it is ready", async || readiness(&node.http).await == 200).await;
            fs::rename(&file, &away).expect("moved");
            if is_replaced {
                fs::copy(&away, &file).expect("a copy");
            }
            eventually("the node says that it is not ready", async || readiness(&node.http).await == 503)
                .await;
            let refused = answers().await.expect_err("nobody is let in");
            assert_eq!(reason_of(&refused), (Code::Unavailable, "LEASE_LOST".to_owned()));
            let ending = client.clone().revoke(Target::SessionToken(token.clone())).await;
            assert_eq!(ending.expect_err("nothing is ended").code(), Code::Unavailable);
            assert_eq!(file.exists(), is_replaced, "the node makes no file");
            fs::rename(&away, &file).expect("put back");
        }
    }
    eventually("the session is good again", async || answers().await.is_ok()).await;
    assert!(database.exists());
    let ended = node.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for word in ["was deleted", "was replaced", "restart the node"] {
        assert!(ended.stderr.contains(word), "`{word}` is missing in {ended:?}");
    }
}
