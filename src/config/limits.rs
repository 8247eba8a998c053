//! The bounds of every number, and the rules that span several settings. Nothing is unlimited.

use std::time::Duration;

use super::Config;

/// Ten years of 365 days.
const TEN_YEARS_S: u64 = 10 * 365 * 86_400;
const ATTEMPTS_MAX: u64 = 1_000_000;
/// Last uses are written once a minute; a shorter limit would end sessions that are in use on other nodes.
const IDLE_LIMIT_MIN_S: u64 = 120;
/// The least time between two writes of one session's last use.
pub const USE_WRITE_INTERVAL: Duration = Duration::from_mins(1);
/// How long the writing of last uses may take.
const USES_WRITING_MS: u64 = 2_000;

/// The minimum sets of the OWASP Password Storage Cheat Sheet: memory in KiB and iterations.
const ARGON2_FLOOR: [(u32, u32); 5] = [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];
/// Memory in KiB times iterations; bounds the time that one hash may take.
const ARGON2_WORK_KIB_MAX: u64 = 1_048_576;

/// Key, least and most of every number.
const RANGES: &[(&str, u64, u64)] = &[
    ("database.connections_max", 1, 1_000),
    ("database.connect_timeout_ms", 0, 600_000),
    ("database.acquire_timeout_ms", 10, 60_000),
    ("database.statement_timeout_ms", 10, 600_000),
    ("database.lock_timeout_ms", 10, 600_000),
    ("session.lifetime_s", 1, TEN_YEARS_S),
    ("session.idle_limit_s", IDLE_LIMIT_MIN_S, TEN_YEARS_S),
    ("session.remembered_lifetime_s", 1, TEN_YEARS_S),
    ("session.remembered_idle_limit_s", IDLE_LIMIT_MIN_S, TEN_YEARS_S),
    ("session.fresh_window_s", 1, TEN_YEARS_S),
    ("session.per_user_max", 1, 10_000),
    ("password.code_points_min", 8, 1_024),
    ("password.code_points_max", 64, 1_024),
    ("password.argon2_memory_kib", 7_168, 262_144),
    ("password.argon2_iterations", 1, 64),
    ("password.argon2_parallelism", 1, 16),
    ("password.hash_threads", 0, 1_024),
    ("password.hash_queue_len_max", 1, 100_000),
    ("throttle.login_per_minute", 1, ATTEMPTS_MAX),
    ("throttle.login_burst", 1, ATTEMPTS_MAX),
    ("throttle.address_per_minute", 1, ATTEMPTS_MAX),
    ("throttle.address_burst", 1, ATTEMPTS_MAX),
    ("throttle.global_per_minute", 1, ATTEMPTS_MAX),
    ("throttle.global_burst", 1, ATTEMPTS_MAX),
    ("throttle.keys_max", 1, 10_000_000),
    ("grpc.connections_max", 1, 1_000_000),
    ("grpc.connections_per_address_max", 1, 1_000_000),
    ("grpc.streams_per_connection_max", 1, 10_000),
    ("grpc.message_bytes_max", 1_024, 4_194_304),
    ("grpc.header_list_bytes_max", 1_024, 1_048_576),
    ("grpc.first_byte_timeout_ms", 100, 600_000),
    ("grpc.keepalive_interval_ms", 1_000, 3_600_000),
    ("grpc.keepalive_timeout_ms", 100, 600_000),
    ("shutdown.lame_duck_ms", 0, 300_000),
    ("shutdown.drain_ms", 0, 600_000),
    ("fleet.sessions_in_memory_max", 1, 100_000_000),
    ("fleet.dead_in_memory_max", 1, 100_000_000),
    ("fleet.fills_waiting_max", 1, 1_000_000),
    ("maintenance.poll_ms", 0, 2_000),
    ("maintenance.last_seen_flush_ms", 10, 60_000),
    ("maintenance.purge_interval_s", 1, 86_400),
    ("maintenance.purge_batch", 1, 100_000),
    ("maintenance.log_retain_s", 86_400, TEN_YEARS_S),
    ("maintenance.retain_s", 3_600, TEN_YEARS_S),
];

/// The bounds of a number.
pub(super) fn range(key: &str) -> Option<(u64, u64)> {
    RANGES.iter().find(|(name, ..)| *name == key).map(|(_, min, max)| (*min, *max))
}

/// How long it takes at most until a use of a session that is due is written down, where that is done so often.
pub fn uses_lead(last_seen_flush_ms: u64) -> Duration {
    Duration::from_millis(last_seen_flush_ms.saturating_add(USES_WRITING_MS))
}

/// The shortest idle limit under which a session that is used all the time is never about to seem idle to other nodes: the
/// last use that they know of is a minute old, and what it takes to write the next one, twice.
fn idle_limit_min_s(last_seen_flush_ms: u64) -> u64 {
    let least = USE_WRITE_INTERVAL.saturating_add(uses_lead(last_seen_flush_ms).saturating_mul(2));
    u64::try_from(least.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// Settings that are fine one by one and not together: the key to mend, and what is wrong.
pub fn contradictions(config: &Config) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if config.password.code_points_min > config.password.code_points_max {
        let max = config.password.code_points_max;
        found.push((
            "password.code_points_min",
            format!("must not be above password.code_points_max, which is {max}"),
        ));
    }
    let (memory, passes) = (config.password.argon2_memory_kib, config.password.argon2_iterations);
    if !ARGON2_FLOOR.iter().any(|&(least, times)| memory >= least && passes >= times) {
        let sets = ARGON2_FLOOR.map(|(least, times)| format!("{least}/{times}")).join(", ");
        let what =
            format!("and password.argon2_iterations must meet one of the minimum sets of OWASP: {sets}");
        found.push(("password.argon2_memory_kib", what));
    }
    if u64::from(memory) * u64::from(passes) > ARGON2_WORK_KIB_MAX {
        let what = format!("times password.argon2_iterations must be at most {ARGON2_WORK_KIB_MAX}");
        found.push(("password.argon2_memory_kib", what));
    }
    let flush_ms = config.maintenance.last_seen_flush_ms;
    let least = idle_limit_min_s(flush_ms);
    let session = &config.session;
    for (key, limit) in [
        ("session.idle_limit_s", session.idle_limit_s),
        ("session.remembered_idle_limit_s", session.remembered_idle_limit_s),
    ] {
        if limit < least {
            found.push((
                key,
                format!(
                    "must be at least {least} where maintenance.last_seen_flush_ms is {flush_ms}: a shorter one would end \
                     sessions that are in use on other nodes"
                ),
            ));
        }
    }
    if !config.listen.ip().is_loopback() && !config.insecure {
        let what = "can be reached from other machines, and is served without TLS: give a loopback address, or set \
                    insecure = true where something else protects the traffic";
        found.push(("listen", what.to_owned()));
    }
    if config.token_key_file.is_some() && config.token_keys.is_some() {
        let what = "and LATCHKEY_TOKEN_KEYS are both given: give one of them";
        found.push(("token_key_file", what.to_owned()));
    }
    let keys = || config.callers.iter().map(|(name, caller)| (name, caller.key_sha256));
    for (at, (name, key)) in keys().enumerate() {
        if let Some((other, _)) = keys().take(at).find(|(_, other)| *other == key) {
            found.push(("callers", format!("{other} and {name} have the same key: give each its own")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, fields};
    use super::*;

    #[test]
    fn every_bound_belongs_to_a_number_whose_default_lies_within() {
        let fields = fields();
        for (key, min, max) in RANGES {
            let field = fields.iter().find(|field| field.key == *key).unwrap_or_else(|| panic!("no {key}"));
            let default = field.default.as_ref().and_then(toml::Value::as_integer).expect("a number");
            let default = u64::try_from(default).expect("not negative");
            assert!((*min..=*max).contains(&default), "{key}");
        }
        let numbers = fields.iter().filter(|field| matches!(field.kind, Kind::Integer { .. }));
        assert_eq!(numbers.count(), RANGES.len());
    }

    #[test]
    fn the_defaults_contradict_nothing() {
        assert_eq!(contradictions(&Config::default()), []);
    }

    #[test]
    fn an_idle_limit_leaves_time_to_write_uses_down() {
        let found = |idle_limit_s, last_seen_flush_ms| {
            let mut config = Config::default();
            config.session.idle_limit_s = idle_limit_s;
            config.maintenance.last_seen_flush_ms = last_seen_flush_ms;
            contradictions(&config).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(found(120, 28_000), [] as [&str; 0]);
        assert_eq!(found(120, 28_001), ["session.idle_limit_s"]);
        assert_eq!(found(184, 60_000), [] as [&str; 0]);
        assert_eq!(found(183, 60_000), ["session.idle_limit_s"]);
    }

    #[test]
    fn plaintext_reaches_other_machines_only_when_told_to() {
        let mut config = Config { listen: "0.0.0.0:1".parse().expect("an address"), ..Config::default() };
        assert_eq!(contradictions(&config).first().map(|(key, _)| *key), Some("listen"));
        config.insecure = true;
        assert_eq!(contradictions(&config), []);
        config = Config { listen: "[::1]:1".parse().expect("an address"), ..Config::default() };
        assert_eq!(contradictions(&config), []);
    }
}
