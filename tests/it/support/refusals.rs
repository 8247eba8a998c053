//! Reads refusals as a client does: by code, reason and details.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetail, StatusExt as _};

/// Code and reason of a refusal, after a check that it is whole: exactly one `ErrorInfo`, of our domain.
#[track_caller]
pub fn reason_of(status: &Status) -> (Code, String) {
    let details = status.get_error_details_vec();
    let infos: Vec<_> = details
        .iter()
        .filter_map(|one| match one {
            ErrorDetail::ErrorInfo(info) => Some(info),
            _ => None,
        })
        .collect();
    assert_eq!(infos.len(), 1, "exactly one ErrorInfo in {status:?}");
    assert_eq!(infos[0].domain, "latchkey.dev");
    (status.code(), infos[0].reason.clone())
}

/// Asserts that a call was refused with this code and reason, and gives the status for more.
#[track_caller]
pub fn assert_refused<T>(outcome: Result<T, Status>, code: Code, reason: &str) -> Status {
    let Err(status) = outcome else { panic!("not refused with {reason}") };
    assert_eq!(reason_of(&status), (code, reason.to_owned()), "{status:?}");
    status
}

/// Asserts that a call was refused for exactly these fields.
#[track_caller]
pub fn assert_blames<T>(outcome: Result<T, Status>, fields: &[&str]) {
    let status = assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(blamed_fields(&status), fields, "{status:?}");
}

/// The fields that a refusal blames, in the order told.
pub fn blamed_fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

/// How long a refusal asks to wait.
#[track_caller]
pub fn retry_delay(status: &Status) -> Duration {
    let details = status.get_error_details();
    let retry = details.retry_info().and_then(|info| info.retry_delay);
    retry.unwrap_or_else(|| panic!("no RetryInfo in {status:?}"))
}

/// The metadata of the `ErrorInfo` under `key`.
pub fn metadata(status: &Status, key: &str) -> Option<String> {
    status.get_error_details().error_info().and_then(|info| info.metadata.get(key).cloned())
}
