//! What commands print: tables for people, one JSON document for machines. Times are UTC in both.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use comfy_table::{Table, presets};
use prost_types::Timestamp;
use serde_json::{Value, json};

use super::failure::Outcome;
use crate::grpc::proto::v1;
use crate::telemetry::log_writer;

/// Writes to stdout. A reader that has seen enough, such as `head`, is no failure.
pub(super) fn print(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes to stdout without waiting for its reader, and whether or not there is one: a node serves all the same.
pub(super) fn announce(line: &str) {
    log_writer::stdout().write_lines(line.as_bytes());
}

/// Writes one JSON document.
pub(super) fn print_json(document: &Value) -> Outcome {
    print(&format!("{document:#}\n"))
}

/// Lines up rows below their headings.
pub(super) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings);
    for row in rows {
        table.add_row(row.map(|cell| if cell.is_empty() { "-".to_owned() } else { printable(&cell) }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Lines up names and values.
pub(super) fn card(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let shown = |value: &str| if value.is_empty() { "-".to_owned() } else { printable(value) };
    let mut text = String::new();
    for (name, value) in rows {
        _ = writeln!(text, "{name:<width$}  {}", shown(value));
    }
    text
}

/// The text without characters that would steer the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A moment for people: `2026-11-23 12:13:27Z`. Empty where there is none.
pub(super) fn moment(time: Option<&Timestamp>) -> String {
    let whole_seconds = time.map(|time| Timestamp { seconds: time.seconds, nanos: 0 });
    whole_seconds.map_or_else(String::new, |time| time.to_string().replacen('T', " ", 1))
}

/// A moment for machines (RFC 3339).
pub(super) fn rfc_3339(time: Option<&Timestamp>) -> Value {
    time.map_or(Value::Null, |time| Value::String(time.to_string()))
}

/// A count with its noun.
pub(super) fn count(number: i64, singular: &str) -> String {
    format!("{number} {singular}{}", if number == 1 { "" } else { "s" })
}

/// The name of a state as people say it.
fn state(user: &v1::User) -> &'static str {
    match user.state() {
        v1::UserState::Active => "active",
        v1::UserState::Disabled => "disabled",
        v1::UserState::Unspecified => "unspecified",
    }
}

/// A user for people.
pub(super) fn user_card(user: &v1::User) -> String {
    let mut attributes: Vec<_> =
        user.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    attributes.sort();
    card(&[
        ("user id", user.user_id.clone()),
        ("login", user.login.clone()),
        ("name", user.display_name.clone()),
        ("state", state(user).to_owned()),
        ("roles", user.roles.join(", ")),
        ("attributes", attributes.join(", ")),
        ("created", moment(user.create_time.as_ref())),
        ("updated", moment(user.update_time.as_ref())),
        ("password set", moment(user.password_time.as_ref())),
    ])
}

/// Users for people.
pub(super) fn user_table(users: &[v1::User]) -> String {
    let row = |user: &v1::User| {
        let created = moment(user.create_time.as_ref());
        [
            user.user_id.clone(),
            user.login.clone(),
            user.display_name.clone(),
            state(user).to_owned(),
            user.roles.join(","),
            created,
        ]
    };
    table(["USER ID", "LOGIN", "NAME", "STATE", "ROLES", "CREATED"], users.iter().map(row))
}

/// A user for machines, with the names of the contract.
pub(super) fn user_json(user: &v1::User) -> Value {
    json!({
        "user_id": user.user_id,
        "login": user.login,
        "display_name": user.display_name,
        "state": state(user),
        "roles": user.roles,
        "attributes": user.attributes,
        "create_time": rfc_3339(user.create_time.as_ref()),
        "update_time": rfc_3339(user.update_time.as_ref()),
        "password_time": rfc_3339(user.password_time.as_ref()),
    })
}

/// Sessions for people.
pub(super) fn session_table(sessions: &[v1::Session]) -> String {
    let row = |session: &v1::Session| {
        let client = session.client.clone().unwrap_or_default();
        [
            session.session_id.clone(),
            client.device_name,
            client.ip,
            moment(session.create_time.as_ref()),
            moment(session.last_seen_time.as_ref()),
            moment(session.expire_time.as_ref()),
            moment(session.idle_expire_time.as_ref()),
        ]
    };
    let headings = ["SESSION ID", "DEVICE", "IP", "CREATED", "LAST SEEN", "ENDS", "IDLE END"];
    table(headings, sessions.iter().map(row))
}

/// A session for machines, with the names of the contract.
pub(super) fn session_json(session: &v1::Session) -> Value {
    let client = session.client.clone().unwrap_or_default();
    json!({
        "session_id": session.session_id,
        "user_id": session.user_id,
        "create_time": rfc_3339(session.create_time.as_ref()),
        "authenticate_time": rfc_3339(session.authenticate_time.as_ref()),
        "expire_time": rfc_3339(session.expire_time.as_ref()),
        "last_seen_time": rfc_3339(session.last_seen_time.as_ref()),
        "idle_expire_time": rfc_3339(session.idle_expire_time.as_ref()),
        "fresh": session.fresh,
        "remembered": session.remembered,
        "methods": session.methods,
        "client": { "ip": client.ip, "user_agent": client.user_agent, "device_name": client.device_name },
    })
}

/// The answer to a good token, for people.
pub(super) fn good_card(good: &v1::ValidateSessionResponse) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    card(&[
        ("session", "good".to_owned()),
        ("session id", good.session_id.clone()),
        ("user id", good.user_id.clone()),
        ("login", good.login.clone()),
        ("roles", good.roles.join(", ")),
        ("ends", moment(good.expire_time.as_ref())),
        ("authenticated", moment(good.authenticate_time.as_ref())),
        ("fresh", yes(good.fresh)),
        ("remembered", yes(good.remembered)),
    ])
}

/// The answer to a good token, for machines.
pub(super) fn good_json(good: &v1::ValidateSessionResponse) -> Value {
    json!({
        "session_id": good.session_id,
        "user_id": good.user_id,
        "login": good.login,
        "roles": good.roles,
        "expire_time": rfc_3339(good.expire_time.as_ref()),
        "authenticate_time": rfc_3339(good.authenticate_time.as_ref()),
        "fresh": good.fresh,
        "remembered": good.remembered,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> v1::User {
        v1::User {
            user_id: "0190".to_owned(),
            login: "ada".to_owned(),
            display_name: "Ada\x1b[2J".to_owned(),
            state: v1::UserState::Disabled.into(),
            roles: vec!["admin".to_owned(), "ops".to_owned()],
            create_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 123_000_000 }),
            ..v1::User::default()
        }
    }

    #[test]
    fn tables_line_up_in_utc_and_never_steer_the_terminal() {
        assert_eq!(
            user_table(&[ada()]),
            "USER ID  LOGIN  NAME     STATE     ROLES      CREATED\n\
             0190     ada    Ada\u{fffd}[2J  disabled  admin,ops  2023-11-14 22:13:20Z\n"
        );
        assert!(user_card(&ada()).contains("password set  -\n"));
    }

    #[test]
    fn machines_get_the_names_of_the_contract_and_rfc_3339() {
        let document = user_json(&ada());
        assert_eq!(document["create_time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(document["password_time"], Value::Null);
        assert_eq!(document["display_name"], "Ada\x1b[2J");
        assert_eq!(session_json(&v1::Session::default())["client"]["ip"], "");
    }

    #[test]
    fn counts_agree_with_their_noun() {
        assert_eq!([count(0, "session"), count(1, "session")], ["0 sessions", "1 session"]);
    }
}
