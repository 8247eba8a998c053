//! `user create`.

use std::collections::HashMap;

use clap::Args;
use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::failure::Outcome;
use crate::cli::{output, secret};
use crate::grpc::proto::admin::CreateUserRequest;

/// Add a user; asks for the password.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  latchkey user create ada --display-name 'Ada Lovelace' --role admin\n  \
    pass show ada | latchkey user create ada --password-stdin\n  \
    latchkey user create robot --no-password --attribute team=blue"
)]
pub(in crate::cli) struct Create {
    /// Login name.
    login: String,
    /// What to call the user.
    #[arg(long, value_name = "NAME", default_value = "")]
    display_name: String,
    /// A role; may be given many times.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// An attribute; may be given many times.
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// Id of the user, a UUID, where it comes from another system.
    #[arg(long, value_name = "UUID", default_value = "")]
    user_id: String,
    #[command(flatten)]
    password: PasswordSource,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Where the password comes from; without any of these, it is asked for.
#[derive(Debug, Args)]
struct PasswordSource {
    /// Read the password from stdin.
    #[arg(long, conflicts_with_all = ["no_password", "password_hash_stdin"])]
    password_stdin: bool,
    /// Make a user who cannot sign in by password.
    #[arg(long, conflicts_with = "password_hash_stdin")]
    no_password: bool,
    /// Read a password hash of another system from stdin, instead of a password.
    #[arg(long)]
    password_hash_stdin: bool,
    /// What the hash is, where it does not say so itself.
    #[arg(long, value_name = "SCHEME", default_value = "", requires = "password_hash_stdin")]
    password_hash_scheme: String,
}

impl Create {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut request = CreateUserRequest {
            login: self.login,
            display_name: self.display_name,
            roles: self.roles,
            attributes: HashMap::from_iter(self.attributes),
            user_id: self.user_id,
            password_hash_scheme: self.password.password_hash_scheme,
            ..CreateUserRequest::default()
        };
        if self.password.password_hash_stdin {
            secret::read("Password hash", true)?.as_str().clone_into(&mut request.password_hash);
        } else if !self.password.no_password {
            secret::read_new("Password", self.password.password_stdin)?
                .as_str()
                .clone_into(&mut request.password);
        }
        self.connection.run(async move |server| {
            let answer = server.users().create_user(request).await?.into_inner();
            let user = answer.user.unwrap_or_default();
            if self.json {
                output::print_json(&json!({ "user": output::user_json(&user) }))
            } else {
                output::print(&output::user_card(&user))
            }
        })
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_cut_at_the_first_equals_sign() {
        assert_eq!(attribute("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(attribute("a="), Ok(("a".to_owned(), String::new())));
        assert!(attribute("a").is_err());
    }
}
