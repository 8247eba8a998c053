//! grpcurl, as a person with a problem uses it: nothing but reflection to go by.

use std::process::Command;

use super::{PASSWORD, Place};
use crate::support::node_process::{Ended, run};

/// The path of grpcurl. `scripts/test` brings it and says so; without it there is nothing to run.
fn grpcurl() -> Option<String> {
    let path = std::env::var("GRPCURL").ok();
    if path.is_none() {
        println!("grpcurl: not asked for (`scripts/test` brings it)");
    }
    path
}

fn call(grpcurl: &str, place: &Place, options: &[&str], words: &[&str]) -> Ended {
    let mut command = Command::new(grpcurl);
    command.arg("-plaintext").args(options).arg(&place.node.grpc).args(words);
    run(command, "")
}

#[test]
fn grpcurl_lists_describes_calls_and_shows_errors_in_words() {
    let Some(grpcurl) = grpcurl() else { return };
    let place = Place::new();
    place.add_user("ada");

    let listed = call(&grpcurl, &place, &[], &["list"]);
    for service in ["latchkey.v1.AuthService", "latchkey.admin.v1.UserService", "grpc.health.v1.Health"] {
        assert!(listed.stdout.contains(service), "{listed:?}");
    }
    let described = call(&grpcurl, &place, &[], &["describe", "latchkey.v1.AuthService"]);
    assert!(described.stdout.contains("OK means let in; every other answer means do not."), "{described:?}");
    let field = call(&grpcurl, &place, &[], &["describe", "latchkey.v1.LoginRequest"]);
    assert!(field.stdout.contains("normalised to NFC"), "the comments of fields are there: {field:?}");

    let health = call(&grpcurl, &place, &[], &["grpc.health.v1.Health/Check"]);
    assert!(health.stdout.contains("\"SERVING\""), "{health:?}");

    let credentials = format!(r#"{{"login":"Ada","password":"{PASSWORD}","remember":true}}"#);
    let signed_in = call(&grpcurl, &place, &["-d", &credentials], &["latchkey.v1.AuthService/Login"]);
    let answer: serde_json::Value = serde_json::from_str(&signed_in.stdout).expect("JSON");
    let question = format!(r#"{{"session_token":{}}}"#, answer["sessionToken"]);
    let good = call(&grpcurl, &place, &["-d", &question], &["latchkey.v1.AuthService/ValidateSession"]);
    let good: serde_json::Value = serde_json::from_str(&good.stdout).expect("JSON");
    assert_eq!((good["login"].as_str(), good["remembered"].as_bool()), (Some("ada"), Some(true)));

    let logged_out = call(&grpcurl, &place, &["-d", &question], &["latchkey.v1.AuthService/RevokeSessions"]);
    assert!(logged_out.stdout.contains(r#""revokedCount": "1""#), "{logged_out:?}");
    let refused = call(&grpcurl, &place, &["-d", &question], &["latchkey.v1.AuthService/ValidateSession"]);
    for word in ["Code: Unauthenticated", r#""reason":"SESSION_REVOKED""#, r#""domain":"latchkey.dev""#] {
        assert!(refused.stderr.contains(word), "`{word}` is missing in {refused:?}");
    }
    let malformed = call(&grpcurl, &place, &["-d", r#"{"login":"a b"}"#], &["latchkey.v1.AuthService/Login"]);
    for word in ["Code: InvalidArgument", r#""field":"login""#, r#""field":"password""#] {
        assert!(malformed.stderr.contains(word), "`{word}` is missing in {malformed:?}");
    }
}
