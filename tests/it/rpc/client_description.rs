//! Whatever a caller says of a device, the call goes as it would without: a browser and the proxies before it decide what
//! is in these fields, and nobody is signed out by it.

use std::collections::BTreeSet;

use latchkey::domain::client::Client;
use latchkey::grpc::proto::v1;
use prost::Message as _;
use tonic::Status;

use super::contract::Contract;
use crate::support::databases::{TestDatabase, on_each_engine};
use crate::support::dice::{Dice, replay, seeds};
use crate::support::server::{OTHER_PASSWORD, PASSWORD, TestServer, device, log_in_request, open_request};
use crate::support::verdicts::{question, verdict_of};

on_each_engine!(no_description_refuses_a_call);

/// The RPCs that take a device, each of which [`Caller::calls`] makes.
const TAKE_A_DEVICE: [&str; 6] = [
    "latchkey.v1.AuthService/ChangePassword",
    "latchkey.v1.AuthService/CreateSession",
    "latchkey.v1.AuthService/Login",
    "latchkey.v1.AuthService/Reauthenticate",
    "latchkey.v1.AuthService/StreamValidateSessions",
    "latchkey.v1.AuthService/ValidateSession",
];
const RANDOM_DESCRIPTIONS: usize = 10;

struct Caller<'s> {
    server: &'s TestServer,
    ada: v1::User,
    token: String,
    /// The password that is, and the one that was.
    passwords: (&'static str, &'static str),
}

impl Caller<'_> {
    /// Calls each RPC that takes a device with `client`. Gives how each ended, and what the sessions that were made say
    /// of the device.
    async fn calls(
        &mut self,
        client: Option<&v1::Client>,
    ) -> Vec<(&'static str, Result<Option<v1::Client>, Status>)> {
        let of = |session: Option<v1::Session>| session.and_then(|session| session.client);
        let mut auth = self.server.auth().await;
        let client = || client.cloned();
        let login = v1::LoginRequest { client: client(), ..log_in_request("ada", self.passwords.0) };
        let login = auth.login(login).await.map(tonic::Response::into_inner);
        let open = v1::CreateSessionRequest { client: client(), ..open_request(&self.ada) };
        let open = auth.create_session(open).await.map(tonic::Response::into_inner);
        let ask = v1::ValidateSessionRequest { client: client(), ..question(&self.token) };
        let validated = self.server.ask(ask.clone()).await;
        let asked = v1::StreamValidateSessionsRequest { tag: 1, question: Some(ask) };
        let streamed = verdict_of(self.server.ask_in_stream(vec![asked]).await.remove(0));
        let again = v1::ReauthenticateRequest {
            session_token: open.as_ref().map(|open| open.session_token.clone()).unwrap_or_default(),
            password: self.passwords.0.to_owned(),
            client: client(),
        };
        let again = auth.reauthenticate(again).await.map(tonic::Response::into_inner);
        let change = v1::ChangePasswordRequest {
            who: Some(v1::change_password_request::Who::SessionToken(self.token.clone())),
            current_password: self.passwords.0.to_owned(),
            new_password: self.passwords.1.to_owned(),
            client: client(),
        };
        let change = auth.change_password(change).await.map(tonic::Response::into_inner);
        if let Ok(changed) = &change {
            self.token.clone_from(&changed.session_token);
            self.passwords = (self.passwords.1, self.passwords.0);
        }
        vec![
            (TAKE_A_DEVICE[0], change.map(|change| of(change.session))),
            (TAKE_A_DEVICE[1], open.map(|open| of(open.session))),
            (TAKE_A_DEVICE[2], login.map(|login| of(login.session))),
            (TAKE_A_DEVICE[3], again.map(|again| of(again.session))),
            (TAKE_A_DEVICE[4], streamed.map(|_| None).map_err(|why| Status::unknown(format!("{why:?}")))),
            (TAKE_A_DEVICE[5], validated.map(|_| None)),
        ]
    }
}

async fn no_description_refuses_a_call(db: &TestDatabase) {
    let server = TestServer::start_with(db, |config| config.session.per_user_max = 100).await;
    let ada = server.add_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let mut caller = Caller { server: &server, ada, token, passwords: (PASSWORD, OTHER_PASSWORD) };
    for (rpc, outcome) in caller.calls(None).await {
        outcome.unwrap_or_else(|why| panic!("{rpc} without a device: {why:?}"));
    }
    for seed in seeds(1) {
        let mut dice = Dice::new(seed);
        let random = (0..RANDOM_DESCRIPTIONS).map(|_| any_device(&mut dice));
        for client in odd_devices().into_iter().chain(random.collect::<Vec<_>>()) {
            for (rpc, outcome) in caller.calls(Some(&client)).await {
                let why = |why| panic!("{rpc} with {client:?}: {why:?}; {}", replay(seed));
                assert_in_bounds(&outcome.unwrap_or_else(why).unwrap_or_default());
            }
        }
    }
    server.stop().await;
}

/// What a session says of its device is within the limits of the contract, however it was described.
fn assert_in_bounds(client: &v1::Client) {
    assert!(client.ip.is_empty() || client.ip.parse::<std::net::IpAddr>().is_ok(), "{client:?}");
    assert!(client.user_agent.chars().count() <= 1_024 && client.device_name.chars().count() <= 128);
    assert!(!client.user_agent.chars().chain(client.device_name.chars()).any(char::is_control));
}

/// What browsers, in-app browsers, frameworks and proxies send.
fn odd_devices() -> Vec<v1::Client> {
    let mojibake = |text: &str| text.bytes().map(char::from).collect::<String>();
    let texts = [
        "M".repeat(1_025),
        "M".repeat(16_000),
        mojibake(&"\u{e9}".repeat(8_000)),
        "MiuiBrowser/10.8.3-g \u{25c0}".to_owned(),
        mojibake("MiuiBrowser/10.8.3-g \u{25c0}"),
        mojibake("\u{411}\u{440}\u{430}\u{443}\u{437}\u{435}\u{440}/1.0"),
        "Mozilla/5.0\tx".to_owned(),
        "a\r\nb".to_owned(),
        "a\0b".to_owned(),
        "\0".to_owned(),
        "\u{fffe}\u{ffff}\u{10ffff}\u{feff}".to_owned(),
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}".repeat(300),
        "%00 %s '; drop table users; --".to_owned(),
    ];
    let addresses = [
        "1.2.3.4:8000",
        "[2001:db8::1]",
        "[2001:db8::1]:443",
        "1.2.3.4, 10.0.0.1",
        " 1.2.3.4",
        "unknown",
        "fe80::1%eth0",
        "::ffff:1.2.3.4",
        "010.001.002.003",
        "unix:",
        "localhost",
        "\0",
    ];
    let texts = texts.iter().map(|text| device("", text, text));
    texts.chain(addresses.iter().map(|address| device(address, "", ""))).collect()
}

fn any_device(dice: &mut Dice) -> v1::Client {
    let mut text = |len_max: usize| -> String {
        let (len, highest) = (dice.below(len_max), dice.pick(&[0x20, 0x80, 0x100, 0x3000, 0x0011_0000]));
        (0..len).filter_map(|_| char::from_u32(u32::try_from(dice.below(highest)).expect("small"))).collect()
    };
    device(&text(40), &text(3_000), &text(400))
}

/// Else the calls above would show nothing.
#[test]
fn the_odd_devices_break_the_rules_of_what_is_stored() {
    let stored = |one: &v1::Client| Client::parse(&one.ip, &one.user_agent, &one.device_name);
    let odd = odd_devices();
    let broken = odd.iter().filter(|one| stored(one).is_err()).count();
    assert!(broken >= 15, "{broken} of {}", odd.len());
}

#[test]
fn every_rpc_that_takes_a_device_is_called() {
    let contract = Contract::read();
    let takes_one = |input: &str| {
        let texts = contract.with_each_text(input, b"x");
        texts.iter().any(|one| one.name == "user_agent")
    };
    let methods = contract.methods();
    let found =
        methods.iter().filter(|(_, method)| takes_one(method.input_type())).map(|(name, _)| name.as_str());
    assert_eq!(found.collect::<BTreeSet<_>>(), BTreeSet::from(TAKE_A_DEVICE));
    let most = v1::Client { user_agent: "\u{e9}".repeat(16_384), ..v1::Client::default() };
    let default = latchkey::config::Config::default().grpc.message_bytes_max;
    assert!(
        most.encoded_len() < usize::try_from(default).expect("it fits") / 3 * 2,
        "it fits into a message"
    );
}
