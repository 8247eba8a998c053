//! Writes fields of messages. The bytes are those that prost writes, which property tests hold; it writes them one by one,
//! and here they are most of what an answer costs beside its check.

use prost::encoding::WireType;
use prost_types::Timestamp;
use uuid::Uuid;

use crate::domain::time::UnixMillis;
use crate::grpc::wire;

/// The longest number.
const NUMBER_MAX: usize = 10;
/// What fits into one byte as a number.
const ONE_BYTE: u64 = 0x80;
/// The hyphenated text of an id (RFC 9562, section 4).
const ID_TEXT_LEN: usize = 36;
/// A field that holds an id. The numbers of such fields take one byte.
pub(super) const ID_LEN: usize = 2 + ID_TEXT_LEN;
/// A field that holds a moment, of two numbers with their keys. The numbers of such fields take one byte.
pub(super) const TIME_LEN_MAX: usize = 2 + 2 * (1 + NUMBER_MAX);

/// Where bytes go. What is of one length always is copied without asking how long it is, which is most of the work with
/// so few bytes.
pub(super) trait Sink {
    fn push(&mut self, byte: u8);
    fn put<const N: usize>(&mut self, bytes: &[u8; N]);
    fn put_slice(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn push(&mut self, byte: u8) {
        self.push(byte);
    }

    fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.extend_from_slice(bytes);
    }

    fn put_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts them.
#[derive(Default)]
pub(super) struct Length(pub(super) usize);

impl Sink for Length {
    fn push(&mut self, _: u8) {
        self.0 += 1;
    }

    fn put<const N: usize>(&mut self, _: &[u8; N]) {
        self.0 += N;
    }

    fn put_slice(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Up to `MAX` bytes in place, to see how long a few fields are before they go anywhere.
pub(super) struct Short<const MAX: usize> {
    bytes: [u8; MAX],
    len: usize,
}

impl<const MAX: usize> Short<MAX> {
    pub(super) fn new() -> Self {
        Self { bytes: [0; MAX], len: 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<const MAX: usize> Sink for Short<MAX> {
    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        *self.bytes[self.len..].first_chunk_mut().expect("there is room") = *bytes;
        self.len += N;
    }

    fn put_slice(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// How many bytes a field takes that holds `len` of them.
pub(super) fn bytes_len(number: u32, len: usize) -> usize {
    varint_len(key(number, WireType::LengthDelimited)) + varint_len(len as u64) + len
}

/// How many bytes a field takes that holds a number.
pub(super) fn number_len(number: u32, value: u64) -> usize {
    varint_len(key(number, WireType::Varint)) + varint_len(value)
}

/// A field that holds bytes.
pub(super) fn put_bytes(number: u32, bytes: &[u8], out: &mut impl Sink) {
    put_bytes_head(number, bytes.len(), out);
    out.put_slice(bytes);
}

/// All of a field but the `len` bytes that it holds.
pub(super) fn put_bytes_head(number: u32, len: usize, out: &mut impl Sink) {
    put_varint(key(number, WireType::LengthDelimited), out);
    put_varint(len as u64, out);
}

/// A field that holds a number.
pub(super) fn put_number(number: u32, value: u64, out: &mut impl Sink) {
    put_varint(key(number, WireType::Varint), out);
    put_varint(value, out);
}

/// The fields that are true; false ones are not written (proto3).
pub(super) fn put_flags(flags: [(u32, bool); 2], out: &mut impl Sink) {
    for (number, _) in flags.into_iter().filter(|(_, set)| *set) {
        put_number(number, 1, out);
    }
}

/// A field that holds an id as text.
pub(super) fn put_id(number: u32, id: Uuid, out: &mut impl Sink) {
    put_bytes_head(number, ID_TEXT_LEN, out);
    out.put(&hyphenated(id));
}

/// A field that holds a moment.
pub(super) fn put_time(number: u32, time: UnixMillis, out: &mut impl Sink) {
    let Timestamp { seconds, nanos } = wire::timestamp(time);
    let fields = [(1, seconds.cast_unsigned()), (2, i64::from(nanos).cast_unsigned())];
    let told = || fields.into_iter().filter(|(_, value)| *value != 0);
    put_bytes_head(number, told().map(|(number, value)| number_len(number, value)).sum(), out);
    for (number, value) in told() {
        put_number(number, value, out);
    }
}

fn key(number: u32, kind: WireType) -> u64 {
    u64::from(number) << 3 | kind as u64
}

/// Seven bits in each byte.
fn varint_len(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn put_varint(value: u64, out: &mut impl Sink) {
    let mut rest = value;
    while rest >= ONE_BYTE {
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

/// An id as text: eight digits at a time.
fn hyphenated(id: Uuid) -> [u8; ID_TEXT_LEN] {
    let mut text = [b'-'; ID_TEXT_LEN];
    let [one, two, three, four] = [0, 4, 8, 12]
        .map(|at| hex(u32::from_be_bytes(*id.as_bytes()[at..].first_chunk().expect("16 bytes"))));
    text[..8].copy_from_slice(&one);
    text[9..13].copy_from_slice(&two[..4]);
    text[14..18].copy_from_slice(&two[4..]);
    text[19..23].copy_from_slice(&three[..4]);
    text[24..28].copy_from_slice(&three[4..]);
    text[28..].copy_from_slice(&four);
    text
}

/// The eight hexadecimal digits of a number, each in a byte of one word: the halves are spread until each byte has one of
/// them, and letters get the distance between `9` and `a` added.
fn hex(number: u32) -> [u8; 8] {
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((digits + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (digits + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::encoding;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_what_prost_writes(number in 1_u32..16, value in 1_u64.., shift in 0_u32..64, text in ".{0,200}") {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            let value = (value >> shift).max(1);
            put_number(number, value, &mut ours);
            encoding::uint64::encode(number, &value, &mut theirs);
            put_bytes(number, text.as_bytes(), &mut ours);
            encoding::string::encode(number, &text, &mut theirs);
            prop_assert_eq!(bytes_len(number, text.len()), encoding::string::encoded_len(number, &text));
            prop_assert_eq!(number_len(number, value), encoding::uint64::encoded_len(number, &value));
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn moments_too(number in 1_u32..16, millis: i64, shift in 0_u32..64) {
            let time = UnixMillis::from_millis(millis >> shift);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            put_time(number, time, &mut ours);
            encoding::message::encode(number, &wire::timestamp(time), &mut theirs);
            prop_assert!(ours.len() <= TIME_LEN_MAX);
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn ids_too(number in 1_u32..16, id: u128) {
            let id = Uuid::from_u128(id);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            put_id(number, id, &mut ours);
            encoding::string::encode(number, &id.hyphenated().to_string(), &mut theirs);
            prop_assert_eq!(ours.len(), ID_LEN);
            prop_assert_eq!(ours, theirs);
        }
    }
}
