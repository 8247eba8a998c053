//! Every way in which a request can be refused. Each says what the caller can do; `grpc/status.rs` turns each into one
//! gRPC status, exhaustively.

use std::time::Duration;

use super::invalid::FieldViolation;
use super::password::PasswordRule;
use super::session::Death;

/// Why a request was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The request is malformed. Mend the named fields; the same request will always fail.
    InvalidField(Vec<FieldViolation>),
    /// Wrong login or password, a disabled user, or one without a password: never said which.
    InvalidCredentials,
    /// Not a token of ours, or one that nobody remembers. Sign in.
    SessionTokenInvalid,
    /// The session ran out, absolutely or by idleness. Sign in.
    SessionExpired,
    /// The session was ended by log-out or an administrator. Sign in.
    SessionRevoked,
    /// The session was ended because the password changed. Sign in with the new one.
    CredentialsChanged,
    /// The user is disabled or deleted. Ask an administrator.
    UserDisabled,
    /// The session stands but is not fresh enough. Call Reauthenticate.
    ReauthenticationRequired,
    /// The session was used from another device under strong binding, and ended. Sign in.
    SessionBindingMismatch,
    /// The new password breaks a rule. Choose another.
    PasswordRefused(PasswordRule),
    /// Another user has this login. Choose another.
    LoginTaken,
    /// Another user has this id. Choose another, or none.
    UserIdTaken,
    /// No user has this id or login.
    UserNotFound,
    /// The calling service did not say who it is, or is not known.
    CallerUnauthenticated,
    /// The calling service may not call this.
    CallerNotAllowed,
    /// Too many attempts. Wait.
    LoginThrottled {
        /// How long.
        retry_after: Duration,
    },
    /// This node has too much to do. Wait, or ask another.
    Overloaded {
        /// How long.
        retry_after: Duration,
    },
    /// This node cannot know the latest state. Ask another; this is not a log-out.
    LeaseLost,
    /// The database does not answer, or does not keep up; nothing was changed. Ask again; this is not a log-out.
    StoreUnavailable,
    /// The write may or may not be in force. Repeating it is safe.
    OutcomeUnknown,
    /// The deadline of the call passed. A write that had begun runs to its end.
    Deadline,
    /// No such RPC is served.
    MethodUnknown,
    /// Messages are compressed in a way that is not read here. Send them as they are.
    EncodingUnsupported,
    /// A defect of this service; the log has the details.
    Internal,
}

impl Refusal {
    /// A single field that was refused.
    pub fn field(violation: FieldViolation) -> Self {
        Self::InvalidField(vec![violation])
    }
}

impl From<FieldViolation> for Refusal {
    fn from(violation: FieldViolation) -> Self {
        Self::field(violation)
    }
}

impl From<PasswordRule> for Refusal {
    fn from(rule: PasswordRule) -> Self {
        Self::PasswordRefused(rule)
    }
}

impl From<Death> for Refusal {
    fn from(death: Death) -> Self {
        match death {
            Death::Expired => Self::SessionExpired,
            Death::Revoked => Self::SessionRevoked,
            Death::CredentialsChanged => Self::CredentialsChanged,
            Death::UserDisabled => Self::UserDisabled,
            Death::BindingMismatch => Self::SessionBindingMismatch,
        }
    }
}
