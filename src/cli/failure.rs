//! How a command fails: one line that says what and why, perhaps a hint, and an exit code that scripts can tell apart.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::output::printable;
use crate::config::ConfigErrors;
use crate::key_file::KeyFileError;
use crate::telemetry::{self, log_writer};

/// What every command answers.
pub(super) type Outcome = Result<(), Failure>;

/// The exit codes other than success and clap's own 2; the numbers are those of sysexits.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exit {
    /// Refused, or failed.
    Refused = 1,
    /// The server or the database does not answer.
    Unavailable = 69,
    /// A defect of this program.
    Defect = 70,
    /// The server does not let this caller do that.
    NotAllowed = 77,
    /// The configuration is wrong.
    Configuration = 78,
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure that is told in `message`.
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says in front what was being done.
    pub(super) fn while_doing(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Tells the person and answers the exit code.
    pub(super) fn report(&self, plain: bool) -> ExitCode {
        let plain = plain || !io::stderr().is_terminal() || !telemetry::shows_colours();
        log_writer::stderr().write_lines(self.text(!plain).as_bytes());
        ExitCode::from(self.exit as u8)
    }

    fn text(&self, color: bool) -> String {
        let (error, hint) =
            if color { ("\x1b[1;31merror:\x1b[0m", "\x1b[1mhint:\x1b[0m") } else { ("error:", "hint:") };
        let mut text = String::new();
        for line in self.message.lines() {
            _ = writeln!(text, "{error} {line}");
        }
        if let Some(advice) = &self.hint {
            _ = writeln!(text, "{hint} {advice}");
        }
        text
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(Exit::Configuration, errors.to_string())
            .hint("`latchkey config template` shows every setting; `latchkey config check` tries them")
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        Self::new(Exit::Refused, error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Refused, error.to_string())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info();
        let reason =
            info.as_ref().map_or_else(|| code_name(status.code()).to_owned(), |info| info.reason.clone());
        let mut message = sentence(&status);
        let request = status.get_details_bad_request();
        let violations = request.into_iter().flat_map(|request| request.field_violations);
        // Latchkey says them in the message as well; others may not.
        for violation in violations.filter(|violation| !status.message().contains(&violation.description)) {
            _ = write!(message, "; {}: {}", violation.field, violation.description);
        }
        let mut metadata: Vec<_> = info.into_iter().flat_map(|info| info.metadata).collect();
        metadata.sort();
        let mut about = String::new();
        for (key, value) in metadata {
            _ = write!(about, ", {key} {value}");
        }
        let mut failure =
            Self::new(exit(&status, &reason), printable(&format!("{message} [{reason}{about}]")));
        failure.hint = advice(&status, &reason);
        failure
    }
}

/// What the server said; where it said nothing, or was not reached, what happened.
fn sentence(status: &Status) -> String {
    match (status.code(), status.message()) {
        // What tonic's own client says when the time is up.
        (Code::Cancelled, _) => "no answer in time".to_owned(),
        (_, "") => "refused without a message".to_owned(),
        (_, message) => message.to_owned(),
    }
}

fn exit(status: &Status, reason: &str) -> Exit {
    match (status.code(), reason) {
        (_, "CALLER_UNAUTHENTICATED" | "CALLER_NOT_ALLOWED") => Exit::NotAllowed,
        (Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled, _) => Exit::Unavailable,
        _ => Exit::Refused,
    }
}

fn advice(status: &Status, reason: &str) -> Option<String> {
    let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
    Some(match (reason, status.code()) {
        ("CALLER_UNAUTHENTICATED", _) => {
            "give the API key of a configured caller with --api-key-file or LATCHKEY_API_KEY".to_owned()
        }
        ("CALLER_NOT_ALLOWED", _) => {
            "the [callers] of the server do not allow this call to this key".to_owned()
        }
        ("OUTCOME_UNKNOWN", _) => {
            "it may or may not be done; running the same command again is safe".to_owned()
        }
        (_, Code::DeadlineExceeded | Code::Cancelled) => {
            "a change may be done all the same; give more time with --timeout-s".to_owned()
        }
        (_, Code::Unimplemented) => {
            "this server does not serve that; are grpc.admin and its version right?".to_owned()
        }
        _ => format!("try again in {} s", wait?.as_secs_f64().ceil()),
    })
}

/// The failure to reach a server at all, down to the reason of the operating system.
pub(super) fn unreachable(server: &str, error: &(dyn Error + 'static)) -> Failure {
    let mut root = error;
    while let Some(deeper) = root.source() {
        root = deeper;
    }
    Failure::new(Exit::Unavailable, format!("cannot reach {server}: {}", printable(&root.to_string())))
        .hint("is `latchkey serve` running there? --server or LATCHKEY_SERVER says where it is")
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn told(code: Code, reason: &str, retry: Option<u64>) -> (Exit, String) {
        let metadata = HashMap::from([("rule".to_owned(), "TOO_SHORT".to_owned())]);
        let mut details = ErrorDetails::with_error_info(reason, "latchkey.dev", metadata);
        details.add_bad_request_violation("login", "must not be empty");
        if let Some(seconds) = retry {
            details.set_retry_info(Some(Duration::from_secs(seconds)));
        }
        let failure = Failure::from(Status::with_error_details(code, "the request is malformed", details));
        (failure.exit, failure.text(false))
    }

    #[test]
    fn a_refusal_is_one_line_with_reason_fields_and_metadata() {
        let (exit, text) = told(Code::InvalidArgument, "INVALID_FIELD", None);
        assert_eq!(exit, Exit::Refused);
        assert_eq!(
            text,
            "error: the request is malformed; login: must not be empty [INVALID_FIELD, rule TOO_SHORT]\n"
        );
    }

    #[test]
    fn exit_codes_tell_refusals_outages_and_callers_apart() {
        let exit = |code, reason| told(code, reason, None).0;
        assert_eq!(exit(Code::Unauthenticated, "SESSION_REVOKED"), Exit::Refused);
        assert_eq!(exit(Code::Unauthenticated, "CALLER_UNAUTHENTICATED"), Exit::NotAllowed);
        assert_eq!(exit(Code::PermissionDenied, "CALLER_NOT_ALLOWED"), Exit::NotAllowed);
        assert_eq!(exit(Code::Unavailable, "LEASE_LOST"), Exit::Unavailable);
        assert_eq!(exit(Code::ResourceExhausted, "OVERLOADED"), Exit::Refused);
    }

    #[test]
    fn hints_say_what_to_do() {
        let (_, text) = told(Code::Unavailable, "OUTCOME_UNKNOWN", None);
        assert!(
            text.ends_with("hint: it may or may not be done; running the same command again is safe\n"),
            "{text}"
        );
        let (_, text) = told(Code::ResourceExhausted, "LOGIN_THROTTLED", Some(7));
        assert!(text.ends_with("hint: try again in 7 s\n"), "{text}");
    }

    #[test]
    fn a_status_of_somebody_else_shows_its_code_and_no_control_character() {
        let failure = Failure::from(Status::internal("a\x1b[31mb\nc"));
        assert_eq!(failure.text(false), "error: a\u{fffd}[31mb\u{fffd}c [INTERNAL]\n");
        let failure = Failure::from(Status::cancelled("Timeout expired"));
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(failure.text(false).starts_with("error: no answer in time [CANCELLED]\n"));
    }

    #[test]
    fn a_command_that_fails_for_many_reasons_tells_each() {
        let failure = Failure::new(Exit::Configuration, "one\ntwo").hint("mend them");
        assert_eq!(failure.text(false), "error: one\nerror: two\nhint: mend them\n");
        assert!(failure.text(true).starts_with("\x1b[1;31merror:\x1b[0m one\n"));
    }
}
