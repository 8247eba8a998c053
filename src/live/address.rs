//! A network address in sixteen bytes, and what they mean beside it: kinds are few and shared, addresses are not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the bytes of an address mean.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum AddressKind {
    /// Nothing: no address is known.
    Unknown,
    /// The first four are one of IPv4.
    V4,
    /// They are one of IPv6.
    V6,
}

/// The bytes of an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address([u8; 16]);

impl Address {
    /// Takes an address apart.
    pub(super) fn pack(ip: Option<IpAddr>) -> (Self, AddressKind) {
        match ip {
            None => (Self([0; 16]), AddressKind::Unknown),
            Some(IpAddr::V4(ip)) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&ip.octets());
                (Self(bytes), AddressKind::V4)
            }
            Some(IpAddr::V6(ip)) => (Self(ip.octets()), AddressKind::V6),
        }
    }

    /// The address, by what its bytes mean.
    pub(super) fn unpack(self, kind: AddressKind) -> Option<IpAddr> {
        let [a, b, c, d, ..] = self.0;
        match kind {
            AddressKind::Unknown => None,
            AddressKind::V4 => Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
            AddressKind::V6 => Some(IpAddr::V6(Ipv6Addr::from(self.0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_comes_back() {
        for ip in ["192.0.2.7", "0.0.0.0", "::", "::1", "2001:db8::7", "::ffff:192.0.2.7"] {
            let ip = Some(ip.parse().expect("an address"));
            let (address, kind) = Address::pack(ip);
            assert_eq!(address.unpack(kind), ip);
        }
        let (address, kind) = Address::pack(None);
        assert_eq!(address.unpack(kind), None);
    }
}
