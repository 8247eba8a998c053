//! The law of the house as a test: who may import what, and what no file may hold.
//!
//! The table below is the law. A breach is told with its line, the rule, and what to do instead. Tests inside `src` are
//! exempt from the import law: they may use whatever proves the point.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A part of the tree, by the beginning of its paths, and the parts of this crate that it may import.
/// The longest beginning counts.
const IMPORTS: &[(&str, &[&str])] = &[
    ("main.rs", &["cli"]),
    ("lib.rs", &[]),
    ("cli", &["*"]),
    ("server", &["*"]),
    // `live` is for the fast path only; of `host`, the traits `Clock`, by which RPCs are timed, and `Ticks`, for keepalive.
    ("grpc", &["grpc", "usecases", "domain", "live", "telemetry", "host", "supervise"]),
    ("usecases", &["usecases", "domain", "live", "fleet", "store", "passwords", "host"]),
    ("fleet", &["fleet", "domain", "live", "store", "host", "mutation", "supervise"]),
    ("store", &["store", "domain"]),
    ("store/observed.rs", &["store", "domain", "telemetry", "host"]),
    ("store/sql", &["store", "domain", "mutation", "database_url"]),
    ("live", &["live", "domain", "mutation"]),
    ("mutation.rs", &[]),
    ("passwords", &["passwords", "domain", "host", "supervise"]),
    ("key_file", &["key_file", "domain", "host"]),
    ("host.rs", &["domain"]),
    ("domain", &["domain"]),
    ("supervise.rs", &["host", "domain"]),
    ("telemetry.rs", &[]),
    ("telemetry", &[]),
    ("config", &["config", "database_url"]),
    ("database_url", &["database_url"]),
];

/// Libraries that have their home in some parts only, those parts, and what to do elsewhere.
const HOMES: &[(&[&str], &[&str], &str)] = &[
    (
        &["tonic", "tonic_prost", "tonic_types", "tonic_health", "tonic_reflection", "prost", "prost_types"],
        &["grpc", "server", "cli"],
        "answer a domain value or a `Refusal`; `grpc/` translates",
    ),
    (
        &["http", "http_body", "http_body_util", "hyper", "hyper_util", "tower"],
        &["grpc", "server"],
        "the wire is the business of `grpc/` and `server/`",
    ),
    (&["axum"], &["server"], "HTTP is served by `server/http.rs`"),
    (&["sea_orm", "migrations"], &["store/sql"], "add a step to `trait Store` and its SQL to `store/sql/`"),
    (&["clap", "clap_complete", "comfy_table", "rpassword"], &["cli"], "talk to people in `cli/`"),
    (&["confique", "toml", "serde_ignored"], &["config"], "read settings in `config/`; hand over values"),
    (&["prometheus_client", "tracing_subscriber"], &["telemetry.rs"], "declare the metric in `telemetry.rs`"),
    (&["argon2", "password_hash", "governor"], &["passwords"], "hash and throttle in `passwords/`"),
    (&["url", "percent_encoding"], &["database_url"], "hand on a `DatabaseUrl`"),
    (&["getrandom"], &["host.rs"], "draw from `host::Entropy`"),
    (
        &["tokio", "tokio_util", "tokio_stream", "futures_util", "tracing", "async_trait"],
        &[
            "cli",
            "server",
            "grpc",
            "usecases",
            "fleet",
            "store",
            "passwords",
            "telemetry.rs",
            "telemetry",
            "host.rs",
            "supervise.rs",
        ],
        "keep `domain`, `live` and `config` synchronous and silent; take `now` as an argument",
    ),
];

/// What is made in one place only, those places, and what to do elsewhere.
const MADE_IN: &[(&[&str], &[&str], &str)] = &[
    (
        &["SystemClock", "SystemTicks", "SystemEntropy", "ManualClock", "SeededEntropy", "SqlStore::open"],
        &["host.rs", "server", "cli", "store/sql"],
        "take the trait as an argument; `cli` and tests choose the implementation",
    ),
    (
        &[
            "Status::new(",
            "Status::internal(",
            "Status::unauthenticated(",
            "Status::unavailable(",
            "with_error_details(",
        ],
        &["grpc/status.rs"],
        "answer a `Refusal` and let `grpc/status.rs` make the status",
    ),
];

/// What no source file may hold.
const NEVER: &[(&str, &str)] = &[
    ("todo!(", "do it, or do not begin it"),
    ("unimplemented!(", "do it, or do not begin it"),
    ("dbg!(", "remove it"),
    ("TODO", "do it, or file an issue"),
    ("FIXME", "mend it, or file an issue"),
    ("#[ignore", "a test that is not run proves nothing: mend or delete it"),
    ("#[allow(", "use `#[expect(.., reason = \"..\")]`"),
    ("#![allow(", "use `#![expect(.., reason = \"..\")]`"),
    ("linearizab", "the promise is a barrier; say which one"),
];

/// Names that hide a missing concept.
const NO_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc"];

const LINES_MAX: usize = 450;

/// A source file: its path below the folder that is checked, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines of code outside comments and tests, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let shipped = self.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines = shipped.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is there") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a text");
                let path = path.strip_prefix(&root).expect("below the root").display().to_string();
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no source in {folder}");
    found
}

/// Whether a path lies in a part of the tree.
fn lies_in(path: &str, part: &str) -> bool {
    path == part || path.strip_prefix(part).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a line uses `name::`, `use name`, or the macro attribute of that crate, as a whole word.
fn uses(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + name.len()..];
        let own_path = line[..at].ends_with("::") || line[..at].ends_with('.');
        let whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_') && !own_path;
        whole
            && (after.starts_with("::") || (line.trim_start().starts_with("use ") && after.starts_with(';')))
    })
}

/// The parts of this crate that a line imports: what stands behind `crate::` or `super::super::`.
fn imported(line: &str) -> Vec<&str> {
    let behind = line.split("crate::").skip(1);
    behind
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
        .collect()
}

fn breaches_of_import_law(source: &Source) -> Vec<String> {
    let mut breaches = Vec::new();
    let parts = IMPORTS.iter().filter(|(part, _)| lies_in(&source.path, part));
    let Some((part, may)) = parts.max_by_key(|(part, _)| part.len()) else {
        return vec![format!(
            "src/{}: belongs to no part: give it a row in the import law of tests/tidy.rs",
            source.path
        )];
    };
    for (at, line) in source.code() {
        for module in imported(line) {
            if !may.contains(&"*") && !may.contains(&module) {
                let law = may.join(", ");
                breaches.push(format!(
                    "src/{}:{at}: `{part}` may import [{law}], not `{module}`: move the code, or take a trait or value",
                    source.path
                ));
            }
        }
        for (libraries, homes, instead) in HOMES {
            let at_home = homes.iter().any(|home| lies_in(&source.path, home));
            for library in libraries.iter().filter(|library| !at_home && uses(line, library)) {
                breaches.push(format!(
                    "src/{}:{at}: `{library}` has its home in {homes:?}: {instead}",
                    source.path
                ));
            }
        }
        for (made, places, instead) in MADE_IN {
            let at_home = places.iter().any(|place| lies_in(&source.path, place));
            for what in made.iter().filter(|what| !at_home && line.contains(**what)) {
                breaches
                    .push(format!("src/{}:{at}: `{what}` belongs into {places:?}: {instead}", source.path));
            }
        }
    }
    breaches
}

fn breaches_of_habit(folder: &str, source: &Source) -> Vec<String> {
    let mut breaches = Vec::new();
    let place = format!("{folder}/{}", source.path);
    if !source.text.starts_with("//!") {
        breaches.push(format!("{place}:1: open with `//!`: what the file owns and what it never does"));
    }
    let count = source.text.lines().count();
    if count > LINES_MAX {
        breaches.push(format!("{place}: {count} lines, more than {LINES_MAX}: which concept is missing?"));
    }
    let names = place.split('/').map(|name| name.trim_end_matches(".rs"));
    for name in names.filter(|name| NO_NAMES.contains(name)) {
        breaches.push(format!("{place}: `{name}` is no concept: name the thing"));
    }
    for (at, line) in source.text.lines().enumerate() {
        for (what, instead) in NEVER.iter().filter(|(what, _)| line.contains(what)) {
            breaches.push(format!("{place}:{}: `{what}`: {instead}", at + 1));
        }
    }
    breaches
}

#[track_caller]
fn assert_none(breaches: &[String]) {
    let mut told = String::new();
    for breach in breaches {
        writeln!(told, "  {breach}").expect("a string takes any text");
    }
    assert!(breaches.is_empty(), "{} breaches of the law of the house:\n{told}", breaches.len());
}

#[test]
fn every_import_keeps_the_law() {
    assert_none(&sources("src").iter().flat_map(breaches_of_import_law).collect::<Vec<_>>());
}

#[test]
fn migrations_know_nothing_but_their_library() {
    let foreign = |source: &Source| {
        let lines: Vec<_> = source.code().map(|(at, line)| (at, line.to_owned())).collect();
        let path = source.path.clone();
        let bad = ["latchkey::", "sea_orm::", "tokio::", "tonic::"];
        lines
            .into_iter()
            .filter(move |(_, line)| {
                bad.iter().any(|one| line.contains(one)) && !line.contains("sea_orm_migration::")
            })
            .map(move |(at, _)| format!("migrations/src/{path}:{at}: import sea_orm_migration only"))
    };
    assert_none(&sources("migrations/src").iter().flat_map(foreign).collect::<Vec<_>>());
}

#[test]
fn every_file_keeps_the_habits() {
    let folders = ["src", "migrations/src", "tests", "benches"];
    let all =
        folders.iter().flat_map(|folder| sources(folder).into_iter().map(move |source| (folder, source)));
    let mine = |source: &Source| source.path == "tidy.rs";
    let breaches = all
        .filter(|(_, source)| !mine(source))
        .flat_map(|(folder, source)| breaches_of_habit(folder, &source));
    assert_none(&breaches.collect::<Vec<_>>());
}

/// The names of tests in the brackets that end each numbered invariant: `(\`one\`, \`another\`)`.
fn guards(architecture: &str) -> Vec<(String, Vec<String>)> {
    let section = architecture.split("## Invariants").nth(1).and_then(|rest| rest.split("\n## ").next());
    let mut invariants: Vec<String> = Vec::new();
    for line in section.unwrap_or_default().lines().filter(|line| !line.trim().is_empty()) {
        let begins = line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        match invariants.last_mut() {
            _ if begins => invariants.push(line.to_owned()),
            Some(invariant) => {
                invariant.push(' ');
                invariant.push_str(line.trim());
            }
            None => {}
        }
    }
    let tests = |invariant: &str| {
        let named = invariant.rsplit_once(" (").map_or("", |(_, named)| named);
        named.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    invariants.iter().map(|invariant| (invariant.clone(), tests(invariant))).collect()
}

#[test]
fn every_invariant_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let architecture = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("a text");
    let all: String =
        ["src", "tests"].iter().flat_map(|folder| sources(folder)).map(|source| source.text).collect();
    let exists = |test: &String| {
        let kinds = ["fn ", "mod "].map(|kind| format!("{kind}{test}"));
        kinds.iter().any(|found| {
            let ends =
                |at: usize| all[at + found.len()..].starts_with(|c: char| !c.is_alphanumeric() && c != '_');
            all.match_indices(found.as_str()).any(|(at, _)| ends(at))
        })
    };
    let invariants = guards(&architecture);
    assert!(invariants.len() >= 10, "{} invariants were read", invariants.len());
    let unguarded = invariants.iter().filter(|(_, tests)| tests.is_empty() || !tests.iter().all(exists));
    assert_none(
        &unguarded
            .map(|(invariant, _)| format!("ARCHITECTURE.md: no such test: {invariant}"))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn an_invariant_without_a_test_is_seen() {
    let text = "# A\n\n## Invariants\n\nEach has one.\n\n1. **One** holds.\n   Always. (`first`, `second`)\n2. Two. (no test)\n\n## More\n\n3. x (`y`)\n";
    let read: Vec<_> = guards(text).into_iter().map(|(_, tests)| tests).collect();
    assert_eq!(read, [vec!["first".to_owned(), "second".to_owned()], vec![]]);
}

#[test]
fn a_breach_is_seen() {
    let at = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    for (path, text) in [
        ("domain/x.rs", "use crate::store::Store;"),
        ("domain/x.rs", "fn f() { tokio::task::yield_now(); }"),
        ("live/x.rs", "use tracing::info;"),
        ("live/x.rs", "let x = crate::host::random();"),
        ("usecases/x.rs", "use tonic::Status;"),
        ("usecases/x.rs", "use crate::grpc::status;"),
        ("usecases/x.rs", "let clock = SystemClock;"),
        ("store/sql/x.rs", "use crate::telemetry::Metrics;"),
        ("store/mod.rs", "use sea_orm::DbErr;"),
        ("grpc/x.rs", "use crate::store::Store;"),
        ("grpc/x.rs", "return Err(Status::internal(\"no\"));"),
        ("passwords/x.rs", "use crate::store::Store;"),
        ("config/x.rs", "use crate::domain::id::UserId;"),
        ("domain/x.rs", "use crate::{store, grpc};"),
        ("new_part/x.rs", "fn f() {}"),
    ] {
        assert_eq!(breaches_of_import_law(&at(path, text)).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("a.rs", "fn f() {}"),
        ("a.rs", "//! A.\n// TODO: more"),
        ("a.rs", "//! A.\n#[allow(dead_code)]"),
        ("a.rs", "//! A.\n#[ignore]"),
        ("utils.rs", "//! A."),
        ("helpers/a.rs", "//! A."),
        ("a.rs", &format!("//! A.\n{}", "\n".repeat(LINES_MAX))),
    ] {
        assert_eq!(breaches_of_habit("src", &at(path, text)).len(), 1, "{path}: {text}");
    }
}

#[test]
fn what_is_allowed_is_no_breach() {
    let at = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    for (path, text) in [
        ("domain/x.rs", "// tokio::spawn is not for us\nuse super::id::UserId;"),
        ("domain/x.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::store::Store;\n}"),
        ("usecases/x.rs", "use crate::store::Store;\nuse tokio_util::task::TaskTracker;"),
        ("grpc/x.rs", "let http = self.http::<u8>();\nuse http::Request;"),
        ("store/sql/x.rs", "use sea_orm::DbErr;\nuse crate::store::Store;"),
        ("usecases/x.rs", "let x = value.http;"),
    ] {
        assert_eq!(breaches_of_import_law(&at(path, text)), Vec::<String>::new(), "{path}: {text}");
    }
}
