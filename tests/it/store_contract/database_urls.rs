//! How a database is reached: each way that a URL may name, on real servers that ask for the password.

use latchkey::store::sql::{OpenError, SqlLimits, SqlStore, migrate_up};

use super::samples::add_user;
use crate::support::databases::{Engine, Raw, TestDatabase, on_each_server, url_of};
use crate::support::own_server::OwnServer;

on_each_server![odd_names_and_passwords_are_taken_over_tcp_and_socket];

/// What people call accounts, and how that is written in a URL.
const USER: (&str, &str) = ("ödd @:/?#%+user", "%C3%B6dd%20%40%3A%2F%3F%23%25+user");
const PASSWORD: (&str, &str) = ("p@:/?#%+&=[] ß\"\\x", "p%40%3A%2F%3F%23%25%2B%26%3D%5B%5D%20%C3%9F%22%5Cx");
const DATABASE: (&str, &str) = ("odd db%20@+", "odd%20db%2520%40+");

async fn odd_names_and_passwords_are_taken_over_tcp_and_socket(db: &TestDatabase) {
    let engine = db.engine();
    let server = OwnServer::start(engine).await;
    let operator = server.operator().await;
    let (scheme, port) = (if engine == Engine::Postgres { "postgres" } else { "mysql" }, server.port());
    let socket = server.socket().display().to_string();
    let encoded_socket = socket.replace('/', "%2F");
    let (user, password, name) = (USER.1, PASSWORD.1, DATABASE.1);
    let mut urls = vec![
        format!("{scheme}://{user}:{password}@127.0.0.1:{port}/{name}"),
        format!("{scheme}://{user}:{password}@{encoded_socket}:{port}/{name}"),
    ];
    if engine == Engine::Postgres {
        add_postgres_account(&operator).await;
        urls.push(format!("postgres://{user}:{password}@/{name}?host={socket}&port={port}"));
        urls.push(format!(
            "postgres:///{name}?user={user}&password={password}&host={encoded_socket}&port={port}"
        ));
    } else {
        add_mariadb_account(&operator).await;
        urls.push(format!("mysql://{user}:{password}@localhost/{name}?socket={socket}"));
    }
    operator.close().await;
    for (number, url) in urls.iter().enumerate() {
        let url = url_of(url);
        migrate_up(&url, SqlLimits::default()).await.unwrap_or_else(|error| panic!("{url:?}: {error}"));
        let store = SqlStore::open(&url, SqlLimits::default()).await.expect("the store opens");
        add_user(&store, &format!("user-{number}")).await;
        store.close().await;
    }
    // The control: the server does ask for the password, on every way, and no error repeats it.
    for url in urls {
        let wrong = url_of(&url.replace(password, "wr%40ng"));
        let refused =
            SqlStore::open(&wrong, SqlLimits::default()).await.err().expect("a wrong password is refused");
        let text = refused.to_string();
        assert!(matches!(refused, OpenError::Unreachable(_)) && !text.contains("wr@ng"), "{url}: {text}");
    }
}

async fn add_postgres_account(operator: &Raw) {
    let (user, password) = (USER.0, PASSWORD.0.replace('\'', "''"));
    operator.run("SET standard_conforming_strings = on").await;
    operator.run(&format!("CREATE ROLE \"{user}\" LOGIN PASSWORD '{password}'")).await;
    operator.run(&format!("CREATE DATABASE \"{}\" OWNER \"{user}\"", DATABASE.0)).await;
    // Whoever else comes is believed, as the other tests need it.
    let rules = [
        format!("local all \"{user}\" scram-sha-256"),
        format!("host all \"{user}\" 127.0.0.1/32 scram-sha-256"),
        "local all all trust".to_owned(),
        "host all all 127.0.0.1/32 trust".to_owned(),
    ];
    let file = operator.text("SELECT current_setting('hba_file')").await;
    let rules = rules.map(|rule| format!("'{rule}'")).join(", ");
    operator.run(&format!("COPY (SELECT unnest(ARRAY[{rules}])) TO '{file}'")).await;
    operator.run("SELECT pg_reload_conf()").await;
}

async fn add_mariadb_account(operator: &Raw) {
    let password = PASSWORD.0.replace('\\', "\\\\");
    operator.run("SET NAMES utf8mb4").await;
    operator.run(&format!("CREATE DATABASE `{}`", DATABASE.0)).await;
    for host in ["127.0.0.1", "localhost"] {
        let account = format!("`{}`@'{host}'", USER.0);
        operator.run(&format!("CREATE USER {account} IDENTIFIED BY '{password}'")).await;
        operator.run(&format!("GRANT ALL PRIVILEGES ON *.* TO {account}")).await;
    }
}
