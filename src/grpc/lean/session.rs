//! Writes a session as LoadUser tells it, straight from memory: once to see how long it is, then into the answer. The bytes
//! are those that prost makes of the same message.

use std::io::Write as _;
use std::net::IpAddr;

use prost::Message as _;
use prost::encoding::{self, WireType};
use prost_types::Timestamp;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::domain::time::UnixMillis;
use crate::grpc::wire;
use crate::live::table::GoodSession;
use crate::usecases::validate_session::Validated;

/// The longest text of a network address: IPv6 with IPv4 in it.
const IP_TEXT_MAX: usize = 45;
/// The longest encoding of a `Timestamp`: two numbers of ten bytes, each with its key.
const TIMESTAMP_MAX: usize = 22;
/// The longest encoding of a number.
const NUMBER_MAX: usize = 10;

/// A session to be written.
pub(super) struct ToldSession<'t> {
    good: &'t GoodSession<'t>,
    fresh: bool,
    last_seen: UnixMillis,
    ip: [u8; IP_TEXT_MAX],
    ip_len: usize,
}

impl<'t> ToldSession<'t> {
    pub(super) fn new(Validated { good, fresh }: Validated<'t>) -> Self {
        let (mut ip, ip_len) = ([0; IP_TEXT_MAX], good.ip());
        let ip_len = ip_len.map_or(0, |address| text_of(address, &mut ip));
        // Read once: it may move on while this is written.
        Self { good, fresh, last_seen: good.last_seen_time(), ip, ip_len }
    }

    /// How many bytes it takes.
    pub(super) fn len(&self) -> usize {
        let mut len = Length(0);
        self.put(&mut len);
        len.0
    }

    /// Writes it.
    pub(super) fn put(&self, out: &mut impl Sink) {
        let good = self.good;
        put_id(1, good.id().as_uuid(), out);
        put_id(2, good.user_id().as_uuid(), out);
        let idle_end = self.last_seen.plus(good.idle_limit()).min(good.expire_time());
        let times =
            [good.create_time(), good.authenticate_time(), good.expire_time(), self.last_seen, idle_end];
        for (number, time) in (3..).zip(times) {
            put_time(number, wire::timestamp(time), out);
        }
        // What is false is not written (proto3).
        for (number, set) in [(8, self.fresh), (9, good.is_remembered())] {
            if set {
                put_key(number, WireType::Varint, out);
                put_number(1, out);
            }
        }
        for method in good.methods() {
            put_text(10, method.as_bytes(), out);
        }
        let mut client = Length(0);
        self.put_client(&mut client);
        put_key(11, WireType::LengthDelimited, out);
        put_number(client.0 as u64, out);
        self.put_client(out);
    }

    fn put_client(&self, out: &mut impl Sink) {
        let texts =
            [&self.ip[..self.ip_len], self.good.user_agent().as_bytes(), self.good.device_name().as_bytes()];
        for (number, text) in (1..).zip(texts) {
            if !text.is_empty() {
                put_text(number, text, out);
            }
        }
    }
}

/// Where bytes go.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts them.
struct Length(usize);

impl Sink for Length {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Writes the address as text, and gives its length.
fn text_of(ip: IpAddr, text: &mut [u8; IP_TEXT_MAX]) -> usize {
    let mut rest = &mut text[..];
    // There is room for every address.
    let _ = write!(rest, "{ip}");
    IP_TEXT_MAX - rest.len()
}

fn put_id(number: u32, id: Uuid, out: &mut impl Sink) {
    let mut text = [0; Hyphenated::LENGTH];
    put_text(number, id.hyphenated().encode_lower(&mut text).as_bytes(), out);
}

fn put_text(number: u32, text: &[u8], out: &mut impl Sink) {
    put_key(number, WireType::LengthDelimited, out);
    put_number(text.len() as u64, out);
    out.put(text);
}

fn put_time(number: u32, time: Timestamp, out: &mut impl Sink) {
    let mut bytes = [0; TIMESTAMP_MAX];
    let mut rest = &mut bytes[..];
    time.encode_raw(&mut rest);
    let len = TIMESTAMP_MAX - rest.len();
    put_text(number, &bytes[..len], out);
}

fn put_key(number: u32, kind: WireType, out: &mut impl Sink) {
    put_number(u64::from(number) << 3 | kind as u64, out);
}

fn put_number(number: u64, out: &mut impl Sink) {
    let mut bytes = [0; NUMBER_MAX];
    let mut rest = &mut bytes[..];
    encoding::encode_varint(number, &mut rest);
    let len = NUMBER_MAX - rest.len();
    out.put(&bytes[..len]);
}
