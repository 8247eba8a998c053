//! What is said of a value that cannot be taken: the limit it broke, and in which field.

use std::borrow::Cow;

/// Why a value was refused: a sentence without a subject ("must be …"), which never repeats the value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(Cow<'static, str>);

impl Invalid {
    /// An explanation that names the limit.
    pub fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }

    /// Says which field of the request held the value.
    pub fn in_field(self, field: impl Into<Cow<'static, str>>) -> FieldViolation {
        FieldViolation { field: field.into(), description: self.0 }
    }
}

/// One field of a request that was refused, in the words of `google.rpc.BadRequest`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldViolation {
    /// The path of the field in the request message, such as `client.ip`.
    pub field: Cow<'static, str>,
    /// Which limit was broken.
    pub description: Cow<'static, str>,
}

impl FieldViolation {
    /// A violation in `field`.
    pub fn new(field: impl Into<Cow<'static, str>>, description: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}
