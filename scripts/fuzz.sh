#!/usr/bin/env bash
# Lets libFuzzer look for files on which a reader panics, hangs or takes too much memory. Stable Rust and a C++
# compiler do; the first build takes ten minutes on two cores.
#
#     scripts/fuzz.sh TARGET|all [EXECUTIONS]   # a target of calm-fuzz, or all one after another; a million each
#     scripts/fuzz.sh TARGET FILE...            # these inputs alone
#     scripts/fuzz.sh TARGET|all --keep         # puts the inputs that reach most into calm-fuzz/corpus/TARGET
#
# Inputs that reach new code are kept in fuzz/corpus/TARGET, which git ignores. A finding ends the run of a target: its
# input is fuzz/artifacts/TARGET-*.
set -euo pipefail
cd "$(dirname "$0")/.."

# What is kept of each target's inputs, beside those with names.
KEPT_INPUTS=24
KEPT_BYTES=10000

targets=${1:?a target, or all}
shift
if [ "$targets" = all ]; then
    targets=$(ls calm-fuzz/corpus)
fi

# What `cargo fuzz build --sanitizer none` passes, and checks of overflows. Stable Rust knows all of it.
flags=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0
    -Cdebug-assertions
    -Coverflow-checks
    -Ccodegen-units=1
)
# Named although it is this machine: then build scripts and macros are compiled without the flags.
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/fuzz/target}
# The versions of the workspace. Cargo adds what libFuzzer needs.
cp Cargo.lock fuzz/Cargo.lock
RUSTFLAGS="${flags[*]}" cargo build --manifest-path fuzz/Cargo.toml --release --target "$host"

# Targets write their input to a file again and again: in memory, if there is a file system for that.
TMPDIR=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

fuzz() {
    mkdir -p fuzz/artifacts "fuzz/corpus/$1"
    # libFuzzer sees no single allocations without a sanitizer: calm-fuzz has a limit of its own for these.
    CALM_FUZZ_TARGET=$1 "$CARGO_TARGET_DIR/$host/release/fuzz" -rss_limit_mb=1024 -timeout=20 -max_len=8192 \
        -artifact_prefix="fuzz/artifacts/$1-" "${@:2}"
}

failed=()
for target in $targets; do
    kept=calm-fuzz/corpus/$target found=fuzz/corpus/$target
    case ${1:-} in
        --keep)
            mkdir "$TMPDIR/merged"
            fuzz "$target" -set_cover_merge=1 -use_counters=0 "$TMPDIR/merged" "$kept" "$found"
            find "$kept" -regextype egrep -regex '.*/[0-9a-f]{40}' -delete
            # They are written in the order in which they were chosen: each reaches the most that none before it did.
            bytes=0
            for input in $(ls -tr "$TMPDIR/merged" | head -n "$KEPT_INPUTS"); do
                bytes=$((bytes + $(stat -c %s "$TMPDIR/merged/$input")))
                [ $bytes -gt "$KEPT_BYTES" ] || cp "$TMPDIR/merged/$input" "$kept"
            done
            rm -r "$TMPDIR/merged"
            ;;
        "" | [0-9]*)
            log=$TMPDIR/log
            fuzz "$target" -runs="${1:-1000000}" -print_final_stats=1 "$found" "$kept" 2>&1 |
                tee "$log" || failed+=("$target")
            echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions"
            ;;
        *) fuzz "$target" "$@" || failed+=("$target") ;;
    esac
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "findings in: ${failed[*]}" >&2
    exit 1
fi
