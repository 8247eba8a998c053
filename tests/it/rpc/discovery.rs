//! What is served, and what tools can learn of it: reflection in both versions, services that are switched off, metrics.

use latchkey::grpc::proto::v1;
use prost::Message as _;
use prost_types::FileDescriptorProto;
use tonic::{Code, Request};
use tonic_reflection::pb::{v1 as current, v1alpha};

use super::every_rpc::every_rpc;
use crate::support::databases::{Engine, TestDatabase};
use crate::support::raw_call::{call_with, framed, get, metric};
use crate::support::refusals::assert_refused;
use crate::support::server::TestServer;

const HEALTH: &str = "grpc.health.v1.Health";
const AUTH: &str = "latchkey.v1.AuthService";
const USERS: &str = "latchkey.admin.v1.UserService";

/// Asks one version of reflection one question.
macro_rules! reflect {
    ($version:ident, $server:expr, $question:expr) => {{
        let mut client =
            $version::server_reflection_client::ServerReflectionClient::new($server.channel().await);
        let request =
            $version::ServerReflectionRequest { host: String::new(), message_request: Some($question) };
        let asked = Request::new(futures_util::stream::iter([request]));
        let answers = client.server_reflection_info(asked).await;
        match answers {
            Ok(answers) => Ok(answers.into_inner().message().await.expect("an answer").expect("an answer")),
            Err(refused) => Err(refused.code()),
        }
        .map(|answer| answer.message_response.expect("an answer"))
    }};
}

async fn services(server: &TestServer) -> Vec<String> {
    use current::server_reflection_request::MessageRequest;
    use current::server_reflection_response::MessageResponse;
    let answer = reflect!(current, server, MessageRequest::ListServices(String::new()));
    let Ok(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort_unstable();
    names
}

async fn services_of_v1alpha(server: &TestServer) -> Vec<String> {
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;
    let answer = reflect!(v1alpha, server, MessageRequest::ListServices(String::new()));
    let Ok(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn both_versions_of_reflection_name_what_is_served() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    for names in [services(&server).await, services_of_v1alpha(&server).await] {
        for name in [HEALTH, AUTH, USERS] {
            assert!(names.iter().any(|one| one == name), "{name} is not in {names:?}");
        }
    }
}

#[tokio::test]
async fn reflection_shows_the_comments_of_the_contract() {
    use current::server_reflection_request::MessageRequest;
    use current::server_reflection_response::MessageResponse;
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let question = MessageRequest::FileContainingSymbol(AUTH.to_owned());
    let answer = reflect!(current, server, question);
    let Ok(MessageResponse::FileDescriptorResponse(files)) = answer else { panic!("{answer:?}") };
    let file = files.file_descriptor_proto.first().expect("a file");
    let file = FileDescriptorProto::decode(file.as_slice()).expect("a descriptor");
    assert_eq!(file.name(), "latchkey/v1/auth_service.proto");
    let comments = file.source_code_info.expect("comments").location;
    let says = |words: &str| comments.iter().any(|place| place.leading_comments().contains(words));
    assert!(says("OK means let in; every other answer means do not."));
}

#[tokio::test]
async fn reflection_can_be_switched_off() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.grpc.reflection = false).await;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let answer = call_with(&server, &path, &[], framed(b"")).await;
        assert_eq!(answer.status.code(), Code::Unimplemented, "{version}");
    }
    server.validate("x").await.expect_err("the rest is served");
}

#[tokio::test]
async fn the_management_of_users_can_be_switched_off() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let with = TestServer::start(&database).await;
    let calls = every_rpc(&with).await;
    with.stop().await;
    let server = TestServer::start_with(&database, |config| config.grpc.admin = false).await;
    for call in calls {
        if call.name.starts_with("AuthService") {
            assert_eq!(call.make(&server).await, Ok(()), "{}", call.name);
        } else {
            let answer = call_with(&server, &call.path(), &[], framed(&call.request)).await;
            assert_refused(answer.outcome::<()>(), Code::Unimplemented, "METHOD_UNKNOWN");
        }
    }
    let names = services(&server).await;
    assert!(
        names.iter().any(|one| one == AUTH) && !names.iter().any(|one| one.contains("admin")),
        "{names:?}"
    );
}

#[tokio::test]
async fn every_rpc_is_counted_by_name_and_code_and_strangers_as_one() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    for call in every_rpc(&server).await {
        let (service, method) = call.name.split_once('/').expect("a service and a method");
        let package = if service == "AuthService" { "latchkey.v1" } else { "latchkey.admin.v1" };
        let labels = format!("grpc_service=\"{package}.{service}\",grpc_method=\"{method}\"");
        let counts = async || {
            let ok = format!("grpc_server_handled_total{{{labels},grpc_code=\"OK\"}}");
            let (started, handled) = (format!("grpc_server_started_total{{{labels}}}"), ok);
            let timed = format!("grpc_server_handling_seconds_count{{{labels}}}");
            (metric(&server, &started).await, metric(&server, &handled).await, metric(&server, &timed).await)
        };
        let before = counts().await;
        assert_eq!(call.make(&server).await, Ok(()));
        let after = counts().await;
        assert_eq!(after, (before.0 + 1, before.1 + 1, before.2 + 1), "{}", call.name);
    }
    let _refused = server.validate("x").await;
    let refused = "grpc_server_handled_total{grpc_service=\"latchkey.v1.AuthService\",\
                   grpc_method=\"ValidateSession\",grpc_code=\"Unauthenticated\"}";
    assert_eq!(metric(&server, refused).await, 1);
    for path in ["/a.B/C", "/d.E/F", "/latchkey.v1.AuthService/Nothing"] {
        call_with(&server, path, &[], framed(b"")).await;
    }
    let strangers = "grpc_server_started_total{grpc_service=\"unknown\",grpc_method=\"unknown\"}";
    assert_eq!(metric(&server, strangers).await, 3);
    let (_, text) = get(&server, "/metrics").await;
    assert!(!text.contains("a.B") && text.ends_with("# EOF\n"));
    assert_eq!(metric(&server, "latchkey_refusals_total{reason=\"METHOD_UNKNOWN\"}").await, 3);
    assert_eq!(v1::ErrorReason::MethodUnknown as i32, 22);
}
