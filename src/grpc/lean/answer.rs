//! Writes what is told of a good session: one buffer of just the right size, with the id of the user, the user as memory
//! keeps it, and what is of the session. The bytes are those that prost makes of the same message.

use hyper::body::Bytes;
use prost::Message as _;
use prost::bytes::BufMut as _;
use prost::encoding::{self, WireType};
use prost_types::Timestamp;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::question::FRAME_HEAD;
use super::session::ToldSession;
use crate::domain::refusal::Refusal;
use crate::grpc::auth::refused;
use crate::grpc::wire;
use crate::usecases::validate_session::Validated;

/// Bytes of a field that holds an id; the numbers of such fields take one byte.
const ID_LEN: usize = 2 + Hyphenated::LENGTH;

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
    encoding::encode_key(1, WireType::LengthDelimited, &mut frame);
    encoding::encode_varint(user_len as u64, &mut frame);
    put_id(1, good.user_id().as_uuid(), &mut frame);
    frame.put_slice(user);
    encoding::encode_key(2, WireType::LengthDelimited, &mut frame);
    encoding::encode_varint(session_len as u64, &mut frame);
    session.put(&mut frame);
    frame.into()
}

/// The answer of a stream to the question of `tag`, of a session that is good.
pub(super) fn put_good(tag: u64, validated: &Validated<'_>, out: &mut Vec<u8>) {
    let told = Told::new(validated);
    put_answer(tag, 2, told.len(), out);
    told.put(out);
}

/// The same of a question that is refused.
pub(super) fn put_refused(tag: u64, refusal: &Refusal, out: &mut Vec<u8>) {
    let told = refused(refusal);
    put_answer(tag, 3, told.encoded_len(), out);
    told.encode_raw(out);
}

/// A message with its head.
pub(super) fn put_framed(message: &impl prost::Message, out: &mut Vec<u8>) {
    put_head(message.encoded_len(), out);
    message.encode_raw(out);
}

/// All of a `StreamValidateSessionsResponse` but the `len` bytes of its field `number`, which come last.
fn put_answer(tag: u64, number: u32, len: usize, out: &mut Vec<u8>) {
    let tag_len = if tag == 0 { 0 } else { encoding::uint64::encoded_len(1, &tag) };
    put_head(tag_len + bytes_len(number, len), out);
    if tag != 0 {
        encoding::uint64::encode(1, &tag, out);
    }
    encoding::encode_key(number, WireType::LengthDelimited, out);
    encoding::encode_varint(len as u64, out);
}

/// Room for a message of `len` bytes, behind its head.
fn framed(len: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEAD + len);
    put_head(len, &mut frame);
    frame
}

/// What is in front of a message of `len` bytes: not compressed, and how long it is. (A few kilobytes at most: all that is
/// in an answer is bounded.)
fn put_head(len: usize, out: &mut Vec<u8>) {
    out.put_u8(0);
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

/// A `ValidateSessionResponse` to be written.
struct Told<'t> {
    user_id: Uuid,
    principal: &'t [u8],
    session_id: Uuid,
    expire_time: Timestamp,
    authenticate_time: Timestamp,
    fresh: bool,
    remembered: bool,
}

impl<'t> Told<'t> {
    fn new(validated: &Validated<'t>) -> Self {
        let good = validated.good;
        Self {
            user_id: good.user_id().as_uuid(),
            principal: good.user_encoded().principal(),
            session_id: good.id().as_uuid(),
            expire_time: wire::timestamp(good.expire_time()),
            authenticate_time: wire::timestamp(good.authenticate_time()),
            fresh: validated.fresh,
            remembered: good.is_remembered(),
        }
    }

    fn len(&self) -> usize {
        let flag = |number: u32, set: bool| if set { encoding::bool::encoded_len(number, &true) } else { 0 };
        ID_LEN
            + self.principal.len()
            + ID_LEN
            + bytes_len(5, self.expire_time.encoded_len())
            + bytes_len(6, self.authenticate_time.encoded_len())
            + flag(7, self.fresh)
            + flag(8, self.remembered)
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_id(1, self.user_id, out);
        out.put_slice(self.principal);
        put_id(4, self.session_id, out);
        encoding::message::encode(5, &self.expire_time, out);
        encoding::message::encode(6, &self.authenticate_time, out);
        // What is false is not written (proto3).
        for (number, set) in [(7, self.fresh), (8, self.remembered)] {
            if set {
                encoding::bool::encode(number, &true, out);
            }
        }
    }
}

/// How many bytes a field takes that holds `len` of them.
fn bytes_len(number: u32, len: usize) -> usize {
    encoding::key_len(number) + encoding::encoded_len_varint(len as u64) + len
}

fn put_id(number: u32, id: Uuid, out: &mut Vec<u8>) {
    encoding::encode_key(number, WireType::LengthDelimited, out);
    encoding::encode_varint(Hyphenated::LENGTH as u64, out);
    let mut text = [0; Hyphenated::LENGTH];
    out.put_slice(id.hyphenated().encode_lower(&mut text).as_bytes());
}
