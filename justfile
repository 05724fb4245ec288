# Shortcuts for development. Each recipe is a plain command; `.ci/run` does not need just.

# List the recipes.
default:
    @just --list

# Format, lints, unit tests and black-box tests: under five minutes on two cores from a warm build.
check:
    cargo fmt --all --check
    .ci/layout
    cargo clippy --locked --workspace --all-targets -- -D warnings
    cargo test --locked --lib --bins --test it

# All tests of the workspace, with the crash tests of the storage engines.
test:
    cargo test --locked --workspace

# The tests of `just test` and those that need Prometheus, the official Pushgateway or much time.
test-all:
    cargo test --locked --workspace -- --include-ignored

# The conformance suite against the recorded results of the official program.
conformance *arguments:
    cargo build --locked --release
    python3 tests/conformance/run.py --cases cases_public --expected tests/conformance/expected.json \
        --later tests/conformance/later.txt {{ arguments }} \
        --target-cmd 'target/release/sluicegate --web.listen-address=127.0.0.1:{port} {flags}'

# Fuzz one target (text, protobuf, push_url, accept, encoded, shard). Needs cargo-fuzz.
fuzz target='text' seconds='60':
    mkdir -p target/fuzz-corpus/{{ target }}
    cargo fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none {{ target }} \
        target/fuzz-corpus/{{ target }} tests/fuzz/corpus/{{ target }} -- \
        -max_len=4096 -timeout=10 -max_total_time={{ seconds }}

# What one hostile client can do: just attacks --only gzip. See tests/attacks/README.md.
attacks *arguments:
    cargo build --locked --release --package sluicegate --package sluicegate-attacks
    target/release/sluicegate-attacks --quick --budget-mib=256 {{ arguments }} \
        --gateway 'target/release/sluicegate --web.listen-address=127.0.0.1:{port} --memory.in-flight-max=256MiB'

# Benchmarks of the code paths (criterion), or one of them: just bench push.
bench name='*':
    cargo bench --locked --bench '{{ name }}'

# Licenses, sources and duplicate versions of the dependencies. Needs cargo-deny.
deny:
    cargo deny check bans licenses sources

# Everything, as root on a fresh Debian 12.
ci:
    .ci/run
