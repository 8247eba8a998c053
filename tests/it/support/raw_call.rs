//! Calls by bare HTTP, which send what no generated client would, and which keep no deadline of their own: what comes
//! back is the server's word.

use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use tonic::{Code, Status};

use super::server::TestServer;
use super::waiting::in_time;

/// The path of `Login`, for calls that are about the wire and not about the RPC.
pub const LOGIN: &str = "/latchkey.v1.AuthService/Login";
/// The path of `ValidateSession`.
pub const VALIDATE: &str = "/latchkey.v1.AuthService/ValidateSession";
/// The path of `RevokeSessions`.
pub const REVOKE: &str = "/latchkey.v1.AuthService/RevokeSessions";

/// A whole answer as it came over the wire.
pub struct RawAnswer {
    /// The messages, still framed.
    pub body: Bytes,
    /// The headers and trailers that speak of gRPC.
    pub headers: HeaderMap,
    /// How the call ended.
    pub status: Status,
}

impl RawAnswer {
    /// The answer as the outcome of a call with one message.
    pub fn outcome<M: Message + Default>(&self) -> Result<M, Status> {
        match self.status.code() {
            Code::Ok => Ok(M::decode(self.body.slice(5..)).expect("the answer is one message")),
            _ => Err(self.status.clone()),
        }
    }
}

/// One message framed as gRPC does: not compressed, its length, its bytes.
pub fn framed(message: &[u8]) -> Bytes {
    let len = u32::try_from(message.len()).expect("a small message");
    let mut frame = vec![0];
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

/// A message whose one field, of wire type "length-delimited", holds these bytes, whatever they are.
pub fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut message);
    prost::encoding::encode_varint(bytes.len() as u64, &mut message);
    message.extend_from_slice(bytes);
    message
}

/// Calls a method with one message.
pub async fn call(server: &TestServer, path: &str, message: &impl Message) -> RawAnswer {
    call_with(server, path, &[], framed(&message.encode_to_vec())).await
}

/// Calls a method with further headers and a body that may be anything.
pub async fn call_with(server: &TestServer, path: &str, headers: &[(&str, &str)], body: Bytes) -> RawAnswer {
    let mut request = Request::post(format!("http://{}{path}", server.address)).version(Version::HTTP_2);
    request = request.header("te", "trailers");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = request.body(Full::new(body)).expect("a request");
    let answering = async { read(client.request(request).await.expect("the server answers")).await };
    in_time("the end of the answer", answering).await
}

async fn read(response: Response<Incoming>) -> RawAnswer {
    let (head, body) = response.into_parts();
    let mut headers = head.headers;
    let collected = body.collect().await.expect("the answer ends");
    headers.extend(collected.trailers().cloned().unwrap_or_default());
    let status = Status::from_header_map(&headers).expect("an answer has a status");
    RawAnswer { body: collected.to_bytes(), headers, status }
}

/// Asks for a page of the plain HTTP port.
pub async fn get(server: &TestServer, path: &str) -> (StatusCode, String) {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let uri = format!("http://{}{path}", server.http_address).parse().expect("an address");
    let response = client.get(uri).await.expect("the server answers");
    let status = response.status();
    let body = response.into_body().collect().await.expect("the answer ends").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("a text"))
}

/// The value of a metric, 0 where it is not there; `series` is its name with its labels.
pub async fn metric(server: &TestServer, series: &str) -> u64 {
    let (_, text) = get(server, "/metrics").await;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().expect("a whole number"))
}
