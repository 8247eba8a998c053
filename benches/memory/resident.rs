//! How much memory this process takes, by the word of the operating system: what the allocator holds beyond what it was
//! asked for counts.

/// The bytes that are in use.
pub fn resident_bytes() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells it");
    let pages: i64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("the second number");
    pages * i64::try_from(rustix::param::page_size()).expect("fits")
}
