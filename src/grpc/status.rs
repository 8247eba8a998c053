//! The one place where a refusal becomes a gRPC status, and the only one that names a status code.
//!
//! Each status has exactly one `google.rpc.ErrorInfo`, a `BadRequest` where fields are to blame, and a `RetryInfo` where
//! waiting helps. The texts are for people; clients decide by the reason.
//!
//! A status travels in headers, and clients and proxies take 8 KiB of them: one that is longer reaches the client as a
//! broken call. So what is said of a bad request is bounded here, however much is wrong with it.

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tonic::metadata::MetadataValue;
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use super::proto::v1::ErrorReason;
use crate::domain::invalid;
use crate::domain::password::PasswordRule;
use crate::domain::refusal::Refusal;

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "latchkey.dev";

const PREFIX: &str = "ERROR_REASON_";

/// Bytes of all violations of a bad request. They travel twice, in the message, where each byte may become three, and,
/// with the message, in the details, where three become four: together below 8 KiB.
const VIOLATIONS_BYTES_MAX: usize = 1_024;
/// Bytes of the path of one field.
const FIELD_BYTES_MAX: usize = 128;
/// Bytes of what is said of one field.
const DESCRIPTION_BYTES_MAX: usize = 256;
/// Bytes that set two violations apart in the message.
const SEPARATORS_BYTES: usize = 4;

/// After which time a call that was refused as unavailable is worth repeating.
const RETRY_UNAVAILABLE: Duration = Duration::from_millis(500);

/// The status that a refusal is answered with.
pub fn status(refusal: &Refusal) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason_name(reason(refusal)), DOMAIN, metadata(refusal));
    if let Refusal::InvalidField(violations) = refusal {
        details.set_bad_request(Told::of(violations).fields);
    }
    if let Some(delay) = retry_delay(refusal) {
        details.set_retry_info(Some(delay));
    }
    let mut status = Status::with_error_details(code(refusal), message(refusal), details);
    if *refusal == Refusal::CallerUnauthenticated {
        status.metadata_mut().insert("www-authenticate", MetadataValue::from_static("Bearer"));
    }
    if *refusal == Refusal::EncodingUnsupported {
        status.metadata_mut().insert("grpc-accept-encoding", MetadataValue::from_static("identity"));
    }
    status
}

/// What is said of a bad request.
struct Told {
    fields: Vec<FieldViolation>,
    /// How many further violations there are.
    more: usize,
}

impl Told {
    /// As many of the violations as there is room for, each once.
    fn of(violations: &[invalid::FieldViolation]) -> Self {
        let mut distinct: Vec<&invalid::FieldViolation> = Vec::new();
        for one in violations {
            if !distinct.contains(&one) {
                distinct.push(one);
            }
        }
        let (mut fields, mut room) = (Vec::new(), VIOLATIONS_BYTES_MAX);
        for one in &distinct {
            let field = cut(&one.field, FIELD_BYTES_MAX);
            let description = cut(&one.description, DESCRIPTION_BYTES_MAX);
            let Some(left) = room.checked_sub(field.len() + description.len() + SEPARATORS_BYTES) else {
                break;
            };
            room = left;
            fields.push(FieldViolation::new(field, description));
        }
        let more = distinct.len() - fields.len();
        Self { fields, more }
    }

    fn message(&self) -> String {
        let mut each: Vec<_> =
            self.fields.iter().map(|one| format!("{}: {}", one.field, one.description)).collect();
        if self.more > 0 {
            each.push(format!("and {} more", self.more));
        }
        each.join("; ")
    }
}

/// The beginning of a text, of at most `bytes_max`.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// What a stream ends with that is refused in the middle.
pub fn trailers(refusal: &Refusal) -> Result<HeaderMap, Status> {
    let mut trailers = HeaderMap::new();
    status(refusal).add_header(&mut trailers).map(|()| trailers)
}

/// What an answer ends with that is good.
pub fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// An answer, or the status of a refusal.
pub fn reply<T>(outcome: Result<T, Refusal>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|refusal| status(&refusal))
}

/// The code of a refusal.
pub fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::InvalidField(_) | Refusal::PasswordRefused(_) => Code::InvalidArgument,
        Refusal::InvalidCredentials
        | Refusal::SessionTokenInvalid
        | Refusal::SessionExpired
        | Refusal::SessionRevoked
        | Refusal::CredentialsChanged
        | Refusal::UserDisabled
        | Refusal::SessionBindingMismatch
        | Refusal::CallerUnauthenticated => Code::Unauthenticated,
        Refusal::ReauthenticationRequired => Code::FailedPrecondition,
        Refusal::LoginTaken | Refusal::UserIdTaken => Code::AlreadyExists,
        Refusal::UserNotFound => Code::NotFound,
        Refusal::CallerNotAllowed => Code::PermissionDenied,
        Refusal::LoginThrottled { .. } | Refusal::Overloaded { .. } => Code::ResourceExhausted,
        Refusal::LeaseLost | Refusal::StoreUnavailable | Refusal::OutcomeUnknown => Code::Unavailable,
        Refusal::Deadline => Code::DeadlineExceeded,
        Refusal::MethodUnknown | Refusal::EncodingUnsupported => Code::Unimplemented,
        Refusal::Internal => Code::Internal,
    }
}

/// The reason of a refusal.
pub fn reason(refusal: &Refusal) -> ErrorReason {
    match refusal {
        Refusal::InvalidField(_) => ErrorReason::InvalidField,
        Refusal::InvalidCredentials => ErrorReason::InvalidCredentials,
        Refusal::SessionTokenInvalid => ErrorReason::SessionTokenInvalid,
        Refusal::SessionExpired => ErrorReason::SessionExpired,
        Refusal::SessionRevoked => ErrorReason::SessionRevoked,
        Refusal::CredentialsChanged => ErrorReason::CredentialsChanged,
        Refusal::UserDisabled => ErrorReason::UserDisabled,
        Refusal::ReauthenticationRequired => ErrorReason::ReauthenticationRequired,
        Refusal::SessionBindingMismatch => ErrorReason::SessionBindingMismatch,
        Refusal::PasswordRefused(_) => ErrorReason::PasswordRefused,
        Refusal::LoginTaken => ErrorReason::LoginTaken,
        Refusal::UserIdTaken => ErrorReason::UserIdTaken,
        Refusal::UserNotFound => ErrorReason::UserNotFound,
        Refusal::CallerUnauthenticated => ErrorReason::CallerUnauthenticated,
        Refusal::CallerNotAllowed => ErrorReason::CallerNotAllowed,
        Refusal::LoginThrottled { .. } => ErrorReason::LoginThrottled,
        Refusal::Overloaded { .. } => ErrorReason::Overloaded,
        Refusal::LeaseLost => ErrorReason::LeaseLost,
        Refusal::StoreUnavailable => ErrorReason::StoreUnavailable,
        Refusal::OutcomeUnknown => ErrorReason::OutcomeUnknown,
        Refusal::Deadline => ErrorReason::Deadline,
        Refusal::MethodUnknown => ErrorReason::MethodUnknown,
        Refusal::EncodingUnsupported => ErrorReason::EncodingUnsupported,
        Refusal::Internal => ErrorReason::Internal,
    }
}

/// The name of a reason as `ErrorInfo` carries it: without the prefix of the enum.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches(PREFIX)
}

/// The reason that a status of ours tells.
pub fn reason_told(status: &Status) -> Option<&'static str> {
    let told = status.get_details_error_info()?.reason;
    ErrorReason::from_str_name(&format!("{PREFIX}{told}")).map(reason_name)
}

/// What people read.
pub fn message(refusal: &Refusal) -> String {
    let text = match refusal {
        Refusal::InvalidField(violations) => {
            return Told::of(violations).message();
        }
        Refusal::PasswordRefused(PasswordRule::TooShort { code_points_min }) => {
            return format!("the new password must have at least {code_points_min} characters");
        }
        Refusal::PasswordRefused(PasswordRule::TooLong { code_points_max }) => {
            return format!("the new password must have at most {code_points_max} characters");
        }
        Refusal::InvalidCredentials => "wrong login or password",
        Refusal::SessionTokenInvalid => {
            "not a session token of this service, or its session is no longer known"
        }
        Refusal::SessionExpired => "the session is past its absolute or idle limit",
        Refusal::SessionRevoked => "the session was ended",
        Refusal::CredentialsChanged => "the session ended because the password changed",
        Refusal::UserDisabled => "the user is disabled or deleted",
        Refusal::ReauthenticationRequired => {
            "the person has to prove again who they are: call Reauthenticate"
        }
        Refusal::SessionBindingMismatch => "the session was used from another device and has ended",
        Refusal::LoginTaken => "another user has this login",
        Refusal::UserIdTaken => "another user has this user_id",
        Refusal::UserNotFound => "no such user",
        Refusal::CallerUnauthenticated => {
            "the calling service must send its key: metadata `authorization: Bearer KEY`"
        }
        Refusal::CallerNotAllowed => "the calling service may not call this method",
        Refusal::LoginThrottled { .. } => "too many sign-in attempts; wait",
        Refusal::Overloaded { .. } => "this node has too much work; wait or ask another",
        Refusal::LeaseLost => "this node cannot know the latest state; this is not a log-out",
        Refusal::StoreUnavailable => {
            "the database does not answer, or does not keep up; nothing was changed; this is not a log-out"
        }
        Refusal::OutcomeUnknown => {
            "the change may or may not be in force; repeating it is safe where the method says so"
        }
        Refusal::Deadline => "the deadline of the call passed",
        Refusal::MethodUnknown => "this server does not serve the method",
        Refusal::EncodingUnsupported => {
            "compressed messages are not read: send them with grpc-encoding identity"
        }
        Refusal::Internal => "a defect of this server; its log has the details",
    };
    text.to_owned()
}

/// When it is worth trying again, where that is known.
pub fn retry_delay(refusal: &Refusal) -> Option<Duration> {
    match refusal {
        Refusal::LoginThrottled { retry_after } | Refusal::Overloaded { retry_after } => Some(*retry_after),
        Refusal::LeaseLost | Refusal::StoreUnavailable | Refusal::OutcomeUnknown => Some(RETRY_UNAVAILABLE),
        Refusal::InvalidField(_)
        | Refusal::InvalidCredentials
        | Refusal::SessionTokenInvalid
        | Refusal::SessionExpired
        | Refusal::SessionRevoked
        | Refusal::CredentialsChanged
        | Refusal::UserDisabled
        | Refusal::ReauthenticationRequired
        | Refusal::SessionBindingMismatch
        | Refusal::PasswordRefused(_)
        | Refusal::LoginTaken
        | Refusal::UserIdTaken
        | Refusal::UserNotFound
        | Refusal::CallerUnauthenticated
        | Refusal::CallerNotAllowed
        | Refusal::Deadline
        | Refusal::MethodUnknown
        | Refusal::EncodingUnsupported
        | Refusal::Internal => None,
    }
}

fn metadata(refusal: &Refusal) -> HashMap<String, String> {
    let pairs: Vec<(&str, String)> = match refusal {
        Refusal::PasswordRefused(PasswordRule::TooShort { code_points_min }) => {
            vec![("rule", "TOO_SHORT".to_owned()), ("code_points_min", code_points_min.to_string())]
        }
        Refusal::PasswordRefused(PasswordRule::TooLong { code_points_max }) => {
            vec![("rule", "TOO_LONG".to_owned()), ("code_points_max", code_points_max.to_string())]
        }
        Refusal::InvalidField(violations) => match Told::of(violations).more {
            0 => Vec::new(),
            more => vec![("violations_omitted", more.to_string())],
        },
        _ => Vec::new(),
    };
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::invalid::FieldViolation as Violation;

    const WAIT: Duration = Duration::from_secs(7);

    /// The error table of the contract: code, reason, and whether `RetryInfo` goes with it.
    fn table() -> Vec<(Refusal, Code, &'static str, bool)> {
        use Code::{
            AlreadyExists, DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument, NotFound,
            PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable, Unimplemented,
        };
        let too_short = PasswordRule::TooShort { code_points_min: 15 };
        vec![
            (
                Refusal::field(Violation::new("login", "must not be empty")),
                InvalidArgument,
                "INVALID_FIELD",
                false,
            ),
            (Refusal::InvalidCredentials, Unauthenticated, "INVALID_CREDENTIALS", false),
            (Refusal::SessionTokenInvalid, Unauthenticated, "SESSION_TOKEN_INVALID", false),
            (Refusal::SessionExpired, Unauthenticated, "SESSION_EXPIRED", false),
            (Refusal::SessionRevoked, Unauthenticated, "SESSION_REVOKED", false),
            (Refusal::CredentialsChanged, Unauthenticated, "CREDENTIALS_CHANGED", false),
            (Refusal::UserDisabled, Unauthenticated, "USER_DISABLED", false),
            (Refusal::ReauthenticationRequired, FailedPrecondition, "REAUTHENTICATION_REQUIRED", false),
            (Refusal::SessionBindingMismatch, Unauthenticated, "SESSION_BINDING_MISMATCH", false),
            (Refusal::PasswordRefused(too_short), InvalidArgument, "PASSWORD_REFUSED", false),
            (Refusal::LoginTaken, AlreadyExists, "LOGIN_TAKEN", false),
            (Refusal::UserIdTaken, AlreadyExists, "USER_ID_TAKEN", false),
            (Refusal::UserNotFound, NotFound, "USER_NOT_FOUND", false),
            (Refusal::CallerUnauthenticated, Unauthenticated, "CALLER_UNAUTHENTICATED", false),
            (Refusal::CallerNotAllowed, PermissionDenied, "CALLER_NOT_ALLOWED", false),
            (Refusal::LoginThrottled { retry_after: WAIT }, ResourceExhausted, "LOGIN_THROTTLED", true),
            (Refusal::Overloaded { retry_after: WAIT }, ResourceExhausted, "OVERLOADED", true),
            (Refusal::LeaseLost, Unavailable, "LEASE_LOST", true),
            (Refusal::StoreUnavailable, Unavailable, "STORE_UNAVAILABLE", true),
            (Refusal::OutcomeUnknown, Unavailable, "OUTCOME_UNKNOWN", true),
            (Refusal::Deadline, DeadlineExceeded, "DEADLINE", false),
            (Refusal::MethodUnknown, Unimplemented, "METHOD_UNKNOWN", false),
            (Refusal::EncodingUnsupported, Unimplemented, "ENCODING_UNSUPPORTED", false),
            (Refusal::Internal, Internal, "INTERNAL", false),
        ]
    }

    #[test]
    fn every_row_of_the_error_table_is_told_as_the_contract_says() {
        for (refusal, code, reason, retry) in table() {
            let status = status(&refusal);
            assert_eq!(reason_told(&status), Some(reason));
            let details = status.get_error_details();
            let info = details.error_info().expect("an ErrorInfo");
            assert_eq!((status.code(), info.reason.as_str(), info.domain.as_str()), (code, reason, DOMAIN));
            assert_eq!(details.retry_info().is_some(), retry, "{reason}");
            assert_eq!(details.bad_request().is_some(), reason == "INVALID_FIELD", "{reason}");
            assert!(!status.message().is_empty(), "{reason}");
            let infos = status.get_error_details_vec();
            let count =
                infos.iter().filter(|one| matches!(one, tonic_types::ErrorDetail::ErrorInfo(_))).count();
            assert_eq!(count, 1, "{reason}");
        }
    }

    /// Bytes of the headers, as HTTP/2 counts them.
    fn header_bytes(status: &Status) -> usize {
        let headers = status.clone().into_http::<()>().into_parts().0.headers;
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
    }

    #[test]
    fn a_status_fits_into_headers_however_much_is_wrong() {
        for (field, description) in [
            ("a".to_owned(), "b".to_owned()),
            ("f".repeat(500), "d".repeat(900)),
            ("\u{1f600}".repeat(90), "\u{e9}%".repeat(400)),
        ] {
            for count in [1, 2, 10, 100, 5_000] {
                let each = (0..count).map(|at| Violation::new(format!("{at}{field}"), description.clone()));
                let refusal = Refusal::InvalidField(each.collect());
                let status = status(&refusal);
                assert!(header_bytes(&status) < 7 * 1_024, "{} bytes for {count}", header_bytes(&status));
                let details = status.get_error_details();
                let told = details.bad_request().expect("a BadRequest").field_violations.len();
                let omitted =
                    details.error_info().expect("an ErrorInfo").metadata.get("violations_omitted").cloned();
                assert!(told > 0);
                assert_eq!(omitted, (told < count).then(|| (count - told).to_string()));
                assert_eq!(status.message().ends_with(&format!("; and {} more", count - told)), told < count);
            }
        }
    }

    #[test]
    fn the_same_violation_is_said_once() {
        let twice = Refusal::InvalidField(vec![Violation::new("a", "b"); 150]);
        assert_eq!(message(&twice), "a: b");
    }

    #[test]
    fn every_reason_of_the_enum_is_used() {
        let used: Vec<_> = table().iter().map(|(refusal, ..)| reason(refusal) as i32).collect();
        let named = (1..).map_while(|number| ErrorReason::try_from(number).ok().map(|_| number));
        assert_eq!(named.filter(|number| !used.contains(number)).collect::<Vec<_>>(), Vec::<i32>::new());
    }

    #[test]
    fn details_say_the_limit_and_the_wait() {
        let refused = status(&Refusal::PasswordRefused(PasswordRule::TooLong { code_points_max: 256 }));
        let details = refused.get_error_details();
        let metadata = &details.error_info().expect("an ErrorInfo").metadata;
        assert_eq!((metadata["rule"].as_str(), metadata["code_points_max"].as_str()), ("TOO_LONG", "256"));
        let throttled = status(&Refusal::LoginThrottled { retry_after: WAIT }).get_error_details();
        assert_eq!(throttled.retry_info().expect("a RetryInfo").retry_delay, Some(WAIT));
    }
}
