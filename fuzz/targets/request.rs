//! What the reader of the lean path reads of a request is what prost reads of it, whatever the bytes.

#![no_main]

use latchkey::grpc::lean::question::{Tagged, only_message, tagged, token_of};
use latchkey::grpc::proto::v1::load_user_request::By;
use latchkey::grpc::proto::v1::{LoadUserRequest, StreamValidateSessionsRequest, ValidateSessionRequest};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

fn plain(token: &str) -> ValidateSessionRequest {
    ValidateSessionRequest { session_token: token.to_owned(), ..ValidateSessionRequest::default() }
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(message) = only_message(bytes, 16_384) {
        assert_eq!(message, &bytes[5..]);
    }
    if let Ok(token) = token_of(bytes) {
        assert_eq!(ValidateSessionRequest::decode(bytes), Ok(plain(token.unwrap_or_default())));
        let by = token.map(|token| By::SessionToken(token.to_owned()));
        assert_eq!(LoadUserRequest::decode(bytes), Ok(LoadUserRequest { by }));
    }
    if let Ok(Tagged { tag, token }) = tagged(bytes) {
        let asked = StreamValidateSessionsRequest::decode(bytes).expect("prost reads what was read");
        assert_eq!((asked.tag, asked.question.unwrap_or_default()), (tag, plain(token)));
    }
});
