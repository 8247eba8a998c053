//! What is asked: every state of a session, and every oddity of a request.

use http::{HeaderMap, Method};
use hyper::body::Bytes;
use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::load_user_request::By;
use prost::Message as _;

use super::exchange::{Asked, LOAD_USER};
use super::scene::Scene;
use crate::support::raw_call::{VALIDATE, field, framed, metric};
use crate::support::server::{TestServer, device, span};
use crate::support::verdicts::question;
use crate::support::waiting::eventually;

/// Everything that is asked of a node that is well.
pub fn all_requests(scene: &Scene) -> Vec<Asked> {
    let mut all = of_every_session(scene);
    all.extend(of_more_than_a_token(scene));
    all.extend(with_odd_messages(scene));
    all.extend(with_odd_frames(scene));
    all.extend(with_odd_heads(scene));
    all.extend(in_streams(scene));
    all
}

fn both(what: &str, token: &str) -> [Asked; 2] {
    [Asked::validate(what, token), Asked::load_user(what, token)]
}

fn of_every_session(scene: &Scene) -> Vec<Asked> {
    let good = &scene.good;
    let mut with_one_changed = good.clone();
    with_one_changed.replace_range(30..31, if &good[30..31] == "A" { "B" } else { "A" });
    let sessions = [
        ("good", good.as_str()),
        ("remembered", &scene.remembered),
        ("revoked", &scene.revoked),
        ("expired", &scene.expired),
        ("of a password that changed", &scene.password_changed),
        ("of a user who is disabled", &scene.disabled),
        ("of a user who is deleted", &scene.deleted),
        ("unknown", &scene.unknown),
        ("unknown, for the second time", &scene.unknown),
        ("unknown and expired", &scene.unknown_and_expired),
        ("forged", &scene.forged),
        ("cut", &good[..good.len() - 1]),
        ("altered", &with_one_changed),
        ("empty", ""),
        ("long", &"x".repeat(10_000)),
        ("not of our alphabet", &"ä".repeat(40)),
    ];
    sessions.iter().flat_map(|(what, token)| both(what, token)).collect()
}

fn of_more_than_a_token(scene: &Scene) -> Vec<Asked> {
    let plain = question(&scene.good);
    let questions = [
        ("no device", v1::ValidateSessionRequest { client: Some(v1::Client::default()), ..plain.clone() }),
        (
            "a device",
            v1::ValidateSessionRequest { client: Some(device("192.0.2.7", "a", "")), ..plain.clone() },
        ),
        (
            "a bad device",
            v1::ValidateSessionRequest { client: Some(device("nowhere", "", "")), ..plain.clone() },
        ),
        ("an hour", v1::ValidateSessionRequest { max_auth_age: Some(span(3_600, 0)), ..plain.clone() }),
        ("no age", v1::ValidateSessionRequest { max_auth_age: Some(span(0, 0)), ..plain.clone() }),
        ("a bad age", v1::ValidateSessionRequest { max_auth_age: Some(span(-1, 0)), ..plain }),
    ];
    let by = |by| v1::LoadUserRequest { by };
    let users = [
        ("nothing", by(None)),
        ("an id", by(Some(By::UserId(scene.ada.user_id.clone())))),
        ("a bad id", by(Some(By::UserId("nobody".to_owned())))),
        ("a login", by(Some(By::Login("ADA".to_owned())))),
        ("an unknown login", by(Some(By::Login("nobody".to_owned())))),
    ];
    let questions = questions.map(|(what, asked)| Asked::of(what, VALIDATE, &asked.encode_to_vec()));
    let users = users.map(|(what, asked)| Asked::of(what, LOAD_USER, &asked.encode_to_vec()));
    questions.into_iter().chain(users).collect()
}

/// Messages that protobuf takes although they are unusual, and such as it does not take.
fn with_odd_messages(scene: &Scene) -> Vec<Asked> {
    let token = field(1, scene.good.as_bytes());
    let and = |more: &[u8]| [&token[..], more].concat();
    let overlong = [&[0x8a, 0x80, 0x00, 75][..], scene.good.as_bytes()].concat();
    let messages: Vec<(&str, Vec<u8>)> = vec![
        ("an unknown text", and(&field(15_000, b"from the future"))),
        ("an unknown number", and(&[0x20, 0xff, 0x01])),
        ("an unknown fixed32", and(&[0x25, 1, 2, 3, 4])),
        ("an unknown fixed64", and(&[0x21, 1, 2, 3, 4, 5, 6, 7, 8])),
        ("an unknown group", and(&[0x23, 0x08, 1, 0x24])),
        ("an unknown field in front", [field(9, b"x"), token.clone()].concat()),
        ("the token last", [field(1, b"another"), token.clone()].concat()),
        ("the token first", and(&field(1, b"another"))),
        ("a key with bytes to spare", overlong),
        ("a group that does not end", and(&[0x23, 0x08, 1])),
        ("the end of no group", and(&[0x24])),
        ("the end of another group", and(&[0x23, 0x2c])),
        ("a token that is a number", vec![0x08, 1]),
        ("a token that is fixed", vec![0x0d, 1, 2, 3, 4]),
        ("a token that is no text", field(1, b"a\xff\xfe")),
        ("no text, and then a token", [field(1, b"a\xff\xfe"), token.clone()].concat()),
        ("a second field that is a number", and(&[0x10, 1])),
        ("a second field that is no message", and(&field(2, &[0xff]))),
        ("a third field that is no message", and(&field(3, &[0x08]))),
        ("an empty third field", and(&field(3, b""))),
        ("a text that is cut", token[..token.len() - 1].to_vec()),
        ("a length without end", vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("a number that overflows", and(&[0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02])),
        ("a number of eleven bytes", and(&[[0x20].as_slice(), &[0x80; 10], &[0]].concat())),
        ("field number zero", and(&[0x02, 0])),
        ("a key beyond 32 bits", and(&[0x82, 0x80, 0x80, 0x80, 0x10, 0])),
        ("wire type six", and(&[0x26])),
        ("wire type seven", and(&[0x27])),
        ("rubbish", vec![0xff]),
        ("nothing", Vec::new()),
        ("as large as may be", field(15_000, &vec![b'x'; 65_536 - 6])),
        ("one byte larger", field(15_000, &vec![b'x'; 65_536 - 5])),
    ];
    let each = |(what, message): &(&str, Vec<u8>)| {
        [Asked::of(what, VALIDATE, message), Asked::of(what, LOAD_USER, message)]
    };
    messages.iter().flat_map(each).collect()
}

/// Bodies that are not one whole message in one frame.
fn with_odd_frames(scene: &Scene) -> Vec<Asked> {
    let whole = framed(&question(&scene.good).encode_to_vec());
    let (nothing, rest) = (Bytes::new(), whole.slice(5..));
    let headed = |head: [u8; 5]| Bytes::from([&head[..], &rest].concat());
    let len = u8::try_from(rest.len()).expect("a short message");
    let forged = framed(&question(&scene.forged).encode_to_vec());
    let no_text = framed(&field(1, &[0xff]));
    let bytes = |body: &Bytes| (0..body.len()).map(|at| body.slice(at..=at)).collect::<Vec<_>>();
    let bodies: Vec<(&str, Vec<Bytes>)> = vec![
        ("no frame", vec![]),
        ("an empty frame", vec![nothing.clone()]),
        ("the end by itself", vec![whole.clone(), nothing.clone()]),
        ("an empty frame first", vec![nothing.clone(), whole.clone()]),
        ("the head by itself", vec![whole.slice(..5), rest.clone()]),
        ("half a head", vec![whole.slice(..2), whole.slice(2..)]),
        ("two halves", vec![whole.slice(..40), whole.slice(40..)]),
        ("each byte by itself", bytes(&whole)),
        ("each byte of a forged one", bytes(&forged)),
        ("two messages in a frame", vec![[&whole[..], &whole].concat().into()]),
        ("two messages in two frames", vec![whole.clone(), whole.clone()]),
        ("another message behind", vec![whole.clone(), forged.clone()]),
        ("another message before", vec![forged, whole.clone()]),
        ("no text behind", vec![whole.clone(), no_text]),
        ("rubbish behind", vec![[&whole[..], &[0]].concat().into()]),
        ("a cut message behind", vec![whole.clone(), whole.slice(..10)]),
        ("a length that is too long", vec![headed([0, 0, 0, 0, len + 1])]),
        ("a length that is too short", vec![headed([0, 0, 0, 0, len - 1])]),
        ("a length of nothing", vec![headed([0, 0, 0, 0, 0])]),
        ("a length beyond the limit", vec![headed([0, 0, 0, 0x40, 1])]),
        ("a length beyond everything", vec![headed([0, 0xff, 0xff, 0xff, 0xff])]),
        ("compressed", vec![headed([1, 0, 0, 0, len])]),
        ("an absurd flag", vec![headed([2, 0, 0, 0, len])]),
        ("half a head, and the end", vec![whole.slice(..3)]),
        ("half a message, and the end", vec![whole.slice(..50)]),
    ];
    let each = bodies.into_iter().map(|(what, frames)| Asked::validate(what, "").framed_as(frames));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "1".parse().expect("a value"));
    let with_trailers = Asked { trailers: Some(trailers), ..Asked::validate("trailers", &scene.good) };
    each.chain([with_trailers]).collect()
}

fn with_odd_heads(scene: &Scene) -> Vec<Asked> {
    let asked = |what: &str| Asked::validate(what, &scene.good);
    let unended = |what: &str| Asked { endless: true, ..asked(what) };
    let mut all = vec![
        Asked { method: Method::GET, ..asked("GET") },
        Asked { method: Method::GET, frames: vec![], ..asked("GET of nothing") },
        Asked { method: Method::PUT, ..asked("PUT") },
        Asked { method: Method::HEAD, frames: vec![], ..asked("HEAD") },
        Asked { method: Method::OPTIONS, ..asked("OPTIONS") },
        Asked { path: format!("{VALIDATE}?a=b"), ..asked("a query") },
        Asked { path: format!("{VALIDATE}/"), ..asked("a slash behind") },
        Asked { path: VALIDATE.to_lowercase(), ..asked("small letters") },
        Asked { path: VALIDATE.replace("Session", "%53ession"), ..asked("an escape") },
        asked("no te").without("te"),
        asked("no content-type").without("content-type"),
        asked("trailers of a stream").with("x-one", "1").with("x-one", "2"),
        asked("bytes").with("x-key-bin", "AAEC").with("x-other-bin", "not base64!"),
        asked("a status").with("grpc-status", "5"),
        asked("a length")
            .with("content-length", &framed(&question(&scene.good).encode_to_vec()).len().to_string()),
        asked("a key that nobody asks for").with("authorization", "Bearer x"),
        Asked { frames: vec![], ..unended("a body that never begins").with("grpc-timeout", "80m") },
        unended("a body that never ends").with("grpc-timeout", "80m"),
        unended("a body that never ends, and no time").with("grpc-timeout", "0S"),
        Asked {
            frames: vec![Bytes::from_static(&[0, 0])],
            ..unended("half a head").with("grpc-timeout", "80m")
        },
    ];
    for kind in
        ["application/grpc+proto", "application/grpc+json", "application/json", "application/grpc-web", ""]
    {
        all.push(asked(&format!("content-type {kind}")).with("content-type", kind));
    }
    for timeout in ["1H", "30S", "99999999n", "0n", "0H", "5", "S", "", "-1S", "1.5S", "123456789S"] {
        all.push(asked(&format!("grpc-timeout {timeout}")).with("grpc-timeout", timeout));
    }
    for encoding in ["identity", "gzip", "snappy", ""] {
        all.push(asked(&format!("grpc-encoding {encoding}")).with("grpc-encoding", encoding));
        all.push(asked(&format!("grpc-accept-encoding {encoding}")).with("grpc-accept-encoding", encoding));
        let mut flagged = framed(&question(&scene.good).encode_to_vec()).to_vec();
        flagged[0] = 1;
        let flagged = asked(&format!("flagged {encoding}")).framed_as(vec![flagged.into()]);
        all.push(flagged.with("grpc-encoding", encoding));
    }
    all
}

fn in_stream(tag: u64, question: v1::ValidateSessionRequest) -> Bytes {
    framed(&v1::StreamValidateSessionsRequest { tag, question: Some(question) }.encode_to_vec())
}

/// Every state of a session in one stream, and streams that are odd.
fn in_streams(scene: &Scene) -> Vec<Asked> {
    let tokens = [
        &scene.good,
        &scene.forged,
        &scene.revoked,
        &scene.expired,
        &scene.password_changed,
        &scene.unknown,
        &scene.disabled,
        &scene.remembered,
    ];
    let mut each: Vec<_> = (0..)
        .zip(tokens)
        .map(|(tag, token)| in_stream(tag * tag * tag * tag * tag, question(token)))
        .collect();
    let aged = v1::ValidateSessionRequest { max_auth_age: Some(span(0, 0)), ..question(&scene.good) };
    let bad = v1::ValidateSessionRequest { client: Some(device("x", "", "")), ..question(&scene.good) };
    each.extend([in_stream(u64::MAX, aged), in_stream(7, bad), framed(&[]), framed(&[0x08, 9])]);
    let good = in_stream(5, question(&scene.good));
    let all: Bytes = each.concat().into();
    let in_pieces = |size: usize| all.chunks(size).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    let merged =
        [field(2, &field(1, scene.good.as_bytes())), field(2, &field(9, b"x")), vec![0x08, 3]].concat();
    let mut flagged = good.to_vec();
    flagged[0] = 1;
    let behind = |bad: &[u8]| vec![[&good[..], &good, bad].concat().into(), good.clone()];
    let mut streams = vec![
        ("nothing", vec![]),
        ("one by one", each.clone()),
        ("all at once", vec![all.clone()]),
        ("in pieces of one", in_pieces(1)),
        ("in pieces of seven", in_pieces(7)),
        ("in pieces of a hundred", in_pieces(100)),
        ("a thousand", vec![good.repeat(1_000).into()]),
        ("a question in parts", vec![framed(&merged)]),
        ("no text behind", behind(&framed(&field(2, &field(1, &[0xff]))))),
        ("no message behind", behind(&framed(&[0xff]))),
        ("no question behind", behind(&framed(&[0x10, 1]))),
        ("too large behind", behind(&framed(&field(9, &vec![b'x'; 65_552])))),
        ("as large as may be behind", behind(&framed(&field(15_000, &vec![b'x'; 65_536 - 6])))),
        ("compressed behind", behind(&flagged)),
        ("an absurd flag behind", behind(&[9, 0, 0, 0, 0])),
        ("cut behind", vec![[&good[..], &good[..20]].concat().into()]),
        ("a cut head behind", vec![[&good[..], &good[..3]].concat().into()]),
    ];
    let endless = ("never ends", vec![good.clone(), in_stream(6, question(&scene.forged))]);
    let at_last = Asked { endless: true, ..Asked::stream(endless.0, endless.1).with("grpc-timeout", "80m") };
    let mut all: Vec<_> = streams.drain(..).map(|(what, frames)| Asked::stream(what, frames)).collect();
    for (name, value) in [("grpc-encoding", "gzip"), ("grpc-timeout", "1X"), ("grpc-timeout", "30S")] {
        all.push(Asked::stream(&format!("{name} {value}"), each.clone()).with(name, value));
    }
    all.push(at_last);
    all
}

/// What is asked while the node may not answer from memory.
pub fn while_the_lease_is_lost(scene: &Scene) -> Vec<Asked> {
    let sessions = [
        ("good, without a lease", &scene.good),
        ("revoked, without a lease", &scene.revoked),
        ("expired, without a lease", &scene.expired),
        ("unknown and expired, without a lease", &scene.unknown_and_expired),
        ("forged, without a lease", &scene.forged),
    ];
    let mut all: Vec<_> = sessions.iter().flat_map(|(what, token)| both(what, token)).collect();
    let each = sessions.iter().map(|(_, token)| in_stream(1, question(token)));
    all.push(Asked::stream("without a lease", each.collect()));
    all
}

/// Calls whose client leaves before the end of its own message; how they end is seen in the counts.
pub async fn broken_off(server: &TestServer, scene: &Scene) {
    let whole = framed(&question(&scene.good).encode_to_vec());
    let started = "grpc_server_started_total{grpc_service=\"latchkey.v1.AuthService\",\
                   grpc_method=\"ValidateSession\"}";
    for frames in [vec![], vec![whole.slice(..7)], vec![whole.slice(..7), whole.slice(7..20)], vec![whole]] {
        let asked = Asked { endless: true, ..Asked::validate("left", "").framed_as(frames) };
        let begun = metric(server, started).await;
        tokio::select! {
            _ = asked.send(server) => panic!("answered before the end of the question"),
            () = eventually("the call has begun", async || metric(server, started).await > begun) => {}
        }
    }
}
