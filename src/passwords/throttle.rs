//! The guessing budget: how many attempts a login, a client network and everybody together have.
//!
//! An attempt is paid before its password is hashed, and success gives nothing back, so a right password cannot be used
//! to buy wrong ones. The budgets live in the memory of one node and are bounded there. No login name is kept: they are
//! counted under a MAC whose key ends with the process. It never looks at sessions that are there already.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::domain::client::Network;
use crate::domain::invalid::Invalid;
use crate::domain::time::BootTime;
use crate::host::{Clock, Entropy, random};

/// The largest rate and the largest burst of a budget, in attempts.
pub const ATTEMPTS_MAX: u32 = 1_000_000;

/// So many attempts at once, and so many more per minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    per_minute: NonZeroU32,
    burst: NonZeroU32,
}

impl Budget {
    /// A budget of `per_minute` attempts a minute, of which `burst` may be saved up; both 1 to [`ATTEMPTS_MAX`].
    pub fn new(per_minute: u32, burst: u32) -> Result<Self, Invalid> {
        let number = |count| NonZeroU32::new(count).filter(|_| count <= ATTEMPTS_MAX);
        let refused = || Invalid::new(format!("must be 1 to {ATTEMPTS_MAX} attempts"));
        Ok(Self {
            per_minute: number(per_minute).ok_or_else(refused)?,
            burst: number(burst).ok_or_else(refused)?,
        })
    }

    const fn of(per_minute: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { per_minute, burst }
    }

    const fn quota(self) -> Quota {
        Quota::per_minute(self.per_minute).allow_burst(self.burst)
    }
}

/// Who has which budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThrottlePolicy {
    /// Attempts at one login name, from wherever.
    pub per_login: Budget,
    /// Attempts from one client network (/24 or /64), at whatever login name.
    pub per_address: Budget,
    /// All attempts on this node together.
    pub global: Budget,
    /// Login names, and as many networks, whose budget is remembered; each takes about 50 bytes.
    pub keys_max: usize,
}

impl Default for ThrottlePolicy {
    /// 10 a minute and 20 at once per login, 60 and 120 per network, 6000 and 600 in all; 100 000 keys (10 MB).
    fn default() -> Self {
        const fn count(attempts: u32) -> NonZeroU32 {
            NonZeroU32::new(attempts).expect("is not zero")
        }
        Self {
            per_login: Budget::of(count(10), count(20)),
            per_address: Budget::of(count(60), count(120)),
            global: Budget::of(count(6_000), count(600)),
            keys_max: 100_000,
        }
    }
}

/// The budget is spent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Throttled {
    /// When there is something in it again.
    pub retry_after: Duration,
}

/// Counts attempts against the budgets.
pub struct Throttle {
    login_key: Hmac<Sha256>,
    per_login: Keyed<[u8; 16]>,
    per_address: Keyed<Network>,
    global: Limiter<NotKeyed, InMemoryState>,
}

type Limiter<K, S> = RateLimiter<K, S, HostClock, NoOpMiddleware<Nanos>>;
type Keyed<K> = Limiter<K, BoundedStates<K>>;

impl Throttle {
    /// Starts with full budgets.
    pub fn new(policy: ThrottlePolicy, clock: Arc<dyn Clock>, entropy: &dyn Entropy) -> Self {
        let clock = HostClock(clock);
        let secret: [u8; 32] = random(entropy);
        Self {
            login_key: Hmac::new_from_slice(&secret).expect("HMAC takes a key of any length"),
            per_login: keyed(policy.per_login, policy.keys_max, clock.clone()),
            per_address: keyed(policy.per_address, policy.keys_max, clock.clone()),
            global: RateLimiter::direct_with_clock(policy.global.quota(), clock),
        }
    }

    /// Pays for one attempt at the login of this key, from this address if it is known. To be called before hashing.
    ///
    /// The network pays first: one that has nothing left can spend no more of a login's budget. What was paid before a
    /// later budget refused stays paid.
    pub fn check(&self, login_key: &str, ip: Option<IpAddr>) -> Result<(), Throttled> {
        if let Some(ip) = ip {
            wait(&self.per_address, self.per_address.check_key(&Network::of(ip)))?;
        }
        wait(&self.per_login, self.per_login.check_key(&self.blind(login_key)))?;
        wait(&self.global, self.global.check())
    }

    fn blind(&self, login_key: &str) -> [u8; 16] {
        let full = self.login_key.clone().chain_update(login_key).finalize().into_bytes();
        let mut half = [0; 16];
        half.copy_from_slice(&full[..16]);
        half
    }
}

fn keyed<K: Clone + Eq + Hash>(budget: Budget, keys_max: usize, clock: HostClock) -> Keyed<K> {
    RateLimiter::new(budget.quota(), BoundedStates::new(keys_max), clock)
}

fn wait<S: StateStore>(
    limiter: &Limiter<S::Key, S>,
    outcome: Result<(), governor::NotUntil<Nanos>>,
) -> Result<(), Throttled> {
    use governor::clock::Clock as _;
    outcome.map_err(|not| Throttled { retry_after: not.wait_time_from(limiter.clock().now()) })
}

/// The host's clock in the terms of the limiter.
#[derive(Clone)]
struct HostClock(Arc<dyn Clock>);

impl governor::clock::Clock for HostClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.boottime().since(BootTime::default()).into()
    }
}

/// The limiter's memory: for each key, when its budget will be full again. Keys beyond the bound push out those whose
/// budget is nearest to full: they lose least by being forgotten, and no flood of new names wipes out the one that is
/// being guessed at.
struct BoundedStates<K> {
    full_at: Mutex<HashMap<K, Nanos>>,
    keys_max: usize,
}

impl<K: Eq + Hash> BoundedStates<K> {
    fn new(keys_max: usize) -> Self {
        Self { full_at: Mutex::new(HashMap::new()), keys_max: keys_max.max(1) }
    }

    /// Forgets a quarter, so that the next time is far.
    fn shed(full_at: &mut HashMap<K, Nanos>) {
        let mut excess = full_at.len().div_ceil(4);
        let mut times: Vec<Nanos> = full_at.values().copied().collect();
        let (_, &mut threshold, _) = times.select_nth_unstable(excess - 1);
        full_at.retain(|_, full| {
            let stays = *full > threshold || excess == 0;
            excess -= usize::from(!stays);
            stays
        });
    }
}

impl<K: Clone + Eq + Hash> StateStore for BoundedStates<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let known = full_at.get(key).copied();
        let (outcome, full) = decide(known)?;
        if known.is_none() && full_at.len() >= self.keys_max {
            Self::shed(&mut full_at);
        }
        full_at.insert(key.clone(), full);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{ManualClock, SeededEntropy};

    fn budget(per_minute: u32, burst: u32) -> Budget {
        Budget::new(per_minute, burst).expect("a budget")
    }

    fn policy() -> ThrottlePolicy {
        let wide = budget(ATTEMPTS_MAX, ATTEMPTS_MAX);
        ThrottlePolicy { per_login: wide, per_address: wide, global: wide, keys_max: 100 }
    }

    fn throttle(policy: ThrottlePolicy) -> (Throttle, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        clock.advance(Duration::from_secs(1_000));
        let throttle = Throttle::new(policy, Arc::clone(&clock) as Arc<dyn Clock>, &SeededEntropy::new(1));
        (throttle, clock)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// How many attempts pass before one is refused.
    fn passed(mut attempt: impl FnMut() -> Result<(), Throttled>) -> usize {
        (0..10_000).take_while(|_| attempt().is_ok()).count()
    }

    #[test]
    fn a_login_has_its_burst_and_recovers_by_the_clock() {
        let (throttle, clock) = throttle(ThrottlePolicy { per_login: budget(10, 20), ..policy() });
        let ada = || throttle.check("ada", None);
        assert_eq!(passed(ada), 20);
        assert_eq!(ada(), Err(Throttled { retry_after: Duration::from_secs(6) }));
        assert_eq!(throttle.check("bob", None), Ok(()), "others are not affected");
        clock.advance(Duration::from_secs(6) - Duration::from_nanos(1));
        assert_eq!(ada(), Err(Throttled { retry_after: Duration::from_nanos(1) }));
        clock.advance(Duration::from_nanos(1));
        assert_eq!(passed(ada), 1);
        clock.advance(Duration::from_mins(1));
        assert_eq!(passed(ada), 10);
        clock.advance(Duration::from_hours(1));
        assert_eq!(passed(ada), 20, "no more than the burst is saved up");
    }

    #[test]
    fn addresses_are_counted_by_network_and_the_unknown_not_at_all() {
        let (throttle, _) = throttle(ThrottlePolicy { per_address: budget(60, 3), ..policy() });
        let from = |text| throttle.check("ada", Some(ip(text))).is_ok();
        assert!(from("192.0.2.1") && from("192.0.2.2") && from("::ffff:192.0.2.3"));
        assert!(!from("192.0.2.4"));
        assert!(from("192.0.3.4"));
        assert!(from("2001:db8::1") && from("2001:db8::2") && from("2001:db8::3"));
        assert!(!from("2001:db8::4"));
        assert!(from("2001:db8:0:1::4"));
        assert_eq!(passed(|| throttle.check("ada", None)), 10_000);
    }

    #[test]
    fn a_network_without_budget_spends_no_login_budget() {
        let (throttle, _) =
            throttle(ThrottlePolicy { per_login: budget(1, 5), per_address: budget(1, 2), ..policy() });
        assert_eq!(passed(|| throttle.check("ada", Some(ip("192.0.2.1")))), 2);
        for _ in 0..10 {
            assert!(throttle.check("ada", Some(ip("192.0.2.1"))).is_err());
        }
        assert_eq!(passed(|| throttle.check("ada", None)), 3);
    }

    #[test]
    fn everybody_together_has_a_budget() {
        let (throttle, clock) = throttle(ThrottlePolicy { global: budget(60, 30), ..policy() });
        let mut number = 0;
        let mut attempt = || {
            number += 1;
            throttle.check(&format!("user-{number}"), None)
        };
        assert_eq!(passed(&mut attempt), 30);
        clock.advance(Duration::from_secs(2));
        assert_eq!(passed(&mut attempt), 2);
    }

    #[test]
    fn a_flood_of_names_does_not_wipe_out_those_that_are_guessed_at() {
        let (throttle, clock) = throttle(ThrottlePolicy { per_login: budget(1, 5), ..policy() });
        let victims: Vec<String> = (0..20).map(|number| format!("victim-{number}")).collect();
        for victim in &victims {
            assert_eq!(passed(|| throttle.check(victim, None)), 5);
        }
        for number in 0..1_000 {
            clock.advance(Duration::from_millis(1));
            assert!(throttle.check(&format!("spray-{number}"), None).is_ok());
        }
        for victim in &victims {
            assert!(throttle.check(victim, None).is_err(), "{victim}");
        }
    }

    #[test]
    fn memory_never_grows_beyond_its_bound() {
        let states = BoundedStates::new(10);
        for number in 0..1_000_u64 {
            let full = Nanos::from(number % 7);
            let outcome: Result<(), ()> = states.measure_and_replace(&number, |_| Ok(((), full)));
            assert_eq!(outcome, Ok(()));
            let held = states.full_at.lock().expect("no panic").len();
            assert!(held <= 10 && (number < 9 || held >= 7), "{held} after {number}");
        }
    }

    #[test]
    fn login_names_are_not_kept() {
        let (one, _) = throttle(policy());
        let other = Throttle::new(policy(), Arc::new(ManualClock::default()), &SeededEntropy::new(2));
        assert_eq!(one.blind("ada"), one.blind("ada"));
        assert_ne!(one.blind("ada"), one.blind("bob"));
        assert_ne!(one.blind("ada"), other.blind("ada"), "the key is of one process");
    }

    #[test]
    fn budgets_are_within_bounds() {
        assert!(Budget::new(0, 1).is_err() && Budget::new(1, 0).is_err());
        assert!(Budget::new(ATTEMPTS_MAX + 1, 1).is_err() && Budget::new(1, ATTEMPTS_MAX + 1).is_err());
        let (throttle, clock) =
            throttle(ThrottlePolicy { per_login: budget(1, ATTEMPTS_MAX), ..ThrottlePolicy::default() });
        clock.advance(Duration::from_hours(100 * 365 * 24));
        assert_eq!(throttle.check("ada", None), Ok(()), "the slowest budget overflows nothing");
    }
}
