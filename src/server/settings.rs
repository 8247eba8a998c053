//! Turns the configuration into each module's own policy and limits.

use std::time::Duration;

use super::StartError;
use crate::config::{self, Binding as Configured, Config};
use crate::domain::client::Binding;
use crate::domain::password::PasswordPolicy;
use crate::domain::session::SessionPolicy;
use crate::fleet::FleetPolicy;
use crate::grpc::callers::{Caller, Callers};
use crate::grpc::listener::WireLimits;
use crate::live::keeper::MemoryLimits;
use crate::live::uses::WRITE_INTERVAL;
use crate::passwords::cost::Argon2Params;
use crate::passwords::pool::PoolLimits;
use crate::passwords::throttle::{Budget, ThrottlePolicy};
use crate::store::coordination::NODE_NAME_BYTES_MAX;

/// Changes that memory remembers, so that a read which they overtook is told; each takes about 100 bytes.
const CHANGES_MAX: usize = 65_536;

/// How often the log is read where the database tells that there is something to read, and where it does not.
const POLL_WITH_HINTS: Duration = Duration::from_millis(500);
const POLL_WITHOUT_HINTS: Duration = Duration::from_millis(100);

/// Uses of sessions that wait to be written down; each takes 40 bytes.
const USES_WAITING_MAX: usize = 65_536;

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(super) fn session_policy(config: &Config) -> SessionPolicy {
    let session = &config.session;
    SessionPolicy {
        lifetime: Duration::from_secs(session.lifetime_s),
        idle_limit: Duration::from_secs(session.idle_limit_s),
        remembered_lifetime: Duration::from_secs(session.remembered_lifetime_s),
        remembered_idle_limit: Duration::from_secs(session.remembered_idle_limit_s),
        fresh_window: Duration::from_secs(session.fresh_window_s),
        per_user_max: session.per_user_max,
        binding: match session.binding {
            Configured::None => Binding::None,
            Configured::Basic => Binding::Basic,
            Configured::Strong => Binding::Strong,
        },
    }
}

pub(super) fn password_policy(config: &Config) -> Result<PasswordPolicy, StartError> {
    let password = &config.password;
    PasswordPolicy::new(password.code_points_min, password.code_points_max)
        .map_err(|why| StartError::BadSetting { setting: "password.code_points_*", why })
}

pub(super) fn argon2_params(config: &Config) -> Result<Argon2Params, StartError> {
    let password = &config.password;
    Argon2Params::new(password.argon2_memory_kib, password.argon2_iterations, password.argon2_parallelism)
        .map_err(|why| StartError::BadSetting { setting: "password.argon2_*", why })
}

pub(super) fn pool_limits(config: &Config) -> PoolLimits {
    let threads = match config.password.hash_threads {
        0 => PoolLimits::default_threads(),
        threads => count(threads),
    };
    PoolLimits { threads, queue_len_max: count(config.password.hash_queue_len_max) }
}

pub(super) fn throttle_policy(config: &Config) -> Result<Option<ThrottlePolicy>, StartError> {
    let throttle = &config.throttle;
    if !throttle.enabled {
        return Ok(None);
    }
    let budget = |setting, per_minute, burst| {
        Budget::new(per_minute, burst).map_err(|why| StartError::BadSetting { setting, why })
    };
    Ok(Some(ThrottlePolicy {
        per_login: budget("throttle.login_*", throttle.login_per_minute, throttle.login_burst)?,
        per_address: budget("throttle.address_*", throttle.address_per_minute, throttle.address_burst)?,
        global: budget("throttle.global_*", throttle.global_per_minute, throttle.global_burst)?,
        keys_max: count(throttle.keys_max),
    }))
}

const _: () = assert!(config::USE_WRITE_INTERVAL.as_millis() == WRITE_INTERVAL.as_millis());

pub(super) fn fleet_policy(config: &Config) -> FleetPolicy {
    let fleet = &config.fleet;
    let sessions_max = count(fleet.sessions_in_memory_max);
    FleetPolicy {
        name: node_name(config),
        poll: poll_interval(config),
        memory: MemoryLimits {
            sessions_max,
            dead_max: count(fleet.dead_in_memory_max),
            changes_max: CHANGES_MAX,
        },
        fills_waiting_max: count(fleet.fills_waiting_max),
        uses_waiting_max: USES_WAITING_MAX,
        uses_lead: config::uses_lead(config.maintenance.last_seen_flush_ms),
    }
}

/// The host, and the address that was asked for.
fn node_name(config: &Config) -> String {
    let host = rustix::system::uname();
    let mut name = format!("{}/{}", host.nodename().to_string_lossy(), config.listen);
    while name.len() > NODE_NAME_BYTES_MAX {
        name.pop();
    }
    name
}

fn poll_interval(config: &Config) -> Duration {
    match config.maintenance.poll_ms {
        0 if config.database_url.is_mariadb() => POLL_WITHOUT_HINTS,
        0 => POLL_WITH_HINTS,
        millis => Duration::from_millis(millis),
    }
}

pub(super) fn wire_limits(config: &Config) -> WireLimits {
    let grpc = &config.grpc;
    WireLimits {
        connections_max: count(grpc.connections_max),
        connections_per_address_max: count(grpc.connections_per_address_max),
        streams_per_connection_max: grpc.streams_per_connection_max,
        header_list_bytes_max: grpc.header_list_bytes_max,
        first_byte_timeout: Duration::from_millis(grpc.first_byte_timeout_ms),
        keepalive_interval: Duration::from_millis(grpc.keepalive_interval_ms),
        keepalive_timeout: Duration::from_millis(grpc.keepalive_timeout_ms),
    }
}

pub(super) fn callers(config: &Config) -> Callers {
    let caller = |(name, caller): (&String, &config::Caller)| Caller {
        name: name.clone(),
        key_sha256: caller.key_sha256.0,
        allow: caller.allow.clone(),
    };
    Callers::new(config.callers.iter().map(caller).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::contradictions;

    #[test]
    fn the_configuration_and_the_hashing_agree_on_what_is_too_cheap_and_too_dear() {
        let mut agreed = [0, 0];
        for memory in [7_168, 9_215, 9_216, 12_288, 19_455, 19_456, 47_104, 131_072, 262_144] {
            for iterations in [1, 2, 3, 4, 5, 8, 9, 64] {
                let mut config = Config::default();
                config.password.argon2_memory_kib = memory;
                config.password.argon2_iterations = iterations;
                let refused = argon2_params(&config).is_err();
                assert_eq!(
                    !contradictions(&config).is_empty(),
                    refused,
                    "{memory} KiB, {iterations} iterations"
                );
                agreed[usize::from(refused)] += 1;
            }
        }
        assert!(agreed.iter().all(|count| *count > 5), "both kinds were met: {agreed:?}");
    }
}
