//! Writes a session as LoadUser tells it, straight from memory: once to see how long it is, then into the answer. The bytes
//! are those that prost makes of the same message.

use std::io::Write as _;
use std::net::IpAddr;

use super::fields::{Length, Sink, put_bytes, put_bytes_head, put_flags, put_id, put_time};
use crate::domain::time::UnixMillis;
use crate::live::table::GoodSession;
use crate::usecases::validate_session::Validated;

/// The longest text of a network address: IPv6 with IPv4 in it.
const IP_TEXT_MAX: usize = 45;

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
        let mut len = Length::default();
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
            put_time(number, time, out);
        }
        put_flags([(8, self.fresh), (9, good.is_remembered())], out);
        for method in good.methods() {
            put_bytes(10, method.as_bytes(), out);
        }
        let mut client = Length::default();
        self.put_client(&mut client);
        put_bytes_head(11, client.0, out);
        self.put_client(out);
    }

    fn put_client(&self, out: &mut impl Sink) {
        let texts =
            [&self.ip[..self.ip_len], self.good.user_agent().as_bytes(), self.good.device_name().as_bytes()];
        for (number, text) in (1..).zip(texts) {
            if !text.is_empty() {
                put_bytes(number, text, out);
            }
        }
    }
}

/// Writes the address as text, and gives its length.
fn text_of(ip: IpAddr, text: &mut [u8; IP_TEXT_MAX]) -> usize {
    let mut rest = &mut text[..];
    // There is room for every address.
    let _ = write!(rest, "{ip}");
    IP_TEXT_MAX - rest.len()
}
