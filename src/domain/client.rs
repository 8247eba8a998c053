//! The person's device as a caller describes it, and whether a session is still used from the same one.
//!
//! The description comes from the caller and is never proof of anything by itself; it only ever takes validity away. It is
//! what a browser and the proxies before it happened to send, so no description is an error: what cannot be used is
//! cleaned, cut or left out.

use std::net::IpAddr;

use unicode_segmentation::GraphemeCursor;

use super::invalid::{FieldViolation, Invalid};
use super::user::one_line;

/// Code points of a user agent.
pub const USER_AGENT_CODE_POINTS_MAX: usize = 1_024;
/// Code points of a device name.
pub const DEVICE_NAME_CODE_POINTS_MAX: usize = 128;
/// Code points that a cut gives up at most so as not to split a character of several code points.
const CLUSTER_CODE_POINTS_MAX: usize = 32;

/// Where a session is used from. Every part may be missing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Client {
    /// The network address of the device.
    pub ip: Option<IpAddr>,
    /// The User-Agent header of the device; empty when unknown.
    pub user_agent: String,
    /// What the person calls the device; empty when unknown. Takes no part in binding.
    pub device_name: String,
}

impl Client {
    /// Takes a description as a caller sends it, whatever it is. An address that cannot be read is unknown; in the other
    /// texts control characters become spaces, and what is too long is cut.
    pub fn described(ip: &str, user_agent: &str, device_name: &str) -> Self {
        Self {
            ip: address(ip),
            user_agent: cleaned_line(user_agent, USER_AGENT_CODE_POINTS_MAX),
            device_name: cleaned_line(device_name, DEVICE_NAME_CODE_POINTS_MAX),
        }
    }

    /// This description, with the parts that it leaves out as in `earlier`.
    pub fn or(self, earlier: Self) -> Self {
        let given = |text: String, earlier: String| if text.is_empty() { earlier } else { text };
        Self {
            ip: self.ip.or(earlier.ip),
            user_agent: given(self.user_agent, earlier.user_agent),
            device_name: given(self.device_name, earlier.device_name),
        }
    }

    /// Reads the three texts as they are stored; empty means unknown. The violation names the field within the client
    /// message.
    pub fn parse(ip: &str, user_agent: &str, device_name: &str) -> Result<Self, FieldViolation> {
        let parse_ip =
            |text: &str| text.parse::<IpAddr>().map_err(|_| Invalid::new("must be an IPv4 or IPv6 address"));
        let ip = if ip.is_empty() {
            None
        } else {
            Some(parse_ip(ip).map_err(|why| why.in_field("ip"))?.to_canonical())
        };
        let user_agent =
            one_line(user_agent, USER_AGENT_CODE_POINTS_MAX).map_err(|why| why.in_field("user_agent"))?;
        let device_name =
            one_line(device_name, DEVICE_NAME_CODE_POINTS_MAX).map_err(|why| why.in_field("device_name"))?;
        Ok(Self { ip, user_agent, device_name })
    }

    /// Whether `now` can be the device that signed in. Addresses are compared by prefix (/24 and /64), since phones
    /// move; what either side does not know is not compared.
    pub fn matches(&self, now: &Self) -> bool {
        now.is_like(self.ip, &self.user_agent)
    }

    /// The same, for a device that signed in from the address `ip` by the name of `user_agent`.
    pub fn is_like(&self, ip: Option<IpAddr>, user_agent: &str) -> bool {
        let same_network = match (ip, self.ip) {
            (Some(then), Some(now)) => Network::of(then) == Network::of(now),
            _ => true,
        };
        let known = !user_agent.is_empty() && !self.user_agent.is_empty();
        same_network && (!known || self.user_agent == user_agent)
    }
}

/// Reads an address with whatever gateways put around it: a port, brackets, a zone, quotes, spaces. Of a list, as
/// `X-Forwarded-For` holds it, the first is taken. That one is the device by the header's definition; the last is often a
/// proxy of one's own, and by its address the throttle would take everybody for one. The first may be forged, which gains
/// nothing over sending no address at all.
fn address(text: &str) -> Option<IpAddr> {
    let first = text.split(',').next()?;
    let first = first.trim_matches(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    let bare = match (first.strip_prefix('['), first.split_once(':')) {
        (Some(rest), _) => {
            rest.split_once(']').filter(|(_, port)| port.is_empty() || port.starts_with(':'))?.0
        }
        (None, Some((v4, port))) if !port.contains(':') => v4,
        (None, _) => first,
    };
    let bare = bare.split_once('%').map_or(bare, |(bare, _zone)| bare);
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// One line of at most `code_points_max` code points, made from any text.
fn cleaned_line(text: &str, code_points_max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(code_points_max * 4));
    for part in text.split(char::is_control).filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(part);
    }
    if let Some((limit, _)) = line.char_indices().nth(code_points_max) {
        line.truncate(cut(&line, limit));
    }
    line.trim().to_owned()
}

/// Where to cut `line` so that at most `limit` bytes are left, and none of its characters is split.
fn cut(line: &str, limit: usize) -> usize {
    let mut cursor = GraphemeCursor::new(limit, line.len(), true);
    if cursor.is_boundary(line, 0) == Ok(true) {
        return limit;
    }
    match cursor.prev_boundary(line, 0) {
        Ok(Some(before)) if line[before..limit].chars().count() <= CLUSTER_CODE_POINTS_MAX => before,
        _ => limit,
    }
}

/// The part of an address that stays while a device stays in its network: /24 of IPv4, /64 of IPv6. The families never
/// compare equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Network {
    /// The first three bytes.
    V4([u8; 3]),
    /// The first four groups.
    V6([u16; 4]),
}

impl Network {
    /// The network of an address; an IPv4 address mapped into IPv6 is IPv4.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// What happens to a session that is used from another device than the one that signed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Binding {
    /// Nothing.
    #[default]
    None,
    /// It is not fresh in that answer.
    Basic,
    /// It ends; a remembered session is only not fresh.
    Strong,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ip: &str, user_agent: &str) -> Client {
        Client::parse(ip, user_agent, "").expect("a client")
    }

    #[test]
    fn addresses_are_compared_by_network() {
        assert!(at("192.0.2.1", "").matches(&at("192.0.2.254", "")));
        assert!(!at("192.0.2.1", "").matches(&at("192.0.3.1", "")));
        assert!(at("2001:db8::1", "").matches(&at("2001:db8::ffff:1", "")));
        assert!(!at("2001:db8::1", "").matches(&at("2001:db8:0:1::1", "")));
        assert!(!at("192.0.2.1", "").matches(&at("2001:db8::1", "")));
        assert!(at("::ffff:192.0.2.1", "").matches(&at("192.0.2.9", "")), "mapped addresses are IPv4");
    }

    #[test]
    fn user_agents_are_compared_whole_and_the_unknown_never_differs() {
        assert!(!at("", "a").matches(&at("", "b")));
        assert!(at("", "a").matches(&at("192.0.2.1", "")));
    }

    fn described(user_agent: &str) -> String {
        Client::described("", user_agent, "").user_agent
    }

    #[test]
    fn addresses_are_read_with_what_gateways_put_around_them() {
        for (sent, read) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:8000", "192.0.2.1"),
            ("192.0.2.1:", "192.0.2.1"),
            (" 192.0.2.1\t", "192.0.2.1"),
            ("192.0.2.1, 10.0.0.1", "192.0.2.1"),
            ("192.0.2.1:443,10.0.0.1:80", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("\"[2001:db8::1]:443\"", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:443", "fe80::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
            ("::1", "::1"),
        ] {
            assert_eq!(address(sent), Some(read.parse().expect("an address")), "{sent}");
        }
        for unknown in [
            "",
            " ",
            ",",
            "unknown",
            "unknown, 192.0.2.1",
            "unix:",
            "localhost",
            "localhost:80",
            "_hidden",
            "-",
            "010.001.002.003",
            "192.0.2",
            "192.0.2.256",
            "[",
            "[]",
            "[]:80",
            "[::1",
            "[::1]x",
            "::1]",
            ":::",
            "%eth0",
            "\0",
            "for=192.0.2.1",
        ] {
            assert_eq!(address(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_user_agent_is_cleaned_and_cut() {
        for (sent, kept) in [
            ("Mozilla/5.0\tx", "Mozilla/5.0 x"),
            ("a\r\n\0b", "a b"),
            ("\n a \u{7f}", "a"),
            ("\u{80}\u{9f}", ""),
            // As WSGI hands UTF-8 over: each byte as the code point of its number.
            ("\u{e2}\u{97}\u{80}x", "\u{e2} x"),
            ("Navigateur \u{e9}", "Navigateur \u{e9}"),
        ] {
            assert_eq!(described(sent), kept, "{sent:?}");
        }
        assert_eq!(described(&"ü".repeat(1_024)), "ü".repeat(1_024));
        assert_eq!(described(&"ü".repeat(9_000)), "ü".repeat(1_024));
        assert_eq!(Client::described("", "", &"x".repeat(129)).device_name.len(), 128);
    }

    #[test]
    fn a_cut_splits_no_character() {
        let flag = "\u{1f1e6}\u{1f1fa}";
        let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";
        for cluster in ["e\u{301}", flag, family] {
            for before in 1_024 - 6..1_024 {
                let kept = described(&format!("{}{}", "x".repeat(before), cluster.repeat(4)));
                let whole = kept.trim_start_matches('x');
                assert_eq!(whole, cluster.repeat(whole.len() / cluster.len()), "{cluster:?} from {before}");
            }
        }
        let endless = format!("e{}", "\u{301}".repeat(3_000));
        assert_eq!(described(&endless).chars().count(), 1_024, "what has no end is cut anywhere");
    }

    proptest! {
        #[test]
        fn whatever_is_described_can_be_stored(ip in any_text(), user_agent in any_text(), name in any_text()) {
            let client = Client::described(&ip, &user_agent, &name);
            let ip = client.ip.map(|ip| ip.to_string()).unwrap_or_default();
            let stored = Client::parse(&ip, &client.user_agent, &client.device_name);
            prop_assert_eq!(stored, Ok(client.clone()));
            prop_assert_eq!(Client::described(&ip, &client.user_agent, &client.device_name), client);
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        let odd = "[\\x00-\\x20\\x7f-\\u{a0}\u{301}\u{200d}\u{1f1e6}x:.,%\\[\\]0-9]{0,3000}";
        prop_oneof![
            any::<String>(),
            odd,
            any::<std::net::SocketAddr>().prop_map(|address| address.to_string())
        ]
    }

    #[test]
    fn what_is_left_out_stays_as_it_was() {
        let earlier = Client::described("192.0.2.1", "a", "phone");
        assert_eq!(Client::described("unknown", "", "").or(earlier.clone()), earlier);
        let now = Client::described("192.0.2.2", "b", "tablet");
        assert_eq!(now.clone().or(earlier), now);
    }

    #[test]
    fn what_is_stored_wrongly_is_named() {
        assert_eq!(Client::parse("host", "", "").expect_err("bad").field, "ip");
        assert_eq!(Client::parse("", "a\nb", "").expect_err("bad").field, "user_agent");
        assert_eq!(Client::parse("", "", &"x".repeat(129)).expect_err("bad").field, "device_name");
    }
}
