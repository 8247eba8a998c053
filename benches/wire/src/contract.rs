//! The few messages of the contract that are asked here, with the fields that are used. To build the server as a library for
//! them would take longer than the whole benchmark.

use prost::Message;
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::Failure;

pub const VALIDATE_SESSION: &str = "/latchkey.v1.AuthService/ValidateSession";
pub const LOAD_USER: &str = "/latchkey.v1.AuthService/LoadUser";
pub const STREAM: &str = "/latchkey.v1.AuthService/StreamValidateSessions";
pub const CREATE_SESSION: &str = "/latchkey.v1.AuthService/CreateSession";
pub const REVOKE_SESSIONS: &str = "/latchkey.v1.AuthService/RevokeSessions";
pub const LOG_IN: &str = "/latchkey.v1.AuthService/Login";
pub const CREATE_USER: &str = "/latchkey.admin.v1.UserService/CreateUser";

/// `ValidateSessionRequest`, and `LoadUserRequest` by token.
#[derive(Clone, PartialEq, Message)]
pub struct Question {
    #[prost(string, tag = "1")]
    pub session_token: String,
}

/// `StreamValidateSessionsRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Tagged {
    #[prost(uint64, tag = "1")]
    pub tag: u64,
    #[prost(message, optional, tag = "2")]
    pub question: Option<Question>,
}

/// `StreamValidateSessionsResponse`; what is good is not looked into.
#[derive(Clone, PartialEq, Message)]
pub struct TaggedAnswer {
    #[prost(uint64, tag = "1")]
    pub tag: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub good: Vec<u8>,
}

/// `CreateUserRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct NewUser {
    #[prost(string, tag = "1")]
    pub login: String,
    #[prost(string, tag = "5")]
    pub display_name: String,
    #[prost(string, repeated, tag = "6")]
    pub roles: Vec<String>,
}

/// `CreateUserResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct MadeUser {
    #[prost(message, optional, tag = "1")]
    pub user: Option<User>,
}

/// `User`.
#[derive(Clone, PartialEq, Message)]
pub struct User {
    #[prost(string, tag = "1")]
    pub user_id: String,
}

/// `CreateSessionRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct NewSession {
    #[prost(string, tag = "1")]
    pub user_id: String,
    #[prost(string, repeated, tag = "2")]
    pub methods: Vec<String>,
}

/// `CreateSessionResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct MadeSession {
    #[prost(string, tag = "1")]
    pub session_token: String,
}

/// An answer of which only the length counts.
#[derive(Clone, PartialEq, Message)]
pub struct Whole {
    #[prost(string, tag = "1")]
    pub user_id: String,
    #[prost(string, tag = "2")]
    pub login: String,
    #[prost(string, repeated, tag = "3")]
    pub roles: Vec<String>,
    #[prost(string, tag = "4")]
    pub session_id: String,
    #[prost(bytes = "vec", tag = "5")]
    pub expire_time: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    pub authenticate_time: Vec<u8>,
    #[prost(bool, tag = "7")]
    pub fresh: bool,
    #[prost(bool, tag = "8")]
    pub remembered: bool,
}

/// One unary call.
pub async fn call<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Result<A, Failure>
where
    Q: Message + Default + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let (path, codec) = (PathAndQuery::from_static(path), ProstCodec::<Q, A>::default());
    Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner())
}
