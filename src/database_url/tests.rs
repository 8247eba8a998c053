//! Tables of URLs: what each spelling means, what is refused and in which words, and that no password is shown.

use super::*;

fn server(url: &str) -> ServerUrl {
    match DatabaseUrl::parse(url) {
        Ok(DatabaseUrl::Server(server)) => server,
        other => panic!("{url}: {other:?}"),
    }
}

fn tcp(name: &str, port: u16) -> Host {
    Host::Tcp(name.to_owned(), port)
}

fn socket(path: &str, port: u16) -> Host {
    Host::Socket(path.to_owned(), port)
}

#[test]
fn each_spelling_names_its_hosts() {
    for (url, hosts) in [
        ("postgres://u:p@db.example/auth", vec![tcp("db.example", 5432)]),
        ("postgresql://db:5433/auth", vec![tcp("db", 5433)]),
        ("mysql://u@db/auth", vec![tcp("db", 3306)]),
        ("mariadb://u@db:3307/auth", vec![tcp("db", 3307)]),
        ("mysql:///auth", vec![tcp("localhost", 3306)]),
        ("postgres:///auth", vec![Host::Default]),
        ("postgres://u:p@/auth", vec![Host::Default]),
        ("postgres:///auth?port=5433", vec![tcp("localhost", 5433)]),
        // IPv6, in brackets or as a parameter.
        ("postgres://u@[::1]/auth", vec![tcp("::1", 5432)]),
        ("postgres://u@[2001:DB8::1]:5433/auth", vec![tcp("2001:db8::1", 5433)]),
        ("postgres:///auth?hostaddr=::1&port=1", vec![tcp("::1", 1)]),
        ("mysql://u@[::1]:3307/auth", vec![tcp("::1", 3307)]),
        // Sockets.
        ("postgres:///auth?host=/run/postgresql", vec![socket("/run/postgresql", 5432)]),
        ("postgres://localhost/auth?host=/run/a%20b&port=5433", vec![socket("/run/a b", 5433)]),
        ("postgres://u:p@%2Frun%2Fpostgresql/auth", vec![socket("/run/postgresql", 5432)]),
        ("postgres://%2Frun%2Fpostgresql:5433/auth", vec![socket("/run/postgresql", 5433)]),
        ("mysql://u@localhost/auth?socket=/run/m.sock", vec![socket("/run/m.sock", 3306)]),
        ("mysql://u@%2Frun%2Fm.sock/auth", vec![socket("/run/m.sock", 3306)]),
        // Several, with ports of their own or one for all.
        ("postgres://u:p@a,b/auth", vec![tcp("a", 5432), tcp("b", 5432)]),
        ("postgres://u:p@a:1,b:2/auth", vec![tcp("a", 1), tcp("b", 2)]),
        ("postgres://u:p@a:1,b/auth", vec![tcp("a", 1), tcp("b", 5432)]),
        (
            "postgres://u:p@[::1]:1,%2Frun,127.0.0.1/auth",
            vec![tcp("::1", 1), socket("/run", 5432), tcp("127.0.0.1", 5432)],
        ),
        ("postgres:///auth?host=a,/run&port=1,2", vec![tcp("a", 1), socket("/run", 2)]),
        ("postgres:///auth?host=a,b&port=7", vec![tcp("a", 7), tcp("b", 7)]),
        ("mysql://u:p@a:1,b:2,[::1]/auth", vec![tcp("a", 1), tcp("b", 2), tcp("::1", 3306)]),
    ] {
        assert_eq!(server(url).hosts(), hosts, "{url}");
    }
}

#[test]
fn user_password_and_database_are_decoded_and_reach_the_driver() {
    for (url, reached) in [
        ("postgres://a%40b:p%3A%2F%3F%23%25@h/d%20b", "postgres://a%40b:p%3A%2F%3F%23%25@h:5432/d%20b"),
        ("postgres://a:gr%C3%BCn@h/b", "postgres://a:gr%C3%BCn@h:5432/b"),
        ("postgres://a:grün@h/b", "postgres://a:gr%C3%BCn@h:5432/b"),
        ("postgres://a@h/b", "postgres://a@h:5432/b"),
        ("postgres://a:@h", "postgres://a@h:5432/"),
        ("postgres:///b?user=a%40b&password=p+q%26", "postgres:///b?user=a%40b&password=p%2Bq%26"),
        ("postgres://x:y@h/z?user=a&password=p&dbname=b", "postgres://a:p@h:5432/b"),
        (
            "postgres://h/b?sslmode=verify-full&target_session_attrs=any",
            "postgres://h:5432/b?sslmode=verify%2Dfull",
        ),
        ("postgres://u:p@[::1]/b", "postgres://u:p@[::1]:5432/b"),
        ("postgres://u:p@%2Frun/b", "postgres://u:p@%2Frun:5432/b"),
        ("mysql://u:p@h/b?socket=/run/m", "mysql://u:p@localhost/b?socket=%2Frun%2Fm"),
        (
            "mariadb://u:p%2F@h,g/b?ssl-mode=VERIFY_IDENTITY",
            "mysql://u:p%2F@h:3306/b?ssl-mode=VERIFY%5FIDENTITY",
        ),
    ] {
        let server = server(url);
        assert_eq!(*server.driver_url(&server.hosts()[0]), reached, "{url}");
    }
}

#[test]
fn the_host_that_takes_writes_is_the_default() {
    for (query, target) in [
        ("", SessionTarget::ReadWrite),
        ("?target_session_attrs=read-write", SessionTarget::ReadWrite),
        ("?target_session_attrs=primary", SessionTarget::Primary),
        ("?target_session_attrs=any", SessionTarget::Any),
    ] {
        assert_eq!(server(&format!("postgres://a,b/auth{query}")).target(), target);
    }
    assert_eq!(server("mysql://a,b/auth").target(), SessionTarget::ReadWrite);
}

#[test]
fn a_sqlite_url_names_its_file() {
    let parsed = |url: &str| DatabaseUrl::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    for (url, file, creates) in [
        ("sqlite://latchkey.db?mode=rwc", "latchkey.db", true),
        ("sqlite:///var/lib/latchkey.db", "/var/lib/latchkey.db", false),
        ("sqlite:latchkey.db", "latchkey.db", false),
        ("sqlite:///var/my%20data/a%3Fb%25.db?mode=rwc", "/var/my data/a?b%.db", true),
        ("sqlite://mode=memory.db?mode=%72wc", "mode=memory.db", true),
        ("sqlite://a:memory:b.db?cache=private", "a:memory:b.db", false),
    ] {
        let DatabaseUrl::Sqlite(sqlite) = parsed(url) else { panic!("{url}") };
        assert_eq!((sqlite.file(), sqlite.creates_file()), (Some(Path::new(file)), creates), "{url}");
    }
    for url in ["sqlite::memory:", "sqlite://:memory:", "sqlite://x?mode=memory", "postgres://db/latchkey"] {
        assert_eq!(parsed(url).sqlite_file(), None, "{url}");
    }
    for file in ["/tmp/a.db", "/tmp/a b%20?#.db"] {
        let url = DatabaseUrl::of_sqlite_file(Path::new(file));
        assert_eq!((url.sqlite_file(), url.is_shared()), (Some(file.into()), false));
        assert_eq!(parsed(&url.masked()), url);
    }
}

#[test]
fn what_is_wrong_is_told_without_the_password() {
    for (url, told) in [
        ("geheim", "must begin with sqlite:, postgres: or mysql:"),
        ("mssql://u:geheim@h/b", "must begin with sqlite:, postgres: or mysql:"),
        ("postgres:geheim", "must begin with postgres://"),
        ("postgres://u:geheim@host:port/db", "must have the form postgres://"),
        ("mysql://u:geheim@host:99999/db", "must have the form mysql://"),
        ("postgres://u:geheim@::1/db", "must have the form"),
        ("postgres://u:geheim@[::1/db", "an IPv6 address in brackets"),
        ("postgres://u:geheim@[::g]/db", "an IPv6 address in brackets"),
        ("postgres://u:geheim@a,,b/db", "must have the form"),
        ("postgres://u:geheim@a,b:x/db", "must have the form"),
        ("postgres://u:p@a,u:geheim@b/db", "must have the form"),
        ("postgres://u:ge@heim@b/db", "@ is %40"),
        ("postgres://u:geheim@h/a/b", "must have the form"),
        ("postgres://u:ge/heim@h/b", "/ is %2F"),
        ("postgres://u:ge#heim@h/b", "percent-encoded"),
        ("postgres://u:geheim?@h/b", "percent-encoded"),
        ("postgres://u:geheim\n@h/b", "a control character must be percent-encoded"),
        ("postgres://u:geheim%@h/b", "%25 for % itself"),
        ("postgres://u:geheim%zz@h/b", "%25 for % itself"),
        ("postgres://u:geheim%00@h/b", "%25 for % itself"),
        ("postgres://u:geheim%FF@h/b", "must be UTF-8"),
        ("postgres://u:geheim@h/b?port=0", "port must be from 1 to 65535"),
        ("postgres://u:geheim@h/b?port=x", "port must be from 1 to 65535"),
        ("postgres://u:geheim@/b?host=a,b,c&port=1,2", "one for all hosts, or one for each"),
        ("postgres://u:geheim@/b?host=a,,c", "a host of the list is empty"),
        ("postgres://u:geheim@/b?hostaddr=localhost", "hostaddr must be an IP address"),
        ("postgres://u:geheim@h/b?target_session_attrs=standby", "a node writes, which no standby allows"),
        ("postgres://u:geheim@h/b?target_session_attrs=x", "read-write, primary or any"),
        ("postgres://u:geheim@h/b?sslmode=verify_full", "sslmode must be one of disable,"),
        ("postgres://u:geheim@h/b?sslmode=disable&sslmode=disable", "sslmode must be given once"),
        ("postgres://u:geheim@h/b?statement-cache-capacity=x", "must be a whole number"),
        ("postgres://u@h/b?pasword=geheim", "unknown parameter pasword;"),
        ("postgres://u@h/b?password=x&geheim=1", "unknown parameter;"),
        ("postgres://u:p?geheim=@h/b", "percent-encoded"),
        ("postgres://u:1?geheim=@h/b", "unknown parameter;"),
        ("postgres://u@h/b?options[geheim]=1", "unknown parameter;"),
        ("mysql://u:geheim@h/b?target_session_attrs=any", "unknown parameter target_session_attrs;"),
        ("mysql://u@h/b?password=geheim", "unknown parameter;"),
        ("mysql://u@h/b?%73slmode=geheim", "unknown parameter;"),
        ("mysql://u:geheim@h/b?ssl-mode=full", "ssl-mode must be one of disabled,"),
        ("mysql://u:geheim@a,b/b?socket=/run/m", "either socket or several hosts"),
        ("mysql://u:geheim@h/b?socket=m.sock", "socket must be an absolute path"),
        ("sqlite://a.db?key=geheim", "unknown parameter key;"),
        ("sqlite://a.db?mode=nonsense", "mode must be one of ro, rw, rwc, memory"),
        ("sqlite://a.db?mode=rw&mode=rwc", "mode must be given once"),
        ("sqlite://?mode=rwc", "must name a file"),
        ("sqlite://a%zz.db", "%25 for % itself"),
    ] {
        let error = match DatabaseUrl::parse(url) {
            Err(error) => error.to_string(),
            Ok(parsed) => panic!("{url}: {parsed:?}"),
        };
        assert!(error.contains(told), "{url}: {error}");
        assert!(!error.contains("heim"), "{url}: {error}");
    }
}

#[test]
fn no_spelling_of_a_url_shows_its_password() {
    for (url, shown) in [
        ("postgres://ada:marker@db/latchkey", "postgres://ada:***@db/latchkey"),
        ("postgresql://ada:mar%40ker@db/latchkey", "postgres://ada:***@db/latchkey"),
        ("postgres://ada@db:5433/latchkey", "postgres://ada@db:5433/latchkey"),
        ("postgres://db/l?user=a&password=marker", "postgres://a:***@db/l"),
        ("postgres://a%2Fb:marker@[::1],%2Frun:1/d%20b", "postgres://a%2Fb:***@[::1],%2Frun:1/d%20b"),
        (
            "postgres:///l?host=/run&target_session_attrs=any&options=-c+a",
            "postgres://%2Frun/l?options=-c%2Ba&target_session_attrs=any",
        ),
        ("mysql://ada:marker@db/latchkey?ssl-mode=required", "mysql://ada:***@db/latchkey?ssl-mode=required"),
        ("sqlite::memory:", "sqlite::memory:"),
        ("sqlite://latchkey.db?mode=rwc", "sqlite://latchkey.db?mode=rwc"),
    ] {
        let parsed = DatabaseUrl::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(parsed.masked(), shown);
        assert_eq!(format!("{parsed:?}"), format!("DatabaseUrl({shown})"));
        // What is shown is the same database, by another password.
        let again = DatabaseUrl::parse(shown).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(again.masked(), shown);
    }
}
