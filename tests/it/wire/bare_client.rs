//! A client of frames that were encoded before: it opens a connection, and sends the same call again and again by a plain
//! socket, from a thread of its own. What it takes of memory is not the server's.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hyper::body::Bytes;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// So wide that no answer of a test is ever held back.
const WIDE: u32 = 0x7fff_0000;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A connection that speaks HTTP/2.
pub struct BareClient {
    stream: TcpStream,
    read: Vec<u8>,
    head: Vec<u8>,
    body: Bytes,
    next: u32,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header as HPACK spells it in full: a new name, and nothing that is to be remembered (RFC 7541, 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        let len = u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("a short text");
        field.push(len);
        field.extend_from_slice(text.as_bytes());
    }
    field
}

impl BareClient {
    /// Opens a connection, for calls of `path` with `body`.
    pub fn connect(address: SocketAddr, path: &str, body: Bytes) -> Self {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let initial_window = [&[0, 4][..], &WIDE.to_be_bytes()].concat();
        let opening = [
            PREFACE.to_vec(),
            frame(SETTINGS, 0, 0, &initial_window),
            frame(SETTINGS, ACK, 0, &[]),
            frame(WINDOW_UPDATE, 0, 0, &WIDE.to_be_bytes()),
        ];
        stream.write_all(&opening.concat()).expect("the server reads");
        let head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", path),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "bare"),
        ];
        let head = head.iter().flat_map(|(name, value)| literal(name, value)).collect();
        Self { stream, read: Vec::new(), head, body, next: 1 }
    }

    /// Makes `count` calls, one behind the other, and answers how many bytes their messages had.
    pub fn call(&mut self, count: usize) -> usize {
        let mut bytes = 0;
        for _ in 0..count {
            let id = self.next;
            self.next += 2;
            let head = frame(HEADERS, END_HEADERS, id, &self.head);
            let data = frame(DATA, END_STREAM, id, &self.body);
            self.stream.write_all(&[head, data].concat()).expect("the server reads");
            bytes += self.answer(id);
        }
        bytes
    }

    /// Reads until the stream ends.
    fn answer(&mut self, id: u32) -> usize {
        let mut bytes = 0;
        loop {
            let head = self.take(9);
            let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            self.take(len);
            assert!(kind != RESET && kind != GO_AWAY, "the server broke the call off");
            if kind == DATA && stream == id {
                bytes += len;
            }
            if stream == id && (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0 {
                return bytes;
            }
        }
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let mut buffer = [0; 4096];
        while self.read.len() < len {
            let count = self.stream.read(&mut buffer).expect("the server answers in time");
            assert!(count > 0, "the server closed the connection");
            self.read.extend_from_slice(&buffer[..count]);
        }
        self.read.drain(..len).collect()
    }
}
