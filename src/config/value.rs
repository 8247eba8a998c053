//! The kinds of values that are more than a number or a text: each is checked when it is read, and the secret ones show
//! nothing of themselves in `Debug`.

use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;
use serde::de::Error as _;
use zeroize::Zeroizing;

/// Reads an address, with an error that shows what one looks like.
pub(super) fn socket_address<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let bad = |_| D::Error::custom("must be an IP address and a port, such as 127.0.0.1:50051");
    String::deserialize(from)?.parse().map_err(bad)
}

/// Where HTTP is served, if it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpListen {
    /// Nowhere.
    Off,
    /// On this address.
    At(SocketAddr),
}

impl<'de> Deserialize<'de> for HttpListen {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() || text == "off" {
            return Ok(Self::Off);
        }
        let bad =
            |_| D::Error::custom("must be an IP address and a port, such as 127.0.0.1:9464, or \"off\"");
        text.parse().map(Self::At).map_err(bad)
    }
}

/// What happens to a session that is used from another device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    /// Nothing.
    None,
    /// It is not fresh.
    Basic,
    /// It ends.
    Strong,
}

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A text that nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text, for its one user.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(Zeroizing::new(text)))
    }
}

/// A service that may call.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// SHA-256 of its API key, 64 hexadecimal digits.
    pub key_sha256: ApiKeyDigest,
    /// What it may call: `package.Service/Method` or `package.Service/*`.
    pub allow: Vec<String>,
}

/// The SHA-256 of an API key. Of no use for calling.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ApiKeyDigest(pub [u8; 32]);

impl fmt::Debug for ApiKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyDigest(..)")
    }
}

impl<'de> Deserialize<'de> for ApiKeyDigest {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        hex_digest(&text).map(Self).ok_or_else(|| {
            D::Error::custom(
                "must be the SHA-256 of the API key, 64 hexadecimal digits (sha256sum prints it)",
            )
        })
    }
}

fn hex_digest(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut digest = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_64_hexadecimal_digits() {
        assert_eq!(hex_digest(&"aF".repeat(32)), Some([0xaf; 32]));
        for bad in ["", "af", &"ag".repeat(32), &"af".repeat(33), &"é".repeat(32)] {
            assert_eq!(hex_digest(bad), None, "{bad}");
        }
    }
}
