# Throw-away PostgreSQL and MariaDB servers: fresh data in "$work", a free loopback port, an unprivileged user, stopped
# by their own process id. Servers that run on this machine already are never touched. Sourced after tools.sh.

ready_seconds_max=60
stop_seconds_max=20
server_pids=()

# start_databases ENGINE...: starts what is asked for, and exports the URL at which tests find it.
start_databases() {
    local engine
    for engine in "$@"; do
        case $engine in
            sqlite) say "SQLite: files, no server" ;;
            postgres) start_server "PostgreSQL" postgres prepare_postgres run_postgres postgres_answers ;;
            mariadb) start_server "MariaDB" mysql prepare_mariadb run_mariadb mariadb_answers ;;
        esac
    done
}

# start_server NAME USER PREPARE RUN ANSWERS. A port that was free may be taken before the server binds it, hence the
# second and third attempt.
start_server() {
    local name=$1 user=$2 prepare=$3 run=$4 answers=$5
    local attempt home port
    for attempt in 1 2 3; do
        home=$work/$user-$attempt
        port=$(free_port)
        mkdir "$home"
        ((EUID != 0)) || chown "$(server_user "$user")" "$home"
        # Without `exec` the shell in between would get the signals that are meant for the server.
        "$prepare" "$user" "$home" >"$work/$user.log" 2>&1 ||
            { tail -n 40 "$work/$user.log" >&2 && fail "$name could not make its data directory"; }
        "$run" "$user" "$home" "$port" >>"$work/$user.log" 2>&1 &
        server_pids+=($!)
        if wait_until_ready "$!" "$answers" "$home" "$port"; then
            say "$name listens on port $port"
            return
        fi
    done
    tail -n 40 "$work/$user.log" >&2
    fail "$name did not get ready within $ready_seconds_max s, three times"
}

wait_until_ready() {
    local pid=$1 answers=$2 home=$3 port=$4
    local deadline=$((SECONDS + ready_seconds_max))
    while ((SECONDS < deadline)); do
        kill -0 "$pid" 2>/dev/null || return 1
        "$answers" "$home" "$port" >/dev/null 2>&1 && return
        sleep 0.2
    done
    return 1
}

# stop_databases: asks each server to stop, and ends it when it does not. Safe to call twice.
stop_databases() {
    local pid deadline
    for pid in "${server_pids[@]}"; do
        # Data is thrown away, so neither server needs an orderly end: QUIT is PostgreSQL's immediate stop and takes
        # its children along; MariaDB stops on TERM.
        kill -QUIT "$pid" 2>/dev/null || true
        kill -TERM "$pid" 2>/dev/null || true
    done
    deadline=$((SECONDS + stop_seconds_max))
    for pid in "${server_pids[@]}"; do
        while kill -0 "$pid" 2>/dev/null && ((SECONDS < deadline)); do
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    server_pids=()
}

# server_user USER: the account of the package, or the one that owns nothing where the package made none.
server_user() {
    if id "$1" >/dev/null 2>&1; then echo "$1"; else echo nobody; fi
}

# as USER COMMAND...: becomes the command, as that user when started by root (PostgreSQL refuses root).
as() {
    local user
    user=$(server_user "$1")
    shift
    if ((EUID == 0)); then
        exec setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups env HOME="$work" "$@"
    else
        exec "$@"
    fi
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

prepare_postgres() {
    # The subshell keeps `exec` from ending this script.
    (cd "$2" && as "$1" "$(postgres_bin)/initdb" --pgdata="$2/data" --username=latchkey --auth=trust \
        --encoding=UTF8 --no-locale --no-sync)
}

run_postgres() {
    cd "$2"
    as "$1" "$(postgres_bin)/postgres" -D "$2/data" -p "$3" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories="$2" \
        -c max_connections=400 -c max_wal_senders=0 -c wal_level=minimal -c shared_buffers=256MB
}

postgres_answers() {
    "$(postgres_bin)/psql" -h 127.0.0.1 -p "$2" -U latchkey -d postgres -Atc 'SELECT 1' || return 1
    export LATCHKEY_TEST_POSTGRES_URL=postgres://latchkey@127.0.0.1:$2/postgres
}

prepare_mariadb() {
    printf '%s\n' "CREATE USER latchkey@'127.0.0.1';" \
        "GRANT ALL PRIVILEGES ON *.* TO latchkey@'127.0.0.1' WITH GRANT OPTION;" >"$2/accounts.sql"
    chmod 644 "$2/accounts.sql"
    (cd "$2" && as "$1" mariadb-install-db --no-defaults --datadir="$2/data" --skip-test-db \
        --auth-root-authentication-method=normal)
}

run_mariadb() {
    cd "$2"
    PATH=$PATH:/usr/sbin
    # The character set is the worst that a real server may have: a schema that does not name its own fails here.
    as "$1" mariadbd --no-defaults --datadir="$2/data" --port="$3" --bind-address=127.0.0.1 \
        --socket="$2/socket" --pid-file="$2/pid" --init-file="$2/accounts.sql" --skip-name-resolve \
        --max-connections=400 --innodb-buffer-pool-size=256M \
        --character-set-server=latin1 --collation-server=latin1_swedish_ci
}

mariadb_answers() {
    mariadb-admin --no-defaults -h 127.0.0.1 -P "$2" --protocol=tcp -u latchkey ping || return 1
    export LATCHKEY_TEST_MARIADB_URL=mysql://latchkey@127.0.0.1:$2
}
