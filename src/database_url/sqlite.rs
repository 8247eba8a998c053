//! The URL of a SQLite database: `sqlite://FILE?PARAMETERS`, `sqlite:FILE` or `sqlite::memory:`.

use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{InvalidUrl, decode, parameters};

const PARAMETERS: [&str; 4] = ["mode", "cache", "immutable", "vfs"];
/// What would end a file name, or be decoded.
const NOT_IN_NAMES: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#');

/// A SQLite database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SqliteUrl {
    text: String,
    /// None where it is in memory.
    file: Option<PathBuf>,
    creates_file: bool,
}

impl SqliteUrl {
    pub(super) fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let rest = text.strip_prefix("sqlite:").unwrap_or(text);
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
        let parameters = parameters(query, &PARAMETERS)?;
        let mut mode = None;
        for (parameter, value) in &parameters {
            let allowed: &[&str] = match *parameter {
                "mode" => &["ro", "rw", "rwc", "memory"],
                "cache" => &["private", "shared"],
                "immutable" => &["true", "false", "1", "0"],
                _ => continue,
            };
            if !allowed.contains(&value.as_str()) {
                return Err(InvalidUrl::new(format!("{parameter} must be one of {}", allowed.join(", "))));
            }
            if *parameter == "mode" && mode.replace(value.as_str()).is_some() {
                return Err(InvalidUrl::new("mode must be given once"));
            }
        }
        let in_memory = name == ":memory:" || mode == Some("memory");
        let file = if in_memory { None } else { Some(PathBuf::from(decode(name)?)) };
        if file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
            return Err(InvalidUrl::new("must name a file, as in sqlite://latchkey.db"));
        }
        let creates_file = mode == Some("rwc");
        Ok(Self { text: text.to_owned(), file, creates_file })
    }

    pub(super) fn of_file(file: &Path) -> Self {
        let name = file.to_string_lossy();
        let name = utf8_percent_encode(&name, NOT_IN_NAMES);
        Self { text: format!("sqlite://{name}?mode=rwc"), file: Some(file.to_owned()), creates_file: true }
    }

    /// The URL, which holds no secret.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The file; none for a database in memory.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Whether the file is created if it is missing.
    pub const fn creates_file(&self) -> bool {
        self.creates_file
    }
}
