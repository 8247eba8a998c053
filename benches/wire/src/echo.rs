//! The yardstick of the wire: a bare tonic service with messages of the same size, as tonic's code generator would write it.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::StreamExt as _;
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, BoxStream, Context, Poll, Service, http};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::Failure;

/// The paths of its two calls.
pub const UNARY: &str = "/bench.Echo/Unary";
pub const STREAM: &str = "/bench.Echo/Stream";

/// What is asked and answered.
#[derive(Clone, PartialEq, Message)]
pub struct Text {
    #[prost(string, tag = "1")]
    pub text: String,
}

impl Text {
    /// A message that is `len` bytes long when it is encoded.
    pub fn of_len(len: usize) -> Self {
        let head = if len > 129 { 3 } else { 2 };
        Self { text: "x".repeat(len.saturating_sub(head)) }
    }
}

/// Serves on a free port, says which, and answers with messages of `answer_len` bytes for ever.
pub async fn serve(answer_len: usize) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let echo = Echo { answer: Arc::new(Text::of_len(answer_len)) };
    Server::builder()
        .tcp_nodelay(true)
        .add_service(echo)
        .serve_with_incoming(TcpListenerStream::new(listener).map(|accepted| {
            let stream = accepted?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        }))
        .await?;
    Ok(())
}

#[derive(Clone)]
struct Echo {
    answer: Arc<Text>,
}

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        let is_stream = request.uri().path() == STREAM;
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Text, Text>::default());
            Ok(if is_stream { grpc.streaming(this, request).await } else { grpc.unary(this, request).await })
        })
    }
}

impl UnaryService<Text> for Echo {
    type Response = Text;
    type Future = BoxFuture<Response<Text>, Status>;

    fn call(&mut self, _: Request<Text>) -> Self::Future {
        let answer = Arc::clone(&self.answer);
        Box::pin(async move { Ok(Response::new(Text::clone(&answer))) })
    }
}

impl StreamingService<Text> for Echo {
    type Response = Text;
    type ResponseStream = BoxStream<Text>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<Text>>) -> Self::Future {
        let answer = Arc::clone(&self.answer);
        let answers = request.into_inner().map(move |asked| asked.map(|_| Text::clone(&answer)));
        Box::pin(async move { Ok(Response::new(Box::pin(answers) as Self::ResponseStream)) })
    }
}
