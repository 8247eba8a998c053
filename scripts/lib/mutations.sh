# Negative controls: each rule that the promises rest on is broken in turn, and its test has to fail. Sourced after
# report.sh.

# kill_mutations FILE: each line names a mutation and the test that notices it; `#` begins a comment.
kill_mutations() {
    local name test killed=0 total=0 survivors=()
    local binary
    binary=$(cargo test --features mutations --test it --no-run --message-format=json |
        python3 -c 'import json, sys
for line in sys.stdin:
    one = json.loads(line)
    if one.get("reason") == "compiler-artifact" and one["target"]["name"] == "it" and one.get("executable"):
        print(one["executable"])') || fail "the tests do not build with the feature mutations"
    while read -r name test; do
        [[ -z $name || $name == \#* ]] && continue
        total=$((total + 1))
        # Without the mutation the test has to pass, or its failure would prove nothing; and it has to be there.
        "$binary" --exact "$test" 2>&1 | grep -q '^test result: ok. 1 passed' ||
            fail "$test is missing, or fails without a mutation"
        local status=0
        LATCHKEY_MUTATION=$name timeout 300 "$binary" --exact "$test" >"$work/mutation.log" 2>&1 || status=$?
        # A test that hangs says nothing about the rule.
        ((status != 124)) || fail "$test does not end with the mutation $name"
        if ((status == 0)); then
            survivors+=("$name ($test)")
            say "ALIVE   $name: $test does not notice it"
        else
            killed=$((killed + 1))
            say "killed  $name by $test"
        fi
    done <"$1"
    say "$killed of $total killed"
    ((${#survivors[@]} == 0 && total > 0)) || fail "not noticed: ${survivors[*]}"
}
