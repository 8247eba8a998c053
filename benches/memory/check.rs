//! A token is checked in process: from its text to an answer about its session, against what no check can do without:
//! one HMAC-SHA-256 of the same bytes, its key prepared, and one look-up in `std::collections::HashMap`.

use std::cell::Cell;
use std::collections::HashMap;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use latchkey::domain::id::{Epoch, Position};
use latchkey::domain::time::{BootTime, UnixMillis};
use latchkey::domain::token::{KeyRing, PREFIX, TEXT_LEN, TokenDigest};
use latchkey::grpc::wire::encode_user;
use latchkey::host::{Clock as _, SystemClock};
use latchkey::live::keeper::{Fill, Filled, Keeper, MemoryLimits};
use latchkey::live::lease::Lease;
use latchkey::live::table::{GoodSession, LookUp, Table};
use sha2::Sha256;

use super::chain::{BYTES_READ, Chain};
use super::numbers;
use super::resident::resident_bytes;
use super::stopwatch::{best_of_rounds, nanos_each};
use super::workload::{self, BEGIN};

/// Checks of one round; and sessions that a token is made for, every n-th where there are more.
const CHECKS: usize = 200_000;
const TOKENS_MAX: u64 = 1_000_000;
/// How often `spin` checks all tokens.
const SPINS: usize = 20;
/// Sessions that end once memory is full.
const ENDED: u64 = 64;
const PAGE: usize = 1_000;
const CONTEXT: &[u8] = b"latchkey/session/v1";
const SIGNED_LEN: usize = 37;
/// What stands in the yardstick's map for a session.
type Value = [u64; 12];

/// Measures with each number of sessions, and prints the table.
pub fn run(sizes: &[u64]) {
    println!(
        "\n| sessions | check, ns | HMAC + std look-up, ns | ratio | HMAC alone, ns | to the first row \
         | beyond the first row, ns | three waits for memory, ns | bytes a session |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut first = None;
    for size in sizes {
        let row = measure(*size);
        let first = *first.get_or_insert(row.check);
        println!(
            "| {size} | {:.0} | {:.0} | {:.2} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} |",
            row.check,
            row.yardstick,
            row.check / row.yardstick,
            row.hmac,
            row.check / first,
            row.check - first,
            row.waits,
            bytes_each(*size),
        );
    }
}

/// Only takes sessions in, and prints by how many bytes the process grew.
pub fn held(size: u64) {
    println!("{}", Memory::of(size).grown);
}

/// What a session takes in a process that does nothing else.
fn bytes_each(size: u64) -> f64 {
    let this = std::env::current_exe().expect("it runs");
    let told = Command::new(this).args(["held", &size.to_string()]).output().expect("it runs once more");
    let grown = String::from_utf8_lossy(&told.stdout).trim().parse::<f64>().expect("a number");
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let size = size as f64;
    grown / size
}

/// Only checks tokens.
pub fn spin(size: u64) {
    let memory = Memory::of(size);
    let good: usize = (0..SPINS).map(|_| memory.check_all()).sum();
    println!("{good} of {} were good", SPINS * CHECKS);
}

struct Row {
    check: f64,
    yardstick: f64,
    hmac: f64,
    waits: f64,
}

fn measure(size: u64) -> Row {
    let memory = Memory::of(size);
    let mac = Hmac::<Sha256>::new_from_slice(&[7; 32]).expect("any length is a key");
    let signed: Vec<_> = memory.texts().map(signed_part).collect();
    let mut std_map: HashMap<TokenDigest, Value> = HashMap::new();
    for number in 0..size {
        let digest = digest(&memory.ring, number, memory.step);
        std_map.insert(digest, [number; 12]);
    }
    let mut chains = BYTES_READ.map(|each| Chain::of(each * usize::try_from(size).expect("fits")));
    // What memory saw for the first time it queues to be written down; that is not repeated.
    assert_eq!(memory.check_all(), CHECKS, "all are good");
    let best = best_of_rounds(&mut [
        &mut || nanos_each(CHECKS, || assert_eq!(memory.check_all(), CHECKS)),
        &mut || nanos_each(CHECKS, || hmac_and_look_up(&signed, &mac, |digest| std_map.get(digest))),
        &mut || {
            nanos_each(CHECKS, || {
                for signed in &signed {
                    black_box(mac_of(&mac, signed));
                }
            })
        },
        &mut || nanos_each(CHECKS, || chains.iter_mut().for_each(|chain| chain.follow(CHECKS))),
    ]);
    Row { check: best[0], yardstick: best[1], hmac: best[2], waits: best[3] }
}

fn hmac_and_look_up<'m>(
    signed: &[[u8; SIGNED_LEN]],
    mac: &Hmac<Sha256>,
    get: impl Fn(&TokenDigest) -> Option<&'m Value>,
) {
    let is_there = |signed| get(&mac_of(mac, signed)).is_some_and(|value| value[3] < u64::MAX);
    assert_eq!(signed.iter().filter(|signed| is_there(*signed)).count(), CHECKS);
}

fn mac_of(mac: &Hmac<Sha256>, signed: &[u8; SIGNED_LEN]) -> TokenDigest {
    let full = mac.clone().chain_update(CONTEXT).chain_update(signed).finalize().into_bytes();
    let mut digest = [0; 16];
    digest.copy_from_slice(&full[16..]);
    TokenDigest(digest)
}

fn signed_part(token: &str) -> [u8; SIGNED_LEN] {
    let raw = URL_SAFE_NO_PAD.decode(&token[PREFIX.len()..]).expect("a token");
    *raw.first_chunk().expect("longer than what is signed")
}

/// Memory as a node has it, filled by its keeper.
struct Memory {
    ring: KeyRing,
    table: Arc<Table>,
    lease: Lease,
    /// The keeper's own books are part of what a session costs.
    _keeper: Keeper,
    /// Every how many sessions there is a token.
    step: u64,
    /// The tokens to check, of sessions in random order, one behind the other: a caller's text is in the cache.
    tokens: String,
    booted: UnixMillis,
    /// By how many bytes the process grew.
    grown: i64,
}

impl Memory {
    fn of(size: u64) -> Self {
        let ring = workload::ring();
        let step = size.div_ceil(TOKENS_MAX);
        // The queue of uses has a size of its own, whatever is in memory.
        let table = Table::new(2 * CHECKS);
        let limit = usize::try_from(size).expect("fits");
        let limits = MemoryLimits { sessions_max: limit + 100, dead_max: 100_000, changes_max: 10_000 };
        let before = resident_bytes();
        let mut keeper = Keeper::new(Arc::clone(&table), limits).encoding(encode_user);
        keeper.begin_at(Position::ZERO);
        let mut number = 0;
        while number < size {
            let until = size.min(number + PAGE as u64);
            keeper.fill(page(&ring, number..until, step), BEGIN);
            number = until;
        }
        // The map gives its former tables back with what else is let go of: a few sessions end, as they always do.
        end_some(&mut keeper, size);
        let grown = resident_bytes() - before;
        let order = numbers::in_random_order(size.div_ceil(step), CHECKS);
        let mut tokens = String::with_capacity(CHECKS * TEXT_LEN);
        order.for_each(|at| tokens.push_str(workload::token(&ring, at * step).0.expose()));
        let here = SystemClock.boottime().as_nanos() / 1_000_000;
        let booted = BEGIN.minus(Duration::from_millis(here));
        let lease = Lease::default();
        lease.publish(BootTime::from_nanos(u64::MAX));
        assert_eq!(keeper.holding().sessions, limit, "all sessions were taken in");
        Self { ring, table, lease, _keeper: keeper, step, tokens, booted, grown }
    }

    fn check_all(&self) -> usize {
        self.texts().filter(|token| self.check(token)).count()
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        (0..CHECKS).map(|at| &self.tokens[at * TEXT_LEN..(at + 1) * TEXT_LEN])
    }

    /// What a node does between the text of a token and an answer, and nothing of what answers are made into.
    fn check(&self, text: &str) -> bool {
        let Ok(genuine) = self.ring.verify(text) else { return false };
        let time = Cell::new(BEGIN);
        let now = |here| {
            time.set(self.time_at(here));
            time.get()
        };
        let answer = |good: &GoodSession<'_>| {
            good.note_use(BEGIN);
            time.get() < genuine.expire_time && good.user_encoded().principal().len() > 3
        };
        let found = self.table.look_up(&self.lease, || SystemClock.boottime(), &genuine.digest, now, answer);
        found == Some(LookUp::Good(true))
    }

    fn time_at(&self, here: BootTime) -> UnixMillis {
        UnixMillis::from_millis(self.booted.as_millis().saturating_add_unsigned(here.as_nanos() / 1_000_000))
    }
}

/// Takes in a few sessions that were not there, and ends them.
fn end_some(keeper: &mut Keeper, size: u64) {
    let ended = (size..size + ENDED).map(workload::session);
    for (number, session) in (size..).zip(ended) {
        let (user, row) = (workload::user_of(number), workload::ended(&session));
        keeper.fill(fill(vec![Filled { digest: numbers::digest(number), session, user: Some(user) }]), BEGIN);
        keeper.apply(&row);
    }
    keeper.fill(fill(Vec::new()), BEGIN);
}

fn fill(found: Vec<Filled>) -> Fill {
    Fill { position: Position::ZERO, everyone_epoch: Epoch::FIRST, asked: Vec::new(), found }
}

fn page(ring: &KeyRing, numbers: std::ops::Range<u64>, step: u64) -> Fill {
    let found = numbers.map(|number| {
        let session = workload::session(number);
        Filled { digest: digest(ring, number, step), session, user: Some(workload::user_of(number)) }
    });
    fill(found.collect())
}

fn digest(ring: &KeyRing, number: u64, step: u64) -> TokenDigest {
    if number.is_multiple_of(step) { workload::token(ring, number).1.digest } else { numbers::digest(number) }
}
