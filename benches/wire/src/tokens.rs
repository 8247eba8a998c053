//! What checking a token without asking anybody costs, which cannot be revoked: JWT by HS256 and by EdDSA.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use rustix::time::{ClockId, clock_gettime};

use crate::Failure;
use crate::report::{Report, median};

const CHECKS: u32 = 20_000;
const ROUNDS: usize = 9;

#[derive(serde::Serialize, serde::Deserialize)]
struct Claims {
    sub: String,
    sid: String,
    roles: Vec<String>,
    exp: u64,
}

/// An Ed25519 key made for this (PKCS #8, then its public half).
const ED25519_SEED: [u8; 32] = [7; 32];

pub fn measure(report: &mut Report) -> Result<(), Failure> {
    let secret = [42; 32];
    let hmac = (EncodingKey::from_secret(&secret), DecodingKey::from_secret(&secret));
    report.add(
        "for comparison",
        "JWT by HS256, jsonwebtoken, in process",
        &check(Algorithm::HS256, &hmac)?,
        "-",
    );
    // RFC 8410: the seed behind a fixed head is the private key in PKCS #8.
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let private = [head.as_slice(), &ED25519_SEED].concat();
    let public = ed25519_dalek::SigningKey::from_bytes(&ED25519_SEED).verifying_key();
    let eddsa = (EncodingKey::from_ed_der(&private), DecodingKey::from_ed_der(public.as_bytes()));
    report.add(
        "for comparison",
        "JWT by EdDSA, jsonwebtoken, in process",
        &check(Algorithm::EdDSA, &eddsa)?,
        "-",
    );
    Ok(())
}

fn check(algorithm: Algorithm, (sign, verify): &(EncodingKey, DecodingKey)) -> Result<String, Failure> {
    let claims = Claims {
        sub: "0199c3a0-7a6b-7c3e-9b1f-2f6f3c1d5e77".to_owned(),
        sid: "0199c3a0-7a6b-7c3e-9b1f-2f6f3c1d5e78".to_owned(),
        roles: vec!["admin".to_owned(), "billing:read".to_owned()],
        exp: 4_000_000_000,
    };
    let token = encode(&Header::new(algorithm), &claims, sign)?;
    let rules = Validation::new(algorithm);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let begun = thread_nanos();
        for _ in 0..CHECKS {
            let told = decode::<Claims>(&token, verify, &rules)?;
            std::hint::black_box(told.claims.sub.len());
        }
        rounds.push((thread_nanos() - begun) / f64::from(CHECKS));
    }
    Ok(format!("{:.2} us each", median(rounds) / 1e3))
}

fn thread_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
