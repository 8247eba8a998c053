//! What the reader reads is what prost reads, over valid messages, mutated ones and plain rubbish; and plain messages are
//! read, not left to prost.

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

use super::question::{self, Tagged};
use crate::grpc::proto::v1::load_user_request::By;
use crate::grpc::proto::v1::{LoadUserRequest, StreamValidateSessionsRequest, ValidateSessionRequest};

/// A field as it may be on the wire: of the contract or of a newer one, whole or broken.
fn any_field() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![4 => 0_u32..6, 1 => 0_u32..40, 1 => any::<u32>()];
    let payload = prop_oneof![
        3 => "[a-z]{0,8}".prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 0..12),
        1 => vec(prop_oneof![Just(0x80_u8), Just(0xff), Just(0x01), Just(0x02)], 0..12),
    ];
    (number, 0_u64..8, payload, any::<u64>(), -1_i64..3).prop_map(|(number, kind, payload, value, lie)| {
        let mut field = Vec::new();
        prost::encoding::encode_varint(u64::from(number) << 3 | kind, &mut field);
        match kind {
            0 => prost::encoding::encode_varint(value, &mut field),
            1 => field.extend_from_slice(&value.to_le_bytes()),
            2 => {
                let len = i64::try_from(payload.len()).expect("short").saturating_add(lie.min(0)).max(0);
                prost::encoding::encode_varint(len.unsigned_abs(), &mut field);
                field.extend(payload);
            }
            5 => field.extend_from_slice(&value.to_le_bytes()[..4]),
            _ => {}
        }
        field
    })
}

/// A question, mostly whole, with further fields in front or behind, and a few bytes changed or cut.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let wrapped = (any::<bool>(), any::<u64>(), "[a-zA-Z0-9_-]{0,20}").prop_map(|(wrap, tag, token)| {
        let question = ValidateSessionRequest { session_token: token, ..ValidateSessionRequest::default() };
        let asked = || StreamValidateSessionsRequest { tag, question: Some(question.clone()) };
        if wrap { asked().encode_to_vec() } else { question.encode_to_vec() }
    });
    let mess = (any::<prop::sample::Index>(), any::<u8>());
    let parts = (vec(any_field(), 0..3), wrapped, vec(any_field(), 0..3), vec(mess, 0..2), 0_usize..4);
    parts.prop_map(|(front, question, behind, messes, cut)| {
        let mut message = [front.concat(), question, behind.concat()].concat();
        for (at, byte) in messes.iter().filter(|_| !message.is_empty()).collect::<Vec<_>>() {
            let at = at.index(message.len());
            message[at] = *byte;
        }
        // Most are not cut.
        message.truncate(message.len() - if cut == 3 { message.len().min(2) } else { 0 });
        message
    })
}

fn check(message: &[u8]) -> Result<(), TestCaseError> {
    let validate = ValidateSessionRequest::decode(message);
    let load = LoadUserRequest::decode(message);
    if let Ok(token) = question::token_of(message) {
        let plain = ValidateSessionRequest {
            session_token: token.unwrap_or_default().to_owned(),
            ..ValidateSessionRequest::default()
        };
        prop_assert_eq!(validate, Ok(plain));
        let by = token.map(|token| By::SessionToken(token.to_owned()));
        prop_assert_eq!(load, Ok(LoadUserRequest { by }));
    } else if let Ok(read) = validate {
        // Whatever prost takes as well is rare: it asks for more than the token, or has a group in it.
        let plain = read.client.is_none() && read.max_auth_age.is_none();
        prop_assert!(!plain || has_group(message), "{read:?} of {message:02x?}");
    }
    let asked = StreamValidateSessionsRequest::decode(message);
    if let Ok(Tagged { tag, token }) = question::tagged(message) {
        let question =
            ValidateSessionRequest { session_token: token.to_owned(), ..ValidateSessionRequest::default() };
        let read = asked.map(|read| (read.tag, read.question.unwrap_or_default()));
        prop_assert_eq!(read, Ok((tag, question)));
    } else if let Ok(read) = asked {
        let question = read.question.unwrap_or_default();
        let plain = question.client.is_none() && question.max_auth_age.is_none();
        prop_assert!(!plain || has_group(message), "{question:?} of {message:02x?}");
    }
    Ok(())
}

/// Whether some byte may begin a group.
fn has_group(message: &[u8]) -> bool {
    message.iter().any(|byte| byte & 7 == 3)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_of_a_message_is_what_prost_reads(message in any_message()) {
        check(&message)?;
    }

    #[test]
    fn what_is_read_of_rubbish_is_what_prost_reads(message in vec(any::<u8>(), 0..24)) {
        check(&message)?;
    }

    #[test]
    fn a_body_is_one_message_where_its_head_says_so(body in vec(any::<u8>(), 0..12), len in 0_u8..12) {
        let framed = [&[0, 0, 0, 0, len], &body[..]].concat();
        let whole = (usize::from(len) == body.len()).then_some(&body[..]);
        prop_assert_eq!(question::only_message(&framed, 12), whole);
        prop_assert_eq!(question::only_message(&framed, body.len().saturating_sub(1)), whole.filter(|m| m.is_empty()));
        for cut in 0..5 {
            prop_assert_eq!(question::only_message(&framed[..cut], 12), None);
        }
        for flag in 1..=u8::MAX {
            let flagged = [&[flag], &framed[1..]].concat();
            prop_assert_eq!(question::only_message(&flagged, 12), None);
        }
    }
}

#[test]
fn a_plain_question_is_read_in_place() {
    let request = ValidateSessionRequest { session_token: "lk1_x".to_owned(), ..Default::default() };
    let message = request.encode_to_vec();
    assert_eq!(question::token_of(&message), Ok(Some("lk1_x")));
    assert_eq!(question::token_of(&[]), Ok(None));
    let asked = StreamValidateSessionsRequest { tag: u64::MAX, question: Some(request) }.encode_to_vec();
    assert_eq!(question::tagged(&asked), Ok(Tagged { tag: u64::MAX, token: "lk1_x" }));
    // Several of them are one: a later one without a token leaves that of the earlier.
    let merged = [asked, vec![0x12, 0]].concat();
    assert_eq!(question::tagged(&merged), Ok(Tagged { tag: u64::MAX, token: "lk1_x" }));
}
