//! The configuration as text: a template with every setting, and what a node really runs with. Secrets are masked.

use std::fmt::Write as _;

use super::field::{Field, Kind, fields};
use super::load::Setting;
use crate::database_url::DatabaseUrl;

/// What stands in the place of a secret.
const MASKED: &str = "***";
const WIDTH: usize = 100;

/// A configuration file that changes nothing: every setting with its description and default, commented out.
pub fn template() -> String {
    let mut text = String::from(
        "# Configuration of Latchkey. Each setting is shown with its default; remove the # in front to change it.\n\
         # A flag goes before an environment variable, and that before this file.\n",
    );
    let mut section = String::new();
    for field in fields().iter().filter(|field| field.in_file()) {
        open_section(&mut text, &mut section, field);
        text.push('\n');
        wrap(&mut text, &field.help());
        if let (Some(variable), Some(flag)) = (field.env(), field.flag()) {
            _ = writeln!(text, "# {variable}, --{flag}");
        }
        let (_, name) = field.section_and_name();
        match (&field.default, field.kind) {
            (_, Kind::Table) => text.push_str(
                "#[callers.shop]\n#key_sha256 = \"<64 hexadecimal digits>\"\n#allow = [\"latchkey.v1.AuthService/*\"]\n",
            ),
            (Some(default), _) => _ = writeln!(text, "#{name} = {default}"),
            (None, _) => _ = writeln!(text, "#{name} = \"\""),
        }
    }
    text
}

/// What a node runs with, as a file whose comments say where each value came from.
pub fn print(settings: &[Setting]) -> String {
    let mut text = String::new();
    let mut section = String::new();
    for setting in settings {
        open_section(&mut text, &mut section, &setting.field);
        let (_, name) = setting.field.section_and_name();
        let line = match (&setting.value, setting.field.kind) {
            (Some(toml::Value::Table(callers)), Kind::Table) => {
                print_callers(&mut text, callers, &setting.origin.to_string());
                continue;
            }
            (Some(value), _) => format!("{name} = {}", masked(&setting.field, value)),
            (None, _) => format!("# {name} is not set"),
        };
        _ = writeln!(text, "{line:<50} # {}", setting.origin);
    }
    text
}

fn print_callers(text: &mut String, callers: &toml::Table, origin: &str) {
    if callers.is_empty() {
        _ = writeln!(text, "\n{:<50} # {origin}", "# no callers are set: everybody may call everything");
    }
    for (name, caller) in callers {
        let name = if name.contains('.') { format!("{name:?}") } else { name.clone() };
        let header = format!("[callers.{name}]");
        _ = writeln!(text, "\n{header:<50} # {origin}\nkey_sha256 = {MASKED:?}");
        if let Some(allow) = caller.get("allow") {
            _ = writeln!(text, "allow = {allow}");
        }
    }
}

fn masked(field: &Field, value: &toml::Value) -> toml::Value {
    match (field.key.as_str(), value) {
        ("database_url", toml::Value::String(url)) => toml::Value::String(
            DatabaseUrl::parse(url).map_or_else(|_| MASKED.to_owned(), |url| url.masked()),
        ),
        _ if !field.in_file() => toml::Value::String(MASKED.to_owned()),
        _ => value.clone(),
    }
}

fn open_section(text: &mut String, section: &mut String, field: &Field) {
    let (of_field, _) = field.section_and_name();
    // The table of callers brings headers of its own.
    if !of_field.is_empty() && of_field != section {
        of_field.clone_into(section);
        _ = writeln!(text, "\n[{of_field}]");
    }
}

fn wrap(text: &mut String, paragraph: &str) {
    let mut line = String::from("#");
    for word in paragraph.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            _ = writeln!(text, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, load};
    use super::*;

    fn settings_of(text: &str) -> Vec<Setting> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() })
            .expect("it holds")
            .settings
    }

    #[test]
    fn the_template_names_every_setting_and_means_the_defaults() {
        let template = template();
        assert!(settings_of(&template).iter().all(|setting| setting.origin == super::super::Origin::Default));
        let is_setting =
            |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains(" = ");
        let uncommented: Vec<_> = template
            .lines()
            .map(|line| line.strip_prefix('#').filter(|line| is_setting(line)).unwrap_or(line))
            .take_while(|line| !line.starts_with("#[callers"))
            .collect();
        let settings = settings_of(&uncommented.join("\n"));
        for setting in
            settings.iter().filter(|setting| setting.field.in_file() && setting.field.key != "callers")
        {
            assert_ne!(setting.origin, super::super::Origin::Default, "{} is missing", setting.field.key);
            if setting.field.default.is_some() {
                assert_eq!(setting.value, setting.field.default, "{}", setting.field.key);
            }
        }
        assert!(template.lines().all(|line| line.chars().count() <= 120));
    }

    #[test]
    fn what_is_printed_can_be_loaded_again_and_says_where_it_came_from() {
        let first = settings_of("[session]\nlifetime_s = 7\n");
        let printed = print(&first);
        let line = printed.lines().find(|line| line.starts_with("lifetime_s")).expect("the line");
        assert!(line.starts_with("lifetime_s = 7 ") && line.ends_with(":2"), "{line}");
        let again = settings_of(&printed);
        for (one, other) in first.iter().zip(&again) {
            assert_eq!(one.value, other.value, "{}", one.field.key);
        }
    }

    #[test]
    fn the_digest_of_a_callers_key_is_not_printed() {
        let digest = "ab".repeat(32);
        let text = format!("[callers.\"a.b\"]\nkey_sha256 = \"{digest}\"\nallow = [\"a.B/C\"]\n");
        let printed = print(&settings_of(&text));
        assert!(!printed.contains(&digest));
        assert!(
            printed.contains("[callers.\"a.b\"]") && printed.contains("allow = [\"a.B/C\"]"),
            "{printed}"
        );
    }
}
