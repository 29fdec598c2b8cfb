#!/usr/bin/env bash
# Fuzzes the API from its own description: starts the binary on loopback with a few services, has schemathesis send what the
# description allows and what it forbids, and expects no server error, no answer that is not described, no forbidden request
# taken and no allowed one refused. What could do harm (commands to run, hosts to probe, thousands of replicas, waiting for
# minutes) is taken out of requests by fuzz_hooks.py.
#
# usage: fuzz.sh [SEED]
#   COREDINATOR    the binary; built if not given
#   SCHEMATHESIS   the schemathesis command; installed into a virtual environment if not given
#   FUZZ_SECONDS   how long (60)
#   FUZZ_EXAMPLES  how many requests to each operation in random fuzzing (100)
#
# Exit code: 0 nothing found (or, with a line that says so, left out because schemathesis cannot be had), else 1.
set -euo pipefail
version=4.32.5
here=$(cd "$(dirname "$0")" && pwd)
seed=${1:-$((RANDOM * 32768 + RANDOM))}
seconds=${FUZZ_SECONDS:-60}
folder=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ] && kill "$server" 2>/dev/null; then wait "$server" || true; fi
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT TERM

schemathesis=${SCHEMATHESIS:-}
if [ -z "$schemathesis" ]; then
    if ! { python3 -m venv "$folder/venv" && timeout 120 "$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
        "schemathesis==$version"; } >"$folder/install.log" 2>&1; then
        echo "fuzzing is left out: schemathesis $version cannot be installed ($(tail -n 1 "$folder/install.log"))"
        exit 0
    fi
    schemathesis=$folder/venv/bin/schemathesis
fi

binary=${COREDINATOR:-}
if [ -z "$binary" ]; then
    cargo build --quiet --locked -p coredinator-http --manifest-path "$here/../Cargo.toml"
    target=$(cargo metadata --format-version 1 --no-deps --manifest-path "$here/../Cargo.toml" |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    binary=$target/debug/coredinator
fi

cat >"$folder/plant.yaml" <<'YAML'
coredinator:
  coordination:
    sync_interval: 0.2
    resources: {steam: {capacity: 10}}
    variables: {level: {min: 0, max: 10}}
  services:
    web: {runtime: process, command: [sleep, "100000"], replicas: 2}
    once: {runtime: process, command: ["true"], restart_policy: "no"}
    missing: {runtime: process, command: [/nowhere/to/be/found]}
    beat: {host: localhost, health_check: {ttl: 600}}
    port: {host: localhost, port: 9, health_endpoint: /health}
YAML
"$binary" serve --config "$folder/plant.yaml" --data-dir "$folder/data" --host 127.0.0.1 --port 0 >"$folder/log" 2>&1 &
server=$!
url=
for _ in $(seq 300); do
    url=$(sed -n 's/.*listening on \(http:[0-9.:/]*\).*/\1/p' "$folder/log" | head -n 1)
    if [ -n "$url" ] || ! kill -0 "$server" 2>/dev/null; then break; fi
    sleep 0.1
done
if [ -z "$url" ]; then
    echo "coredinator did not start:"
    cat "$folder/log"
    exit 1
fi

# Agents that are there; half of all requests about agents reach them.
for agent in fuzzed-1 fuzzed-2; do
    python3 - "$url/api/coredinator/agents/register" "$agent" <<'PYTHON'
import json, sys, urllib.request
body = json.dumps({"agent_id": sys.argv[2], "fallback": "release"}).encode()
urllib.request.urlopen(urllib.request.Request(sys.argv[1], body, {"content-type": "application/json"}))
PYTHON
done

# 412: another configuration than the one in force was named. 422: what a schema cannot tell, such as two keys that exclude
# each other. 504: not settled within `wait`. 428: what is asked of a change that names no configuration at all.
cat >"$folder/schemathesis.toml" <<'TOML'
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "412", "422", "504"]
[checks.missing_required_header]
expected-statuses = ["400", "422", "428"]
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "504"]
TOML

# What is meant to be refused is judged before it is written into a query, where false and "false" are the same text, so that
# check tells of requests that are right; refusals are left to the tests of the API. So are methods: GET and DELETE of the path of registrations are those of a service of that name.
echo "fuzzing $url for $seconds s; seed $seed: fuzz.sh $seed repeats it"
found=0
cd "$folder"
PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=fuzz_hooks NO_COLOR=1 timeout $((seconds + 90)) "$schemathesis" run "$url/openapi.json" \
    --seed "$seed" --max-time "$seconds" --max-examples "${FUZZ_EXAMPLES:-100}" --phases examples,coverage,fuzzing \
    --checks all --exclude-checks negative_data_rejection,allow_header_conformance,unsupported_method,ignored_auth,object_level_authorization,use_after_free,ensure_resource_availability \
    --request-timeout 30 --continue-on-failure --warnings off --generation-database none || found=1
if ! kill -0 "$server" 2>/dev/null; then
    echo "coredinator has ended:"
    found=1
elif grep -q '"ERROR"\|panicked' "$folder/log"; then
    echo "coredinator has logged errors:"
    found=1
fi
if [ $found != 0 ]; then
    grep '"WARN"\|"ERROR"\|panicked' "$folder/log" | tail -n 20 || true
fi
exit $found
