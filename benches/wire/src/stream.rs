//! One stream of questions, as a gateway holds it.

use futures_util::StreamExt as _;
use prost::Message;
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use crate::Failure;
use crate::contract::{self, Tagged, TaggedAnswer};
use crate::echo::{self, Text};
use crate::latchkey::{self, Latchkey, question};
use crate::process::{Server, run_client};
use crate::report::{Report, compare, micros, nanos_each};
use crate::unary;

/// Questions of one round.
const QUESTIONS: u64 = 1_000_000;
const ROUNDS: usize = 5;

pub fn measure(ours: &Latchkey, report: &mut Report) -> Result<(), Failure> {
    let this = std::env::current_exe()?.display().to_string();
    let asked = ask(1, &ours.token).encoded_len();
    // Tag and frame of the answer inside the other: two bytes of the tag, three of the field and its length.
    let answer_len = ours.answer_len + 5;
    let bare = Server::start(&this, &["echo", &answer_len.to_string()], &[])?;
    let bare_address = bare.first_line.trim().to_owned();
    let round = |server: &Server, arguments: &[&str]| -> Result<f64, Failure> {
        let before = server.cpu()?;
        let told = run_client(&this, arguments)?;
        let spent = server.cpu()?.saturating_sub(before);
        if told.trim() != QUESTIONS.to_string() {
            return Err(format!("only {told} of {QUESTIONS} questions were answered").into());
        }
        Ok(nanos_each(spent, QUESTIONS))
    };
    let (count, len) = (QUESTIONS.to_string(), asked.to_string());
    let forged = unary::forged(&ours.token);
    let validated = || round(&ours.server, &["stream", "ask", &ours.grpc, &count, &ours.token]);
    let refused = || round(&ours.server, &["stream", "refused", &ours.grpc, &count, &forged]);
    let echoed = || round(&bare, &["stream", "echo", &bare_address, &count, &len]);
    let rounds: Vec<_> =
        (0..ROUNDS).map(|_| Ok((validated()?, echoed()?))).collect::<Result<_, Failure>>()?;
    let (_, _, ratio) = compare(&rounds);
    let figure = format!("{}, so {:.2} x of its rate", micros(&rounds), 1.0 / ratio);
    let sizes = format!("bare tonic stream echo, {asked} and {answer_len} B");
    report.add("a question of a stream, server CPU", &sizes, &figure, ">= 0.4 x of its rate");
    let rounds: Vec<_> =
        (0..ROUNDS).map(|_| Ok((refused()?, validated()?))).collect::<Result<_, Failure>>()?;
    report.add("a forged token in a stream, server CPU", "a good one", &micros(&rounds), "<= 1.0 x");
    let unary: Vec<_> =
        (0..ROUNDS).map(|_| Ok((unary::validate(ours)?, validated()?))).collect::<Result<_, Failure>>()?;
    let (_, _, ratio) = compare(&unary);
    report.add("questions of a stream", "unary ValidateSession", &format!("**{ratio:.1} x**"), ">= 10 x");
    Ok(())
}

/// The client: asks so many questions over one stream, and says how many were answered well.
pub async fn client(words: &[&str]) -> Result<(), Failure> {
    let [kind, address, count, what] = words else {
        return Err("stream ask|refused|echo ADDRESS COUNT WHAT".into());
    };
    let (channel, count) = (latchkey::channel(address).await?, count.parse::<u64>()?);
    let mut good = 0_u64;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    if *kind != "echo" {
        let is_good = *kind == "ask";
        let token = (*what).to_owned();
        let asked = futures_util::stream::iter((0..count).map(move |tag| ask(tag, &token)));
        let (path, codec) =
            (PathAndQuery::from_static(contract::STREAM), ProstCodec::<Tagged, TaggedAnswer>::default());
        let mut answers = grpc.streaming(Request::new(asked), path, codec).await?.into_inner();
        while let Some(answer) = answers.next().await {
            let answer = answer?;
            if answer.tag != good || answer.good.is_empty() == is_good {
                return Err(
                    format!("answer {} came at the place of {good}, or is another one", answer.tag).into()
                );
            }
            good += 1;
        }
    } else {
        let text = Text::of_len(what.parse()?);
        let asked = futures_util::stream::iter((0..count).map(move |_| text.clone()));
        let (path, codec) = (PathAndQuery::from_static(echo::STREAM), ProstCodec::<Text, Text>::default());
        let mut answers = grpc.streaming(Request::new(asked), path, codec).await?.into_inner();
        while let Some(answer) = answers.next().await {
            answer?;
            good += 1;
        }
    }
    println!("{good}");
    Ok(())
}

fn ask(tag: u64, token: &str) -> Tagged {
    Tagged { tag, question: Some(question(token)) }
}
