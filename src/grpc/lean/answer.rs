//! Writes what is told of a good session: one buffer of just the right size, with the id of the user, the user as memory
//! keeps it, and what is of the session. The bytes are those that prost makes of the same message.

use hyper::body::Bytes;
use uuid::Uuid;

use super::fields::{
    ID_LEN, Short, Sink as _, TIME_LEN_MAX, bytes_len, number_len, put_bytes_head, put_flags, put_id,
    put_number, put_time,
};
use super::question::FRAME_HEAD;
use super::session::ToldSession;
use crate::usecases::validate_session::Validated;

/// Two flags that are true.
const FLAGS_LEN_MAX: usize = 4;

/// A `ValidateSessionResponse` as the one message of an answer.
pub(super) fn validated_frame(validated: Validated<'_>) -> Bytes {
    let told = Told::new(&validated);
    let mut frame = framed(told.len());
    told.put(&mut frame);
    frame.into()
}

/// A `LoadUserResponse` as the one message of an answer.
pub(super) fn loaded_frame(validated: Validated<'_>) -> Bytes {
    let good = validated.good;
    let (user, session) = (good.user_encoded().whole(), ToldSession::new(validated));
    let (user_len, session_len) = (ID_LEN + user.len(), session.len());
    let mut frame = framed(bytes_len(1, user_len) + bytes_len(2, session_len));
    put_bytes_head(1, user_len, &mut frame);
    put_id(1, good.user_id().as_uuid(), &mut frame);
    frame.put_slice(user);
    put_bytes_head(2, session_len, &mut frame);
    session.put(&mut frame);
    frame.into()
}

/// The answer of a stream to the question of `tag`, of a session that is good.
pub(super) fn put_good(tag: u64, validated: &Validated<'_>, out: &mut Vec<u8>) {
    let told = Told::new(validated);
    put_answer(tag, 2, told.len(), out);
    told.put(out);
}

/// The same of a question that is refused, with what is told of that.
pub(super) fn put_refused(tag: u64, told: &[u8], out: &mut Vec<u8>) {
    put_answer(tag, 3, told.len(), out);
    out.put_slice(told);
}

/// A message with its head.
pub(super) fn put_framed(message: &impl prost::Message, out: &mut Vec<u8>) {
    out.put(&head(message.encoded_len()));
    message.encode_raw(out);
}

/// All of a `StreamValidateSessionsResponse` but the `len` bytes of its field `number`, which come last.
fn put_answer(tag: u64, number: u32, len: usize, out: &mut Vec<u8>) {
    let tag_len = if tag == 0 { 0 } else { number_len(1, tag) };
    out.put(&head(tag_len + bytes_len(number, len)));
    if tag != 0 {
        put_number(1, tag, out);
    }
    put_bytes_head(number, len, out);
}

/// Room for a message of `len` bytes, behind its head.
fn framed(len: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEAD + len);
    frame.put(&head(len));
    frame
}

/// What is in front of a message of `len` bytes: not compressed, and how long it is. (A few kilobytes at most: all that is
/// in an answer is bounded.)
fn head(len: usize) -> [u8; FRAME_HEAD] {
    let [one, two, three, four] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    [0, one, two, three, four]
}

/// A `ValidateSessionResponse` to be written.
struct Told<'t> {
    user_id: Uuid,
    principal: &'t [u8],
    /// What is of the session.
    session: Short<{ ID_LEN + 2 * TIME_LEN_MAX + FLAGS_LEN_MAX }>,
}

impl<'t> Told<'t> {
    fn new(validated: &Validated<'t>) -> Self {
        let (good, mut session) = (validated.good, Short::new());
        put_id(4, good.id().as_uuid(), &mut session);
        put_time(5, good.expire_time(), &mut session);
        put_time(6, good.authenticate_time(), &mut session);
        put_flags([(7, validated.fresh), (8, good.is_remembered())], &mut session);
        Self { user_id: good.user_id().as_uuid(), principal: good.user_encoded().principal(), session }
    }

    fn len(&self) -> usize {
        ID_LEN + self.principal.len() + self.session.bytes().len()
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_id(1, self.user_id, out);
        out.put_slice(self.principal);
        out.put_slice(self.session.bytes());
    }
}
