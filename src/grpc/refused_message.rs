//! The refusals that tonic makes by itself (a message that cannot be read, a method that is not there), told as ours.
//!
//! No text of a library reaches a client: only the path of the field is taken out of it.

use tonic::{Code, Status};

use crate::domain::invalid::FieldViolation;
use crate::domain::refusal::Refusal;

/// Why tonic refused, from a status that none of our handlers made.
pub fn refusal_of_message(status: &Status) -> Refusal {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => too_large(),
        // Of a method that is not there, tonic says nothing more.
        Code::Unimplemented if status.message().is_empty() => Refusal::MethodUnknown,
        Code::Unimplemented => Refusal::EncodingUnsupported,
        Code::DeadlineExceeded => Refusal::Deadline,
        Code::Internal | Code::InvalidArgument | Code::DataLoss => unreadable(status.message()),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unavailable
        | Code::Unauthenticated => whole("must be sent to its end: it broke off"),
    }
}

/// A message is beyond the limit.
pub fn too_large() -> Refusal {
    whole("must not be larger than this server's message limit")
}

/// What should be a message is none.
pub fn not_a_message() -> Refusal {
    whole("must be one whole protobuf message of the method's request type")
}

/// A message that cannot be read, by the text of the error that says so.
pub fn unreadable(text: &str) -> Refusal {
    field_path(text).map_or_else(not_a_message, |field| {
        Refusal::field(FieldViolation::new(field, "must be of the type in the contract; strings are UTF-8"))
    })
}

fn whole(why: &'static str) -> Refusal {
    Refusal::field(FieldViolation::new("request", why))
}

/// The path of the field in the text of a decoding error: "…: LoginRequest.login: …" says `login`.
fn field_path(text: &str) -> Option<String> {
    let field = |part: &str| {
        let (message, field) = part.split_once('.')?;
        let name = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        (name(message) && name(field)).then(|| field.to_owned())
    };
    // The error is made from the inside out.
    let path: Vec<_> = text.rsplit(": ").filter_map(field).collect();
    (!path.is_empty()).then(|| path.join("."))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::grpc::proto::v1;

    fn refused(bytes: &[u8]) -> Refusal {
        let error = v1::StreamValidateSessionsRequest::decode(bytes).expect_err("not readable");
        refusal_of_message(&Status::internal(error.to_string()))
    }

    #[test]
    fn the_field_that_cannot_be_read_is_named_and_the_library_is_not_quoted() {
        // question (2) holds session_token (1), whose one byte is no UTF-8.
        let Refusal::InvalidField(fields) = refused(&[0x12, 3, 0x0a, 1, 0xff]) else {
            panic!("another refusal")
        };
        assert_eq!(fields[0].field, "question.session_token");
        assert!(!fields[0].description.contains("decode"));
    }

    #[test]
    fn rubbish_is_blamed_on_the_request() {
        let Refusal::InvalidField(fields) = refused(&[0xff]) else { panic!("another refusal") };
        assert_eq!(fields[0].field, "request");
    }
}
