# The honest summary: tests are counted from what cargo printed, and only for engines that were asked for, since the
# tests of another engine pass without doing anything. Sourced after report.sh.

# summarize LOG ENGINE...: fails when an engine that was asked for ran no test.
summarize() {
    local log=$1 engine passed failed outcome=0
    shift
    for engine in sqlite postgres mariadb; do
        if [[ " $* " != *" $engine "* ]]; then
            printf '%-9s not asked for\n' "$engine"
            continue
        fi
        passed=$(count_tests "$log" "::$engine" ok)
        failed=$(count_tests "$log" "::$engine" FAILED)
        printf '%-9s %4d passed, %d failed\n' "$engine" "$passed" "$failed"
        if ((passed + failed == 0)); then
            say "$engine was asked for, but ran no test"
            outcome=1
        fi
    done
    passed=$(count_tests "$log" '' ok)
    failed=$(count_tests "$log" '' FAILED)
    printf '%-9s %4d passed, %d failed\n' "all tests" "$passed" "$failed"
    return "$outcome"
}

# count_tests LOG SUFFIX OUTCOME: tests whose name ends in SUFFIX.
count_tests() {
    grep -cE "^test .*$2( - [^.]*)? \.\.\. $3\$" "$1" || true
}
