//! Where a starting node takes the keys from that sign its tokens: the environment, a file, or, for a database that no
//! other node shares, a file that is made on the first start.

use std::path::{Path, PathBuf};

use super::failure::{Exit, Failure};
use crate::config::Config;
use crate::domain::token::{KeyId, KeyRing, TokenKey};
use crate::host::{Entropy, random};
use crate::key_file::{self, KeyFileError};

const FILE_NAME: &str = "latchkey.key";

/// The keys of a node.
pub(super) struct TokenKeys {
    pub(super) ring: KeyRing,
    /// The file that was made just now, if one was.
    pub(super) made: Option<PathBuf>,
}

/// Finds the keys.
pub(super) fn find(config: &Config, entropy: &dyn Entropy) -> Result<TokenKeys, Failure> {
    let given = |ring| TokenKeys { ring, made: None };
    if let Some(text) = &config.token_keys {
        let ring = KeyRing::parse(text.expose());
        return ring.map(given).map_err(|error| bad(&format!("LATCHKEY_TOKEN_KEYS: {error}")));
    }
    if let Some(file) = &config.token_key_file {
        return key_file::read(file).map(given).map_err(|error| unusable(&error));
    }
    if config.database_url.is_shared() {
        return Err(bad("nodes that share a database sign with the same keys, and none are given").hint(
            "make a file once with `latchkey key new FILE`, and give it to every node with --token-key-file or \
             LATCHKEY_TOKEN_KEY_FILE",
        ));
    }
    let Some(database) = config.database_url.sqlite_file() else {
        // The sessions of a database in memory do not outlive the process; its key need not either.
        let ring = KeyRing::new(vec![TokenKey::new(KeyId(1), random(entropy))]);
        return ring.map(given).map_err(|error| bad(&error.to_string()));
    };
    let file = beside(&database);
    let (ring, is_new) = key_file::load_or_create(&file, entropy).map_err(|error| unusable(&error))?;
    Ok(TokenKeys { ring, made: is_new.then_some(file) })
}

fn beside(database: &Path) -> PathBuf {
    database.parent().map_or_else(|| PathBuf::from(FILE_NAME), |folder| folder.join(FILE_NAME))
}

fn unusable(error: &KeyFileError) -> Failure {
    bad(&error.to_string())
}

fn bad(message: &str) -> Failure {
    Failure::new(Exit::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources, load};
    use crate::database_url::DatabaseUrl;
    use crate::host::SeededEntropy;

    fn found(config: &Config) -> Result<TokenKeys, String> {
        find(config, &SeededEntropy::new(1)).map_err(|failure| format!("{failure:?}"))
    }

    fn with_variable(name: &str, value: &str) -> Config {
        let environment = vec![(name.into(), value.into())];
        load(&Sources { environment, ..Sources::default() }).expect("it holds").config
    }

    #[test]
    fn a_sqlite_node_makes_its_file_beside_the_database_and_finds_it_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let database_url = DatabaseUrl::of_sqlite_file(&folder.path().join("a.db"));
        let config = Config { database_url, ..Config::default() };
        assert_eq!(found(&config).expect("made").made, Some(folder.path().join("latchkey.key")));
        assert_eq!(found(&config).expect("found").made, None);
        assert_eq!(beside(Path::new("latchkey.db")), Path::new("latchkey.key"));
    }

    #[test]
    fn a_shared_database_needs_its_keys_given() {
        let refused =
            found(&with_variable("LATCHKEY_DATABASE_URL", "postgres://db/latchkey")).err().expect("refused");
        assert!(refused.contains("latchkey key new"), "{refused}");
    }

    #[test]
    fn keys_of_the_environment_are_taken_and_never_told() {
        let ring = KeyRing::new(vec![TokenKey::new(KeyId(9), [1; 32])]).expect("a ring");
        let keys = found(&with_variable("LATCHKEY_TOKEN_KEYS", ring.to_text().trim())).expect("taken");
        assert_eq!((keys.ring.keys()[0].id(), keys.made), (KeyId(9), None));
        let two = ring.with_new_key(Some(KeyId(8)), [2; 32]).expect("a ring");
        let entries: Vec<_> = two.to_text().lines().map(str::to_owned).collect();
        let lines = two.to_text().replace('\n', "\r\n");
        for text in [
            two.to_text().as_str(),
            &lines,
            &format!("# keys\n\n  {lines}  \n"),
            &entries.join(","),
            &entries.join(" "),
        ] {
            let keys = found(&with_variable("LATCHKEY_TOKEN_KEYS", text)).expect("taken");
            assert_eq!(
                keys.ring.keys().iter().map(TokenKey::id).collect::<Vec<_>>(),
                [KeyId(9), KeyId(8)],
                "{text:?}"
            );
        }
        let refused = found(&with_variable("LATCHKEY_TOKEN_KEYS", "9:marker")).err().expect("refused");
        assert!(refused.contains("LATCHKEY_TOKEN_KEYS") && !refused.contains("marker"), "{refused}");
    }

    #[test]
    fn a_given_file_is_never_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x.key");
        let config = Config { token_key_file: Some(file.clone()), ..Config::default() };
        assert!(found(&config).is_err());
        assert!(!file.exists());
    }

    #[test]
    fn a_database_in_memory_leaves_no_file() {
        assert_eq!(
            found(&with_variable("LATCHKEY_DATABASE_URL", "sqlite::memory:")).expect("keys").made,
            None
        );
        assert!(!Path::new(FILE_NAME).exists());
    }
}
