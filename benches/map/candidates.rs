//! The maps that could hold the sessions, side by side: `papaya::HashMap`, which does, `scc::HashIndex`, and
//! `std::collections::HashMap` as the yardstick, which knows no writers beside its readers.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use latchkey::domain::token::TokenDigest;

use super::numbers::{digest, in_random_order};
use super::stopwatch::{best_of_rounds, nanos_each};

/// What a session takes in memory behind its digest.
type Value = [u64; 12];

const LOOK_UPS: usize = 200_000;

/// Takes the first half of a digest as its hash, as the sessions table does.
#[derive(Default)]
pub struct FirstHalf(u64);

/// The state of [`FirstHalf`].
pub type PassThrough = BuildHasherDefault<FirstHalf>;

impl Hasher for FirstHalf {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(half) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*half);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

/// A map under test.
trait Sessions: Sync {
    fn read(&self, key: &TokenDigest) -> Option<u64>;
}

/// A map that takes writers beside its readers.
trait Shared: Sessions {
    fn write(&self, key: TokenDigest, value: Value);
    fn delete(&self, key: &TokenDigest);
}

type Papaya = papaya::HashMap<TokenDigest, Value, PassThrough>;
type Scc = scc::HashIndex<TokenDigest, Value, PassThrough>;

impl<S: std::hash::BuildHasher + Sync> Sessions for HashMap<TokenDigest, Value, S> {
    fn read(&self, key: &TokenDigest) -> Option<u64> {
        self.get(key).map(|value| value[3])
    }
}

impl Sessions for Papaya {
    fn read(&self, key: &TokenDigest) -> Option<u64> {
        self.pin().get(key).map(|value| value[3])
    }
}

impl Shared for Papaya {
    fn write(&self, key: TokenDigest, value: Value) {
        self.pin().insert(key, value);
    }

    fn delete(&self, key: &TokenDigest) {
        self.pin().remove(key);
    }
}

impl Sessions for Scc {
    fn read(&self, key: &TokenDigest) -> Option<u64> {
        self.peek_with(key, |_, value| value[3])
    }
}

impl Shared for Scc {
    fn write(&self, key: TokenDigest, value: Value) {
        let _ = self.insert_sync(key, value);
    }

    fn delete(&self, key: &TokenDigest) {
        self.remove_sync(key);
    }
}

/// Measures with each number of entries, and prints the table. Times are ratios to a look-up in the standard map with its
/// own hasher, by one thread.
pub fn run(sizes: &[u64]) {
    println!(
        "\n| entries | map | look-up, ns | ratio | by each of 2 threads | beside a writer | bytes an entry |"
    );
    println!("| ---: | --- | ---: | ---: | ---: | ---: | ---: |");
    for size in sizes {
        for row in measure(*size) {
            println!("| {size} | {row}");
        }
    }
}

fn measure(size: u64) -> Vec<String> {
    let keys: Vec<TokenDigest> = in_random_order(size, LOOK_UPS).map(digest).collect();
    let mut yardstick = HashMap::new();
    let yardstick_bytes = filled(size, |key, value| assert!(yardstick.insert(key, value).is_none()));
    let mut pass_through: HashMap<_, _, PassThrough> = HashMap::default();
    let pass_through_bytes = filled(size, |key, value| assert!(pass_through.insert(key, value).is_none()));
    let papaya = Papaya::default();
    let papaya_bytes = filled(size, |key, value| papaya.write(key, value));
    let scc = Scc::default();
    let scc_bytes = filled(size, |key, value| scc.write(key, value));

    let single = best_of_rounds(&mut [
        &mut || by_one(&yardstick, &keys),
        &mut || by_one(&pass_through, &keys),
        &mut || by_one(&papaya, &keys),
        &mut || by_one(&scc, &keys),
    ]);
    let two = best_of_rounds(&mut [
        &mut || by_two(&yardstick, &keys),
        &mut || by_two(&pass_through, &keys),
        &mut || by_two(&papaya, &keys),
        &mut || by_two(&scc, &keys),
    ]);
    let written = best_of_rounds(&mut [&mut || beside_a_writer(&papaya, &keys, size), &mut || {
        beside_a_writer(&scc, &keys, size)
    }]);
    let ratio = |nanos: f64| format!("{:.2}", nanos / single[0]);
    let row = |name: &str, at: usize, written: Option<f64>, bytes: f64| {
        let written = written.map_or("-".to_owned(), ratio);
        format!(
            "{name} | {:.0} | {} | {} | {written} | {bytes:.1} |",
            single[at],
            ratio(single[at]),
            ratio(two[at])
        )
    };
    vec![
        row("std, its own hasher", 0, None, yardstick_bytes),
        row("std, ours", 1, None, pass_through_bytes),
        row("papaya", 2, Some(written[0]), papaya_bytes),
        row("scc::HashIndex", 3, Some(written[1]), scc_bytes),
    ]
}

/// Inserts all entries, and answers how many bytes each of them takes.
fn filled(size: u64, mut insert: impl FnMut(TokenDigest, Value)) -> f64 {
    let used = allocation_counter::measure(|| {
        for number in 0..size {
            insert(digest(number), [number; 12]);
        }
    });
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let each = used.bytes_current as f64 / size as f64;
    each
}

fn read_all(map: &impl Sessions, keys: &[TokenDigest]) {
    let found = keys.iter().filter(|key| map.read(key).is_some()).count();
    assert_eq!(black_box(found), keys.len(), "all are there");
}

fn by_one(map: &impl Sessions, keys: &[TokenDigest]) -> f64 {
    nanos_each(keys.len(), || read_all(map, keys))
}

/// What each of two threads needs for a look-up.
fn by_two(map: &impl Sessions, keys: &[TokenDigest]) -> f64 {
    thread::scope(|scope| {
        let other = scope.spawn(|| by_one(map, keys));
        let mine = by_one(map, keys);
        mine.max(other.join().expect("the other thread reads"))
    })
}

/// What a reader needs for a look-up while a writer adds and removes entries that nobody looks for.
fn beside_a_writer(map: &impl Shared, keys: &[TokenDigest], size: u64) -> f64 {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = size;
            while !stop.load(Ordering::Relaxed) {
                map.write(digest(number), [number; 12]);
                if number >= size + 100 {
                    map.delete(&digest(number - 100));
                }
                number += 1;
            }
            (number.saturating_sub(100).max(size)..number).for_each(|number| map.delete(&digest(number)));
        });
        let nanos = by_one(map, keys);
        stop.store(true, Ordering::Relaxed);
        nanos
    })
}
