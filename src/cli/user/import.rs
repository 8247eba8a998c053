//! `user import`: many users from JSON lines, in calls of bounded size, so that a file of any length can be taken in and
//! a failure says which lines are done.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cli::connection::{Connection, Server};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output;
use crate::grpc::proto::admin::import_user_result::Result as Answer;
use crate::grpc::proto::admin::{CreateUserRequest, ImportUsersRequest};
use crate::grpc::proto::v1::ErrorReason;

/// Rows of one call: with passwords to hash it stays well within the time-out.
const ROWS_PER_CALL: usize = 100;
/// Above any row that a server takes.
const LINE_BYTES_MAX: u64 = 64 * 1_024;

/// Add many users from JSON lines; a row that is refused does not stop the rest.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  latchkey user import users.jsonl\n\n\
    Each line is one user, with these fields, of which only login must be there:\n  \
    {\"login\": \"ada\", \"password\": \"...\", \"display_name\": \"Ada\", \"roles\": [\"admin\"],\n   \
    \"attributes\": {\"team\": \"blue\"}, \"user_id\": \"<UUID>\"}\n\
    or, in place of password, \"password_hash\" and perhaps \"password_hash_scheme\".\n\
    Each refused row is printed with its line number; the exit code is then 1.")]
pub(in crate::cli) struct Import {
    /// The file, or - for stdin.
    file: PathBuf,
    /// Print one JSON document with the result of every row.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// A row as the file holds it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Row {
    login: String,
    password: String,
    password_hash: String,
    password_hash_scheme: String,
    display_name: String,
    roles: Vec<String>,
    attributes: HashMap<String, String>,
    user_id: String,
}

/// What became of a row.
enum Verdict {
    Created { user_id: String },
    Refused { reason: String, message: String },
}

/// A row's line number and what became of it.
type Results = Vec<(usize, Verdict)>;

impl Import {
    pub(in crate::cli) fn run(self) -> Outcome {
        let input: Box<dyn BufRead> = if self.file.as_os_str() == "-" {
            Box::new(io::stdin().lock())
        } else {
            let cannot =
                |error| Failure::new(Exit::Refused, format!("cannot read {}: {error}", self.file.display()));
            Box::new(BufReader::new(File::open(&self.file).map_err(cannot)?))
        };
        let json = self.json;
        self.connection.run(async move |server| {
            let mut tally = Tally { json, created: 0, refused: 0, results: Vec::new() };
            let mut rows = Rows { input, line: 0 };
            loop {
                let first = rows.line + 1;
                let (calls, mut results) = rows.next_rows()?;
                if calls.is_empty() && results.is_empty() {
                    return tally.finish();
                }
                let span = format!("lines {first} to {}", rows.line);
                let sent = send(&server, calls).await.map_err(|failure| {
                    let done = format!("{span} may be done or not, those before are done");
                    failure.while_doing(&span).hint(done)
                })?;
                results.extend(sent);
                results.sort_by_key(|(line, _)| *line);
                tally.take(results)?;
            }
        })
    }
}

/// Sends rows in one call, and puts the answers, which come in the same order, to their lines.
async fn send(server: &Server, rows: Vec<(usize, CreateUserRequest)>) -> Result<Results, Failure> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let (lines, users): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let stream = tokio_stream::iter(users.into_iter().map(|user| ImportUsersRequest { user: Some(user) }));
    let answer = server.users().import_users(stream).await?.into_inner();
    if answer.results.len() != lines.len() {
        return Err(Failure::new(Exit::Refused, "the server did not answer every row"));
    }
    let verdict = |answer: Option<Answer>| match answer {
        Some(Answer::UserId(user_id)) => Verdict::Created { user_id },
        Some(Answer::Refused(refused)) => {
            let reason = ErrorReason::try_from(refused.reason).unwrap_or_default().as_str_name();
            let reason = reason.trim_start_matches("ERROR_REASON_").to_owned();
            Verdict::Refused { reason, message: refused.message }
        }
        None => {
            Verdict::Refused { reason: "INTERNAL".to_owned(), message: "no answer to this row".to_owned() }
        }
    };
    let verdicts = answer.results.into_iter().map(|answer| verdict(answer.result));
    Ok(lines.into_iter().zip(verdicts).collect())
}

/// The rows of the input with their line numbers.
struct Rows {
    input: Box<dyn BufRead>,
    line: usize,
}

impl Rows {
    /// The next rows to send, and the verdicts over lines that are no rows. Both are empty at the end.
    fn next_rows(&mut self) -> Result<(Vec<(usize, CreateUserRequest)>, Results), Failure> {
        let (mut rows, mut refused) = (Vec::new(), Vec::new());
        while rows.len() + refused.len() < ROWS_PER_CALL {
            let mut line = Zeroizing::new(Vec::new());
            self.input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                break;
            }
            self.line += 1;
            if line.len() as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
                let what = format!("line {} is longer than {LINE_BYTES_MAX} bytes", self.line);
                return Err(Failure::new(Exit::Refused, what).hint("the lines before are done"));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match parse(&line) {
                Ok(user) => rows.push((self.line, user)),
                Err(message) => {
                    refused.push((self.line, Verdict::Refused { reason: "INVALID_ROW".to_owned(), message }));
                }
            }
        }
        Ok((rows, refused))
    }
}

/// Reads a row. What is said of a bad one never quotes a value, which may be a password.
fn parse(line: &[u8]) -> Result<CreateUserRequest, String> {
    // serde would take an array for the fields in their order.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err("is not a JSON object".to_owned());
    }
    let row: Row = serde_json::from_slice(line).map_err(|error| {
        let said = error.to_string();
        match error.classify() {
            serde_json::error::Category::Data if said.starts_with("unknown field") => said,
            serde_json::error::Category::Data => {
                format!("a field has the wrong type (column {})", error.column())
            }
            _ => format!("is not a JSON object (column {})", error.column()),
        }
    })?;
    Ok(CreateUserRequest {
        login: row.login,
        password: row.password,
        password_hash: row.password_hash,
        password_hash_scheme: row.password_hash_scheme,
        display_name: row.display_name,
        roles: row.roles,
        attributes: row.attributes,
        user_id: row.user_id,
    })
}

/// What came of it all.
struct Tally {
    json: bool,
    created: usize,
    refused: usize,
    results: Vec<Value>,
}

impl Tally {
    /// Counts results, and tells refusals as they come.
    fn take(&mut self, results: Results) -> Outcome {
        for (line, verdict) in results {
            match verdict {
                Verdict::Created { user_id } => {
                    self.created += 1;
                    if self.json {
                        self.results.push(json!({ "line": line, "user_id": user_id }));
                    }
                }
                Verdict::Refused { reason, message } if self.json => {
                    self.refused += 1;
                    self.results.push(json!({ "line": line, "reason": reason, "message": message }));
                }
                Verdict::Refused { reason, message } => {
                    self.refused += 1;
                    output::print(&format!("line {line}: {} [{reason}]\n", output::printable(&message)))?;
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Outcome {
        let (created, refused) = (self.created, self.refused);
        if self.json {
            output::print_json(&json!({
                "created_count": created, "refused_count": refused, "results": self.results,
            }))?;
        } else {
            output::print(&format!("{created} created, {refused} refused\n"))?;
        }
        let count = output::count(i64::try_from(refused).unwrap_or(i64::MAX), "row");
        if refused == 0 { Ok(()) } else { Err(Failure::new(Exit::Refused, format!("{count} refused"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Rows {
        Rows { input: Box::new(io::Cursor::new(text.to_owned())), line: 0 }
    }

    #[test]
    fn rows_keep_their_line_numbers_and_bad_ones_are_told() {
        let text = "{\"login\":\"a\",\"roles\":[\"r\"]}\n\n{\"login\":\"b\",\"pasword\":\"marker\"}\n{\"login\":\"c\"}";
        let (good, bad) = rows(text).next_rows().expect("read");
        let lines: Vec<_> = good.iter().map(|(line, user)| (*line, user.login.as_str())).collect();
        assert_eq!(lines, [(1, "a"), (4, "c")]);
        assert_eq!(good[0].1.roles, ["r"]);
        let [(3, Verdict::Refused { message, .. })] = bad.as_slice() else { panic!("one bad row on line 3") };
        assert!(message.starts_with("unknown field `pasword`") && !message.contains("marker"), "{message}");
    }

    #[test]
    fn what_is_said_of_a_bad_row_never_quotes_it() {
        for line in [
            "{\"password\": 1234567}",
            "{\"roles\": \"marker\"}",
            "marker",
            "{\"login\": \"marker",
            "[]",
            "\"marker\"",
        ] {
            let said = parse(line.as_bytes()).expect_err("bad");
            assert!(!said.contains("marker") && !said.contains("1234567"), "{said}");
        }
    }

    #[test]
    fn a_call_takes_a_bounded_number_of_rows_of_bounded_length() {
        let mut many = rows(&"{\"login\":\"a\"}\n".repeat(ROWS_PER_CALL + 1));
        assert_eq!(many.next_rows().expect("read").0.len(), ROWS_PER_CALL);
        assert_eq!(many.next_rows().expect("read").0.len(), 1);
        assert!(many.next_rows().expect("read").0.is_empty());
        let long = format!("{{\"login\":\"{}\"}}\n", "x".repeat(65_536));
        assert!(rows(&long).next_rows().is_err());
    }
}
