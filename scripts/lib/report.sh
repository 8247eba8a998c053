# How a script speaks: steps and failures. Sourced; needs a function `usage`.

say() {
    printf '%s\n' "$*"
}

step() {
    printf '\n== %s\n' "$*"
}

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

wrong_usage() {
    printf 'error: %s\n\n' "$*" >&2
    usage >&2
    exit 2
}
