//! The settings of the server as flags: one for each, made from the configuration itself, with its description.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};

use super::failure::Failure;
use crate::config::{Field, Kind, Loaded, Sources, fields, load};

const FILE: &str = "config";

/// The settings that were given on the command line, and the file with the others.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    file: Option<PathBuf>,
    flags: Vec<(String, String)>,
}

impl Settings {
    /// Lays the flags over environment, file and defaults.
    pub(super) fn load(self) -> Result<Loaded, Failure> {
        let sources = Sources { file: self.file, flags: self.flags, ..Sources::from_environment() };
        load(&sources).map_err(Failure::from)
    }
}

impl clap::Args for Settings {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(FILE)
            .long(FILE)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Configuration file (TOML) [LATCHKEY_CONFIG]");
        let flags = fields().into_iter().filter_map(|field| flag(&field));
        command.next_help_heading("Settings").arg(file).args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |field: Field| Some((matches.get_one::<String>(&field.key)?.clone(), field.key));
        let settable = fields().into_iter().filter(|field| field.flag().is_some());
        let flags = settable.filter_map(given).map(|(value, key)| (key, value)).collect();
        Ok(Self { file: matches.get_one(FILE).cloned(), flags })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The flag of a setting. Its value is checked with those from elsewhere, so that every mistake is told alike.
fn flag(field: &Field) -> Option<Arg> {
    let (section, _) = field.section_and_name();
    let variable = field.env()?;
    let default = field.default_text().map_or_else(String::new, |text| format!(", default {text}"));
    let arg = Arg::new(field.key.clone())
        .long(field.flag()?)
        .help(format!("{} [{variable}{default}]", field.help()))
        .help_heading(if section.is_empty() {
            "Settings".to_owned()
        } else {
            format!("Settings: [{section}]")
        })
        // The common ones fit a screen; --help shows all.
        .hide_short_help(!section.is_empty());
    Some(match field.kind {
        Kind::Bool => arg
            .value_name("BOOL")
            .value_parser(PossibleValuesParser::new(["true", "false"]))
            .hide_possible_values(true)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Kind::Integer { .. } => arg.value_name("NUMBER").allow_negative_numbers(true),
        Kind::Text | Kind::Table => arg.value_name("TEXT"),
    })
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, clap::Error> {
        let command = Settings::augment_args(Command::new("serve"));
        let arguments = std::iter::once("serve").chain(arguments.iter().copied());
        Settings::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    #[test]
    fn every_setting_has_a_flag_in_the_help_with_variable_and_default() {
        let help = Settings::augment_args(Command::new("serve")).render_long_help().to_string();
        for field in fields() {
            let Some(flag) = field.flag() else { continue };
            assert!(help.contains(&format!("--{flag}")), "{flag}");
            assert!(help.contains(&field.env().expect("a variable")), "{flag}");
        }
        assert!(!help.contains("--token-keys") && !help.contains("--callers"));
        assert!(help.contains("default 43200]"));
    }

    #[test]
    fn flags_become_keys_and_texts() {
        let settings = parse(&[
            "--config",
            "x.toml",
            "--insecure",
            "--grpc-reflection=false",
            "--session-lifetime-s",
            "-5",
        ])
        .expect("parsed");
        assert_eq!(settings.file, Some(PathBuf::from("x.toml")));
        let flags: Vec<_> =
            settings.flags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(flags, [("insecure", "true"), ("session.lifetime_s", "-5"), ("grpc.reflection", "false")]);
        assert!(parse(&["--token-keys", "1:x"]).is_err());
    }
}
