//! The commands of `latchkey` against a node, for people and for machines.

use super::{PASSWORD, Place};
use crate::support::node_process::{program, run};
use crate::support::waiting::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_made_signed_in_listed_and_signed_out() {
    let place = Place::new();
    let user = place.add_user("Ada");
    let id = user["user"]["user_id"].as_str().expect("an id").to_owned();
    let shown = place.run(&["user", "get", "ada"], "");
    assert!(shown.code == Some(0) && shown.stdout.contains(&id), "{shown:?}");

    let token = place.log_in("ada").await;
    let good = place.run(&["session", "validate", "--token-stdin"], &token);
    assert!(good.code == Some(0) && good.stdout.contains("Ada"), "{good:?}");
    let listed = place.json(&["session", "list", "ada", "--json"], "");
    assert!(listed.to_string().contains(&id) && !listed.to_string().contains(&token), "{listed}");

    let ended = place.json(&["session", "revoke", "--token-stdin", "--json"], &token);
    assert!(ended.to_string().contains('1'), "{ended}");
    let refused = place.run(&["session", "validate", "--token-stdin"], &token);
    assert!(refused.code == Some(1) && refused.stderr.contains("SESSION_REVOKED"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_disabled_is_out_and_whoever_is_enabled_signs_in_again() {
    let place = Place::new();
    place.add_user("ada");
    let token = place.log_in("ada").await;
    assert_eq!(place.run(&["user", "disable", "ada"], "").code, Some(0));
    let refused = place.run(&["session", "validate", "--token-stdin"], &token);
    assert!(refused.code == Some(1) && refused.stderr.contains("USER_DISABLED"), "{refused:?}");
    assert_eq!(place.run(&["user", "enable", "ada"], "").code, Some(0));
    let still = place.run(&["session", "validate", "--token-stdin"], &token);
    assert!(still.stderr.contains("SESSION_REVOKED") || still.stderr.contains("USER_DISABLED"), "{still:?}");
    place.log_in("ada").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_every_session() {
    let place = Place::new();
    place.add_user("ada");
    let token = place.log_in("ada").await;
    let short = place.run(&["user", "set-password", "ada", "--password-stdin"], "short");
    assert!(short.code == Some(1) && short.stderr.contains("PASSWORD_REFUSED"), "{short:?}");
    let set = place.run(&["user", "set-password", "ada", "--password-stdin"], "another long enough password");
    assert_eq!(set.code, Some(0), "{set:?}");
    let refused = place.run(&["session", "validate", "--token-stdin"], &token);
    assert!(refused.stderr.contains("CREDENTIALS_CHANGED"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_is_signed_out_only_by_whoever_says_yes() {
    let place = Place::new();
    place.add_user("ada");
    let token = place.log_in("ada").await;
    assert_eq!(place.run(&["session", "revoke", "--everyone"], "").code, Some(2));
    assert_eq!(place.run(&["session", "validate", "--token-stdin"], &token).code, Some(0));
    assert_eq!(place.run(&["session", "revoke", "--everyone", "--yes"], "").code, Some(0));
    assert_eq!(place.run(&["session", "validate", "--token-stdin"], &token).code, Some(1));
}

#[test]
fn an_import_goes_on_behind_a_bad_row_and_names_its_line() {
    let place = Place::new();
    let rows = format!(
        "{}\n{}\n{}\n{}\n",
        format_args!(r#"{{"login":"ada","password":"{PASSWORD}","roles":["admin"]}}"#),
        r#"{"login":"a b"}"#,
        "this is no JSON",
        r#"{"login":"bob"}"#,
    );
    let imported = place.run(&["user", "import", "-"], &rows);
    assert_eq!(imported.code, Some(1), "{imported:?}");
    let said = format!("{}{}", imported.stdout, imported.stderr);
    assert!(said.contains("line 2") && said.contains("line 3") && !said.contains("line 4"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
    for login in ["ada", "bob"] {
        assert_eq!(place.run(&["user", "get", login], "").code, Some(0), "{login}");
    }
    let all = place.json(&["user", "list", "--json"], "");
    assert_eq!(all.to_string().matches("\"login\"").count(), 2, "{all}");
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let place = Place::new();
    let create = || place.run(&["user", "create", "ada", "--password-stdin"], PASSWORD);
    assert_eq!(create().code, Some(0));
    let twice = create();
    assert!(twice.code == Some(1) && twice.stderr.contains("LOGIN_TAKEN"), "{twice:?}");
    let unknown = place.run(&["user", "get", "nobody"], "");
    assert!(unknown.code == Some(1) && unknown.stderr.contains("USER_NOT_FOUND"), "{unknown:?}");
    assert_eq!(place.run(&["user", "create"], "").code, Some(2), "an argument is missing");
    let argument = place.run(&["user", "create", "bob", "--password", "x"], "");
    assert_eq!(argument.code, Some(2), "a password is never an argument: {argument:?}");
    let mut nowhere = place.command(&["user", "get", "ada"]);
    nowhere.env("LATCHKEY_SERVER", "http://127.0.0.1:1");
    assert_eq!(run(nowhere, "").code, Some(69));
}

#[test]
fn a_health_check_follows_the_life_of_the_node() {
    let Place { folder, node } = Place::new();
    let url = format!("http://{}", node.grpc);
    let healthy = |service: &str| {
        let mut command = program(folder.path());
        command.args(["healthcheck", "--service", service, "--server", &url]);
        run(command, "").code
    };
    assert_eq!(
        (healthy("readiness"), healthy("liveness"), healthy("latchkey.v1.AuthService")),
        (Some(0), Some(0), Some(0))
    );
    assert_ne!(healthy("no.such.Service"), Some(0));
    assert_eq!(node.stop().code, Some(0));
    assert_eq!(healthy("readiness"), Some(69));
}

#[test]
fn completions_and_the_template_are_of_use() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish"] {
        let mut command = program(folder.path());
        command.args(["completions", shell]);
        let script = run(command, "");
        assert!(script.code == Some(0) && script.stdout.contains("latchkey"), "{shell}: {script:?}");
    }
    let mut command = program(folder.path());
    command.args(["config", "template"]);
    std::fs::write(folder.path().join("latchkey.toml"), run(command, "").stdout).expect("a file");
    let mut command = program(folder.path());
    command.args(["config", "check", "--config", "latchkey.toml"]);
    let checked = run(command, "");
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_the_fleet_and_begins_the_log_anew_by_saying_yes() {
    let place = Place::new();
    place.add_user("ada");
    let token = place.log_in("ada").await;
    let shown = place.run(&["fleet", "status"], "");
    assert!(
        shown.code == Some(0) && shown.stdout.contains("live") && shown.stdout.contains("(answers)"),
        "{shown:?}"
    );
    let status = place.json(&["fleet", "status", "--json"], "");
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(1), "{status}");
    assert_eq!(status["nodes"][0]["node_id"], status["answering_node_id"]);
    assert_eq!(status["lease_ms"], 5_000);
    assert_eq!(status["target_lease_ms"], 5_000);
    let forgotten = place.run(&["fleet", "forget-key", "77"], "");
    assert!(forgotten.code == Some(0) && forgotten.stdout.contains("does not know key 77"), "{forgotten:?}");
    let own = place.run(&["fleet", "forget-key", "1"], "");
    assert!(
        own.code == Some(1) && own.stderr.contains("key_id") && own.stderr.contains("of this node"),
        "{own:?}"
    );
    assert_eq!(place.run(&["fleet", "new-log"], "").code, Some(2));
    let begun = place.run(&["fleet", "new-log", "--yes"], "");
    assert!(begun.code == Some(0) && begun.stdout.contains("everyone's sessions ended"), "{begun:?}");
    eventually("the node follows the new log", async || {
        let refused = place.run(&["session", "validate", "--token-stdin"], &token);
        refused.code == Some(1) && refused.stderr.contains("SESSION_REVOKED")
    })
    .await;
    place.log_in("ada").await;
}

#[test]
fn an_operator_changes_the_lease_and_sees_when_it_is_in_force() {
    let place = Place::new();
    assert_eq!(place.run(&["fleet", "set-lease", "4"], "").code, Some(2), "it has no unit");
    let short = place.run(&["fleet", "set-lease", "1s"], "");
    assert!(short.code == Some(1) && short.stderr.contains("1.5 to 60 seconds"), "{short:?}");
    assert_eq!(place.json(&["fleet", "set-lease", "5s", "--json"], "")["lease_ms"], 5_000, "nothing to do");
    let changed = place.run(&["fleet", "set-lease", "1500ms"], "");
    assert!(changed.code == Some(0) && changed.stdout.contains("the lease is 1.5 s now"), "{changed:?}");
    let status = place.json(&["fleet", "status", "--json"], "");
    let [lease, longest, target] =
        ["lease_ms", "longest_lease_ms", "target_lease_ms"].map(|key| &status[key]);
    assert!(*lease == 1_500 && *longest == 1_500 && *target == 1_500, "{status}");
    let shown = place.run(&["fleet", "status"], "");
    assert!(shown.stdout.contains("lease 1.5 s, 1 node"), "{shown:?}");
}
