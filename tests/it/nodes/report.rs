//! How a run felt to those who called, and whether anything was there that must not be.

use std::collections::BTreeMap;
use std::time::Duration;

use latchkey::domain::time::BootTime;

use super::checker::{check, false_log_outs};
use super::harness::Nodes;
use super::load::NO_ANSWER;
use super::log::{Entry, now};
use crate::support::dice::replay;

/// A fault: which nodes had it, and how long.
#[derive(Clone, Debug)]
pub struct Fault {
    name: &'static str,
    slots: Vec<usize>,
    began: BootTime,
    ended: BootTime,
    recovered: Vec<Duration>,
}

impl Fault {
    /// A fault begins at the nodes of `slots`.
    pub fn begin(name: &'static str, slots: &[usize]) -> Self {
        let at = now();
        Self { name, slots: slots.to_vec(), began: at, ended: at, recovered: Vec::new() }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// When it began.
    pub fn began(&self) -> BootTime {
        self.began
    }

    /// It is over now; says when.
    pub fn end(&mut self) -> BootTime {
        self.ended = now();
        self.ended
    }

    /// A node is as before, as an answer of `at` says.
    pub fn recovered(&mut self, at: BootTime) {
        self.recovered.push(at.since(self.ended));
    }

    fn until(&self) -> BootTime {
        self.ended.plus(self.recovered.iter().copied().max().unwrap_or_default())
    }

    /// Whether a call began while nodes had the fault, or had yet to recover from it.
    fn is_during(&self, entry: &Entry) -> bool {
        entry.began >= self.began && entry.began < self.until()
    }

    /// Whether the node that was called had the fault at any time of the call.
    fn is_met_by(&self, entry: &Entry) -> bool {
        self.slots.contains(&entry.process.slot) && entry.began < self.until() && entry.ended > self.began
    }
}

/// A run that was judged.
pub struct Report {
    entries: Vec<Entry>,
    /// Nodes that say what they logged when the test fails.
    _nodes: Nodes,
}

impl Report {
    /// Judges what was written down: prints a line, and fails where something is there that must not be.
    pub fn judge(title: &str, seed: u64, entries: Vec<Entry>, nodes: Nodes) -> Self {
        let violations = check(&entries);
        let count = |such: fn(&Entry) -> bool| entries.iter().filter(|entry| such(entry)).count();
        println!(
            "{title}: {} operations, {} violations, {} false log-outs; {} questions, {} accepted, unavailable {}; \
             revocations {}",
            entries.len(),
            violations.len(),
            false_log_outs(&violations),
            count(Entry::is_question),
            count(Entry::is_good),
            share(entries.iter()),
            spread(entries.iter().filter(|entry| entry.is_revocation()).map(Entry::took)),
        );
        assert!(violations.is_empty(), "{title}: {violations:#?}; {}", replay(seed));
        let (good, revoked) = (count(Entry::is_good), count(Entry::is_revocation));
        assert!(good > 20 && revoked > 5, "{title}: too poor: {good} accepted, {revoked} revocations");
        Self { entries, _nodes: nodes }
    }

    /// Prints how each kind of fault felt, and at which nodes.
    pub fn tell(&self, faults: &[Fault]) {
        let mut kinds: Vec<&str> = faults.iter().map(|fault| fault.name).collect();
        kinds.dedup();
        for kind in kinds {
            let of_kind: Vec<_> = faults.iter().filter(|fault| fault.name == kind).collect();
            let during =
                self.entries.iter().filter(|entry| of_kind.iter().any(|fault| fault.is_during(entry)));
            let (here, elsewhere): (Vec<_>, Vec<_>) =
                during.partition(|entry| faults.iter().any(|fault| fault.is_met_by(entry)));
            let at = |inside: bool| if inside { here.iter().copied() } else { elsewhere.iter().copied() };
            println!(
                "  {kind}: at the node unavailable {} {:?}, elsewhere {}; recovery {}; revocations elsewhere {}, not OK {}",
                share(at(true)),
                reasons(at(true)),
                share(at(false)),
                spread(of_kind.iter().flat_map(|fault| fault.recovered.iter().copied())),
                spread(at(false).filter(|entry| entry.is_revocation()).map(Entry::took)),
                at(false).filter(|entry| entry.is_failed_revocation()).count(),
            );
        }
    }

    /// Prints for each node how often it did not answer a question for which reason, and from when to when after the fault
    /// was over.
    pub fn tell_unanswered(&self, fault: &Fault) {
        let millis = |at: BootTime| {
            let (after, before) = (at.since(fault.ended).as_millis(), fault.ended.since(at).as_millis());
            if after > 0 { format!("{after}") } else { format!("-{before}") }
        };
        let mut spans: BTreeMap<(usize, &str), (usize, BootTime, BootTime)> = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| entry.is_unknown()) {
            let why = entry.why.as_deref().unwrap_or_default();
            let span = spans.entry((entry.process.slot, why)).or_insert((0, entry.began, entry.began));
            *span = (span.0 + 1, span.1.min(entry.began), span.2.max(entry.began));
        }
        for ((slot, why), (times, first, last)) in spans {
            println!("  node {slot}: {why} {times} times, from {} to {} ms", millis(first), millis(last));
        }
    }

    /// Asserts that nodes which had no fault went on answering while others had one. On a busy machine a few questions may
    /// find no answer in time; a node that does not know is another matter.
    pub fn assert_spared(&self, faults: &[Fault]) {
        let (mut questions, mut late) = (0, 0);
        for entry in self.elsewhere(faults).filter(|entry| entry.is_question()) {
            questions += 1;
            if entry.is_unknown() {
                assert!(entry.is_refused_for(NO_ANSWER), "a node without a fault: {entry:?}");
                late += 1;
            }
        }
        assert!(late * 50 <= questions, "{late} of {questions} questions had no answer in time");
    }

    /// How long revocations took, at most, that began during a fault, at nodes that had none.
    pub fn longest_revocation_elsewhere(&self, faults: &[Fault]) -> Duration {
        self.elsewhere(faults)
            .filter(|entry| entry.is_revocation())
            .map(Entry::took)
            .max()
            .unwrap_or_default()
    }

    fn elsewhere<'r>(&'r self, faults: &'r [Fault]) -> impl Iterator<Item = &'r Entry> {
        let spared = |entry: &&Entry| {
            faults.iter().any(|fault| fault.is_during(entry))
                && !faults.iter().any(|fault| fault.is_met_by(entry))
        };
        self.entries.iter().filter(spared)
    }

    /// All calls that began while nodes had the fault, or had yet to recover from it.
    pub fn during<'r>(&'r self, fault: &'r Fault) -> impl Iterator<Item = &'r Entry> {
        self.entries.iter().filter(|entry| fault.is_during(entry))
    }

    /// All calls.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// The share of questions that were not answered.
fn share<'e>(entries: impl Iterator<Item = &'e Entry>) -> String {
    let (mut questions, mut unknown) = (0_u32, 0_u32);
    for entry in entries.filter(|entry| entry.is_question()) {
        questions += 1;
        unknown += u32::from(entry.is_unknown());
    }
    format!("{:.2} % of {questions}", 100.0 * f64::from(unknown) / f64::from(questions.max(1)))
}

/// Why questions were not answered, and how often.
fn reasons<'e>(entries: impl Iterator<Item = &'e Entry>) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for why in entries.filter(|entry| entry.is_unknown()).filter_map(|entry| entry.why.clone()) {
        *reasons.entry(why).or_default() += 1;
    }
    reasons
}

/// How long something took: the middle, nearly all, and the longest.
pub fn spread(spans: impl Iterator<Item = Duration>) -> String {
    let mut spans: Vec<_> = spans.collect();
    spans.sort_unstable();
    let Some(last) = spans.last() else { return "none".to_owned() };
    let at = |percent: usize| spans[(spans.len() * percent / 100).min(spans.len() - 1)];
    let millis = |span: Duration| format!("{:.1}", span.as_secs_f64() * 1_000.0);
    format!("{} of p50 {} p99 {} max {} ms", spans.len(), millis(at(50)), millis(at(99)), millis(*last))
}
