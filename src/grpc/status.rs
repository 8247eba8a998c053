//! The one place where a refusal becomes a gRPC status, and the only one that names a status code.
//!
//! Each status has exactly one `google.rpc.ErrorInfo`, a `BadRequest` where fields are to blame, and a `RetryInfo` where
//! waiting helps. The texts are for people; clients decide by the reason.

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tonic::metadata::MetadataValue;
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use super::proto::v1::ErrorReason;
use crate::domain::password::PasswordRule;
use crate::domain::refusal::Refusal;

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "latchkey.dev";

const PREFIX: &str = "ERROR_REASON_";

/// After which time a call that was refused as unavailable is worth repeating.
const RETRY_UNAVAILABLE: Duration = Duration::from_millis(500);

/// The status that a refusal is answered with.
pub fn status(refusal: &Refusal) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason_name(reason(refusal)), DOMAIN, metadata(refusal));
    if let Refusal::InvalidField(violations) = refusal {
        let fields =
            violations.iter().map(|one| FieldViolation::new(one.field.as_ref(), one.description.as_ref()));
        details.set_bad_request(fields.collect::<Vec<_>>());
    }
    if let Some(delay) = retry_delay(refusal) {
        details.set_retry_info(Some(delay));
    }
    let mut status = Status::with_error_details(code(refusal), message(refusal), details);
    if *refusal == Refusal::CallerUnauthenticated {
        status.metadata_mut().insert("www-authenticate", MetadataValue::from_static("Bearer"));
    }
    status
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
        Refusal::MethodUnknown => Code::Unimplemented,
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
            let each = violations.iter().map(|one| format!("{}: {}", one.field, one.description));
            return each.collect::<Vec<_>>().join("; ");
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
