//! Lays the sources over each other: flags, then the environment, then the file, then the defaults. Every value is
//! checked where it was found, and everything that is wrong is reported at once.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use confique::{Config as _, Layer as _};
use serde::Deserialize as _;

use super::error::{ConfigErrors, Origin, Problem, did_you_mean};
use super::field::{Field, Kind, fields};
use super::file::{self, Given};
use super::{Config, limits};

/// Names the configuration file, where no flag does.
const FILE_VARIABLE: &str = "LATCHKEY_CONFIG";
/// Variables of our prefix that are no settings: the client commands and the tests read them.
const OTHER_VARIABLES: [&str; 5] =
    [FILE_VARIABLE, "LATCHKEY_SERVER", "LATCHKEY_API_KEY", "LATCHKEY_API_KEY_FILE", "LATCHKEY_TIMEOUT_S"];
const TEST_VARIABLES: &str = "LATCHKEY_TEST_";

type Layer = <Config as confique::Config>::Layer;

/// What there is to read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file; where there is none, the variable `LATCHKEY_CONFIG` may name one.
    pub file: Option<PathBuf>,
    /// The environment; variables of other programs are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// Keys and values given on the command line.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// The environment of this process, without file and flags.
    pub fn from_environment() -> Self {
        Self { environment: std::env::vars_os().collect(), ..Self::default() }
    }
}

/// A configuration that holds, and where each setting came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings, typed.
    pub config: Config,
    /// The settings as data, in the order of the struct.
    pub settings: Vec<Setting>,
    /// Variables that Kubernetes sets for a service named like ours, which are passed over.
    pub passed_over: Vec<String>,
}

/// What one setting is, and who said so.
#[derive(Clone)]
pub struct Setting {
    /// The setting.
    pub field: Field,
    /// Its value, secrets included; none where it is absent.
    pub(super) value: Option<toml::Value>,
    /// Who gave it.
    pub origin: Origin,
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Setting({} from {})", self.field.key, self.origin)
    }
}

/// Reads, checks and merges the sources.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let fields = fields();
    let mut problems = Vec::new();
    let mut values = BTreeMap::new();
    let mut layers = match named_file(sources) {
        Some((path, origin)) => file::read(&path, origin, &fields, &mut problems),
        None => Vec::new(),
    };
    layers.extend(from_environment(sources, &fields, &mut problems));
    layers.extend(from_flags(sources, &fields, &mut problems));
    for Given { key, value, origin } in layers {
        let field = fields.iter().find(|field| field.key == key).expect("only known keys were taken");
        match check(field, &value) {
            Ok(()) => _ = values.insert(key, (value, origin)),
            Err(what) => problems.push(Problem::of(origin, &key, what)),
        }
    }
    if !problems.is_empty() {
        return Err(ConfigErrors(problems));
    }
    let config = typed(values.iter().map(|(key, (value, _))| (key.as_str(), value)))
        .map_err(|what| ConfigErrors(vec![Problem::at(Origin::Default, what)]))?;
    let origin = |key: &str| values.get(key).map_or(Origin::Default, |(_, origin)| origin.clone());
    let contradictions = limits::contradictions(&config);
    if !contradictions.is_empty() {
        let problem = |(key, what): (&'static str, _)| Problem::of(origin(key), key, what);
        return Err(ConfigErrors(contradictions.into_iter().map(problem).collect()));
    }
    let setting = |field: Field| {
        let value = values.get(&field.key).map(|(value, _)| value.clone()).or_else(|| field.default.clone());
        Setting { value, origin: origin(&field.key), field }
    };
    let settings = fields.into_iter().map(setting).collect();
    Ok(Loaded { config, settings, passed_over: passed_over(&sources.environment) })
}

/// The configuration file, and who named it.
fn named_file(sources: &Sources) -> Option<(PathBuf, Origin)> {
    if let Some(path) = &sources.file {
        return Some((path.clone(), Origin::Flag("config".to_owned())));
    }
    let mut variables = sources.environment.iter();
    let (_, path) = variables.find(|(name, value)| name == FILE_VARIABLE && !value.is_empty())?;
    let path = path.to_str().map_or_else(|| PathBuf::from(path), |path| PathBuf::from(path.trim()));
    Some((path, Origin::Environment(FILE_VARIABLE.to_owned())))
}

fn from_environment(sources: &Sources, fields: &[Field], problems: &mut Vec<Problem>) -> Vec<Given> {
    let mut given = Vec::new();
    for (name, value) in &sources.environment {
        let Some(name) = name.to_str().filter(|name| is_ours(name, value)) else { continue };
        let origin = Origin::Environment(name.to_owned());
        let Some(field) = fields.iter().find(|field| field.env().as_deref() == Some(name)) else {
            let names: Vec<_> = fields.iter().filter_map(Field::env).collect();
            let hint = did_you_mean(name, names.iter().map(String::as_str));
            problems.push(Problem::at(origin, format!("there is no such setting{hint}")));
            continue;
        };
        match value.to_str() {
            // Files and pipes that variables are made from end in a line end. No setting begins or ends with a space that
            // matters: in a URL one is written %20.
            Some(text) => {
                given.push(Given { key: field.key.clone(), value: read(field.kind, text.trim()), origin });
            }
            None => problems.push(Problem::of(origin, &field.key, "must be UTF-8")),
        }
    }
    given
}

/// The variables of our prefix that are nobody's settings, in the order of their names.
fn passed_over(environment: &[(OsString, OsString)]) -> Vec<String> {
    let names = environment
        .iter()
        .filter_map(|(name, value)| name.to_str().filter(|name| is_of_kubernetes(name, value)));
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// Whether a variable is meant for the server.
fn is_ours(name: &str, value: &OsStr) -> bool {
    let is_other = OTHER_VARIABLES.contains(&name) || name.starts_with(TEST_VARIABLES);
    name.starts_with("LATCHKEY_") && !is_other && !is_of_kubernetes(name, value)
}

/// Whether Kubernetes set a variable. It sets some of our prefix in every pod beside a service of our
/// name, such as `LATCHKEY_PORT_50051_TCP`; those are nobody's mistake.
fn is_of_kubernetes(name: &str, value: &OsStr) -> bool {
    let Some(rest) = name.strip_prefix("LATCHKEY_") else { return false };
    let rest = format!("_{rest}");
    let is_url =
        ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.to_string_lossy().starts_with(scheme));
    ["_SERVICE_HOST", "_SERVICE_PORT"].iter().any(|end| rest.ends_with(end))
        || (rest.ends_with("_PORT") && is_url)
        || rest.contains("_SERVICE_PORT_")
        || rest.split_once("_PORT_").is_some_and(|(_, port)| port.starts_with(|c: char| c.is_ascii_digit()))
}

fn from_flags(sources: &Sources, fields: &[Field], problems: &mut Vec<Problem>) -> Vec<Given> {
    let mut given = Vec::new();
    for (key, text) in &sources.flags {
        match fields.iter().find_map(|field| Some((field, field.flag()?)).filter(|_| field.key == *key)) {
            Some((field, flag)) => {
                let value = read(field.kind, text);
                given.push(Given { key: key.clone(), value, origin: Origin::Flag(flag) });
            }
            None => problems.push(Problem::at(Origin::Flag(key.clone()), "there is no such setting")),
        }
    }
    given
}

/// Takes a text as what the setting holds; what cannot be read stays a text, and is then refused with its place.
fn read(kind: Kind, text: &str) -> toml::Value {
    let value = match kind {
        Kind::Integer { .. } => text.parse().ok().map(toml::Value::Integer),
        Kind::Bool => text.parse().ok().map(toml::Value::Boolean),
        Kind::Text | Kind::Table => None,
    };
    value.unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

/// Says what is wrong with one value, without repeating it.
fn check(field: &Field, value: &toml::Value) -> Result<(), String> {
    match field.kind {
        Kind::Integer { min, max } => {
            let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
            let within = number.is_some_and(|number| (min..=max).contains(&number));
            if within { Ok(()) } else { Err(format!("must be a whole number from {min} to {max}")) }
        }
        Kind::Bool if !value.is_bool() => Err("must be true or false".to_owned()),
        Kind::Text if !value.is_str() => Err("must be a text in quotes".to_owned()),
        Kind::Bool | Kind::Text | Kind::Table => {
            typed(std::iter::once((field.key.as_str(), value))).map(|_| ())
        }
    }
}

/// The struct with these values over its defaults.
fn typed<'a>(values: impl Iterator<Item = (&'a str, &'a toml::Value)>) -> Result<Config, String> {
    let mut table = toml::Table::new();
    for (key, value) in values {
        match key.split_once('.') {
            None => _ = table.insert(key.to_owned(), value.clone()),
            Some((section, name)) => {
                let section = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
                if let Some(section) = section.as_table_mut() {
                    section.insert(name.to_owned(), value.clone());
                }
            }
        }
    }
    let layer = Layer::deserialize(table).map_err(|error| error.message().to_owned())?;
    Config::from_layer(layer.with_fallback(Layer::default_values())).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Case {
        folder: tempfile::TempDir,
        sources: Sources,
    }

    impl Case {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().expect("a folder"), sources: Sources::default() }
        }

        fn file(mut self, text: &str) -> Self {
            let path = self.folder.path().join("latchkey.toml");
            fs::write(&path, text).expect("a file");
            self.sources.file = Some(path);
            self
        }

        fn env(mut self, name: &str, value: &str) -> Self {
            self.sources.environment.push((name.into(), value.into()));
            self
        }

        fn flag(mut self, key: &str, value: &str) -> Self {
            self.sources.flags.push((key.to_owned(), value.to_owned()));
            self
        }

        fn load(&self) -> Loaded {
            load(&self.sources).expect("a configuration that holds")
        }

        /// The problems, one a line, without the folder.
        fn refused(&self) -> String {
            let text = load(&self.sources).expect_err("refused").to_string();
            text.replace(&format!("{}/", self.folder.path().display()), "")
        }
    }

    #[test]
    fn flags_go_before_variables_before_the_file_before_defaults() {
        let case = Case::new()
            .file("[session]\nlifetime_s = 10\nidle_limit_s = 200\nfresh_window_s = 10\n")
            .env("LATCHKEY_SESSION_IDLE_LIMIT_S", "220")
            .env("LATCHKEY_SESSION_FRESH_WINDOW_S", "20")
            .flag("session.fresh_window_s", "30");
        let loaded = case.load();
        let session = &loaded.config.session;
        assert_eq!((session.lifetime_s, session.idle_limit_s, session.fresh_window_s), (10, 220, 30));
        assert_eq!(session.per_user_max, 50);
        let origin = |key: &str| {
            let setting = loaded.settings.iter().find(|setting| setting.field.key == key).expect("it");
            setting.origin.to_string()
        };
        assert!(origin("session.lifetime_s").ends_with("latchkey.toml:2"));
        assert_eq!(origin("session.idle_limit_s"), "LATCHKEY_SESSION_IDLE_LIMIT_S");
        assert_eq!(origin("session.fresh_window_s"), "--session-fresh-window-s");
        assert_eq!(origin("session.per_user_max"), "default");
    }

    #[test]
    fn the_environment_may_name_the_file() {
        let case = Case::new().file("[log]\nfilter = \"debug\"\n");
        let path = case.sources.file.clone().expect("a file");
        let named = Case::new().env("LATCHKEY_CONFIG", path.to_str().expect("UTF-8"));
        assert_eq!(named.load().config.log.filter, "debug");
        let missing = Case::new().env("LATCHKEY_CONFIG", "/nowhere/latchkey.toml").refused();
        assert!(missing.starts_with("LATCHKEY_CONFIG: cannot read /nowhere/latchkey.toml"), "{missing}");
    }

    #[test]
    fn mistakes_in_variables_and_flags_are_named_by_them() {
        for (case, said) in [
            (
                Case::new().env("LATCHKEY_LISTEN", ""),
                "LATCHKEY_LISTEN: must be an IP address and a port, such as 127.0.0.1:50051",
            ),
            (
                Case::new().env("LATCHKEY_LISTN", "x"),
                "LATCHKEY_LISTN: there is no such setting; did you mean LATCHKEY_LISTEN?",
            ),
            (
                Case::new().env("LATCHKEY_DATABASE_URL", "postgres://ada:mar/ker@db/l"),
                "LATCHKEY_DATABASE_URL: must have the form postgres://USER:PASSWORD@HOST:PORT/DATABASE",
            ),
            (
                Case::new().env("LATCHKEY_PORT", "50052"),
                "LATCHKEY_PORT: there is no such setting; did you mean LATCHKEY_LOG_FORMAT?",
            ),
            (Case::new().env("LATCHKEY_INSECURE", "yes"), "LATCHKEY_INSECURE: must be true or false"),
            (Case::new().env("LATCHKEY_CALLERS", "x"), "LATCHKEY_CALLERS: there is no such setting"),
            (
                Case::new().flag("grpc.connections_max", "0"),
                "--grpc-connections-max: must be a whole number from 1 to 1000000",
            ),
            (Case::new().flag("token_keys", "x"), "--token_keys: there is no such setting"),
        ] {
            let refused = case.refused();
            assert!(refused.starts_with(said), "{refused}\n{said}");
        }
        let both = Case::new().env("LATCHKEY_TOKEN_KEYS", "1:marker").flag("token_key_file", "x").refused();
        assert_eq!(both, "--token-key-file: and LATCHKEY_TOKEN_KEYS are both given: give one of them");
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let case = Case::new().file("a = 1\nb = 2\n").env("LATCHKEY_C", "3").flag("insecure", "4");
        assert_eq!(case.refused().lines().count(), 4);
    }

    #[test]
    fn variables_of_clients_tests_and_kubernetes_are_nobodys_mistake() {
        let names = [
            "LATCHKEY_SERVER",
            "LATCHKEY_TEST_POSTGRES_URL",
            "LATCHKEY_PORT_50051_TCP_ADDR",
            "LATCHKEY_SERVICE_HOST",
            "LATCHKEY_SERVICE_PORT_GRPC",
            "LATCHKEY_GRPC_SERVICE_PORT",
            "LATCHKEY_DB_SERVICE_HOST",
            "LATCHKEY_DB_SERVICE_PORT_POSTGRES",
            "LATCHKEY_DB_PORT_5432_TCP",
            "LATCHKEY_DB_PORT_5432_TCP_ADDR",
            "LATCHKEY_METRICS_PORT_9464_TCP_PROTO",
            "PATH",
        ];
        let case = Case::new().env("LATCHKEY_PORT", "tcp://10.0.0.1:50051");
        let loaded = names.into_iter().fold(case, |case, name| case.env(name, "x")).load();
        let told = loaded.passed_over;
        assert!(
            told.contains(&"LATCHKEY_PORT".to_owned()) && told.contains(&"LATCHKEY_SERVICE_HOST".to_owned())
        );
        assert!(!told.iter().any(|name| ["PATH", "LATCHKEY_SERVER"].contains(&name.as_str())), "{told:?}");
        assert!(Case::new().env("LATCHKEY_LISTEN", "127.0.0.1:1").load().passed_over.is_empty());
        for field in fields() {
            assert!(
                field.env().is_none_or(|name| is_ours(&name, OsStr::new("1"))),
                "{} is never read",
                field.key
            );
        }
    }

    #[test]
    fn variables_may_end_in_a_newline() {
        for end in ["", "\n", "\r\n", "  ", "\t\n"] {
            let padded = |value: &str| format!(" {value}{end}");
            let case = Case::new()
                .env("LATCHKEY_LISTEN", &padded("127.0.0.1:1"))
                .env("LATCHKEY_DATABASE_URL", &padded("sqlite://l.db?mode=rwc"))
                .env("LATCHKEY_INSECURE", &padded("true"))
                .env("LATCHKEY_SESSION_LIFETIME_S", &padded("100"))
                .env("LATCHKEY_SESSION_BINDING", &padded("basic"))
                .env("LATCHKEY_TOKEN_KEY_FILE", &padded("/run/token.key"));
            let config = case.load().config;
            assert_eq!(config.listen, "127.0.0.1:1".parse().expect("an address"));
            assert_eq!(config.database_url.masked(), "sqlite://l.db?mode=rwc");
            assert!(config.insecure);
            assert_eq!(
                (config.session.lifetime_s, config.session.binding),
                (100, super::super::Binding::Basic)
            );
            assert_eq!(config.token_key_file, Some(PathBuf::from("/run/token.key")));
        }
        // What is wrong is refused all the same.
        assert!(Case::new().env("LATCHKEY_SESSION_LIFETIME_S", "1 0\n").refused().contains("whole number"));
    }

    #[test]
    fn http_can_be_switched_off() {
        for off in ["", "off"] {
            let loaded = Case::new().env("LATCHKEY_HTTP_LISTEN", off).load();
            assert_eq!(loaded.config.http_listen, super::super::HttpListen::Off);
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        let case = Case::new()
            .env("LATCHKEY_TOKEN_KEYS", "1:marker")
            .env("LATCHKEY_DATABASE_URL", "postgres://ada:marker@db/latchkey");
        let loaded = case.load();
        assert!(!format!("{loaded:?}").contains("marker"));
        let printed = super::super::print(&loaded.settings);
        assert!(!printed.contains("marker") && printed.contains("postgres://ada:***@db/latchkey"));
    }
}
