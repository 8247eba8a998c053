//! The person's device as a caller describes it, and whether a session is still used from the same one.
//!
//! The description comes from the caller and is never proof of anything by itself; it only ever takes validity away.

use std::net::IpAddr;

use super::invalid::{FieldViolation, Invalid};
use super::user::one_line;

/// Code points of a user agent.
pub const USER_AGENT_CODE_POINTS_MAX: usize = 1_024;
/// Code points of a device name.
pub const DEVICE_NAME_CODE_POINTS_MAX: usize = 128;

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
    /// Reads the three texts; empty means unknown. The violation names the field within the client message.
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

    #[test]
    fn violations_name_the_field() {
        assert_eq!(Client::parse("host", "", "").expect_err("bad").field, "ip");
        assert_eq!(Client::parse("", "a\nb", "").expect_err("bad").field, "user_agent");
        assert_eq!(Client::parse("", "", &"x".repeat(129)).expect_err("bad").field, "device_name");
    }
}
