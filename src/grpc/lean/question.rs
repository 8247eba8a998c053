//! Reads requests in place: the token is borrowed from what came over the wire, and nothing is allocated.
//!
//! Only plain messages are read: the fields that are answered here, and such as a newer contract may add. Whatever else
//! there is, malformed or merely rare, is [`Unusual`], and prost is asked about it. So what is read here means what prost
//! says it means; property tests hold the two against each other.

/// Not for this reader: malformed, or with fields that are not answered here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unusual;

/// What every message begins with in a body: whether it is compressed, and its length.
pub const FRAME_HEAD: usize = 5;

/// The first number of those fields that neither request has.
const FIRST_UNKNOWN: u32 = 4;

/// One question of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tagged<'m> {
    /// What comes back with the answer.
    pub tag: u64,
    /// The token; empty where there is none.
    pub token: &'m str,
}

/// The message of a body that is one whole message, not compressed, and of at most `bytes_max`.
pub fn only_message(body: &[u8], bytes_max: usize) -> Option<&[u8]> {
    let (head, message) = body.split_first_chunk::<FRAME_HEAD>()?;
    let len = message_len(*head)?;
    (len == message.len() && len <= bytes_max).then_some(message)
}

/// The length of the message behind a head; none where it is compressed, or the head is none.
pub fn message_len(head: [u8; FRAME_HEAD]) -> Option<usize> {
    let [flag, len @ ..] = head;
    if flag == 0 { usize::try_from(u32::from_be_bytes(len)).ok() } else { None }
}

/// The token in a `ValidateSessionRequest`, or in a `LoadUserRequest`: each has it in field 1, and fields 2 and 3 ask for
/// more. None where it is not set.
pub fn token_of(message: &[u8]) -> Result<Option<&str>, Unusual> {
    let mut token = None;
    for field in Fields(message) {
        match field? {
            (1, Value::Bytes(text)) => token = Some(str::from_utf8(text).map_err(|_| Unusual)?),
            (number, _) if number < FIRST_UNKNOWN => return Err(Unusual),
            _ => {}
        }
    }
    Ok(token)
}

/// The question in a `StreamValidateSessionsRequest`. Where it is there several times, prost merges them: so does this.
pub fn tagged(message: &[u8]) -> Result<Tagged<'_>, Unusual> {
    let mut read = Tagged { tag: 0, token: "" };
    for field in Fields(message) {
        match field? {
            (1, Value::Number(tag)) => read.tag = tag,
            (2, Value::Bytes(question)) => read.token = token_of(question)?.unwrap_or(read.token),
            (1 | 2, _) => return Err(Unusual),
            _ => {}
        }
    }
    Ok(read)
}

/// The fields of a message, in the order in which they came.
struct Fields<'m>(&'m [u8]);

/// What a field holds.
enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
    /// Four or eight bytes, which no field here has.
    Fixed,
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<(u32, Value<'m>), Unusual>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.field().ok_or(Unusual))
    }
}

impl<'m> Fields<'m> {
    fn field(&mut self) -> Option<(u32, Value<'m>)> {
        let key = u32::try_from(self.varint()?).ok()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            // A group, or nothing at all.
            _ => return None,
        };
        let number = key >> 3;
        (number > 0).then_some((number, value))
    }

    fn take(&mut self, len: usize) -> Option<&'m [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of up to ten bytes, of which the tenth can hold one bit.
    fn varint(&mut self) -> Option<u64> {
        // Nearly all of them.
        if let [byte @ ..0x80, rest @ ..] = self.0 {
            self.0 = rest;
            return Some(u64::from(*byte));
        }
        let mut number = 0;
        for (at, &byte) in self.0.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return (at < 9 || byte < 2).then_some(number);
            }
        }
        None
    }
}
