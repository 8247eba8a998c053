//! Which calling service may call what. Says nothing about the person, and is never mistaken for it.
//!
//! A caller shows its key as metadata `authorization: Bearer KEY`; only the SHA-256 of the key is configured. Once one
//! caller is configured, what no caller is allowed is denied. Health checks stay open: probes have no key.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::domain::refusal::Refusal;

const HEALTH: &str = "/grpc.health.v1.Health/";

/// One service that may call.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its name in the configuration, for the log.
    pub name: String,
    /// The SHA-256 of its key.
    pub key_sha256: [u8; 32],
    /// What it may call: `package.Service/Method` or `package.Service/*`.
    pub allow: Vec<String>,
}

/// The table of callers; empty means that everybody may call everything.
#[derive(Clone, Debug, Default)]
pub struct Callers(Vec<Caller>);

impl Callers {
    /// A table of the given callers.
    pub fn new(callers: Vec<Caller>) -> Self {
        Self(callers)
    }

    /// Whether a request for `path` with these headers may go on.
    pub fn admit(&self, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.0.is_empty() || path.starts_with(HEALTH) {
            return Ok(());
        }
        let caller = self.find(headers).ok_or(Refusal::CallerUnauthenticated)?;
        if caller.allow.iter().any(|pattern| allows(pattern, path)) {
            return Ok(());
        }
        tracing::info!(caller = caller.name, path, "a caller asked for what it is not allowed");
        Err(Refusal::CallerNotAllowed)
    }

    fn find(&self, headers: &HeaderMap) -> Option<&Caller> {
        let shown = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, key) = shown.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(key.trim()).into();
        self.0.iter().find(|caller| caller.key_sha256.ct_eq(&digest).into())
    }
}

fn allows(pattern: &str, path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    match pattern.strip_suffix('*') {
        Some(service) => service.ends_with('/') && path.starts_with(service),
        None => pattern == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALIDATE: &str = "/latchkey.v1.AuthService/ValidateSession";
    const LOGIN: &str = "/latchkey.v1.AuthService/Login";

    fn callers() -> Callers {
        let caller = |name: &str, key: &str, allow: &[&str]| Caller {
            name: name.to_owned(),
            key_sha256: Sha256::digest(key).into(),
            allow: allow.iter().map(|&one| one.to_owned()).collect(),
        };
        Callers::new(vec![
            caller("shop", "shop-key", &["latchkey.v1.AuthService/ValidateSession"]),
            caller("web", "web-key", &["latchkey.v1.AuthService/*"]),
            caller("broken", "broken-key", &["*"]),
        ])
    }

    fn admit(path: &str, authorization: Option<&str>) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().expect("a header"));
        }
        callers().admit(path, &headers)
    }

    #[test]
    fn a_caller_may_call_what_the_table_says() {
        assert_eq!(admit(VALIDATE, Some("Bearer shop-key")), Ok(()));
        assert_eq!(admit(LOGIN, Some("Bearer shop-key")), Err(Refusal::CallerNotAllowed));
        assert_eq!(admit(LOGIN, Some("bearer web-key")), Ok(()));
        assert_eq!(
            admit("/latchkey.v1.AuthServiceX/Login", Some("Bearer web-key")),
            Err(Refusal::CallerNotAllowed)
        );
        assert_eq!(
            admit("/latchkey.admin.v1.UserService/GetUser", Some("Bearer web-key")),
            Err(Refusal::CallerNotAllowed)
        );
        assert_eq!(
            admit(LOGIN, Some("Bearer broken-key")),
            Err(Refusal::CallerNotAllowed),
            "a bare star matches nothing"
        );
    }

    #[test]
    fn who_shows_no_known_key_is_nobody() {
        for shown in [None, Some("Bearer other"), Some("shop-key"), Some("Basic shop-key"), Some("Bearer ")] {
            assert_eq!(admit(VALIDATE, shown), Err(Refusal::CallerUnauthenticated), "{shown:?}");
        }
    }

    #[test]
    fn health_is_open_and_without_callers_all_is() {
        assert_eq!(admit("/grpc.health.v1.Health/Check", None), Ok(()));
        assert_eq!(Callers::default().admit(LOGIN, &HeaderMap::new()), Ok(()));
    }
}
