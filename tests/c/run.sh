#!/usr/bin/env bash
# The C tests under the sanitizers: address and undefined behaviour, then threads, with each compiler that is there and
# can; then the fuzzer's corpus is replayed. `run.sh fuzz SECONDS` fuzzes on from it (needs clang's libFuzzer).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${TWOFILE_C_WORK:-$here/.work}
python=${PYTHON:-$here/../../.venv/bin/python}
mkdir -p "$work"
[ -e "$work/models" ] || "$python" "$here/seeds.py" --models "$work/models"
[ -e "$work/adapters" ] || "$python" "$here/seeds.py" --adapters "$work/adapters"
export TWOFILE_FUZZ_BASE=$work/adapters/base.gguf

build() { # COMPILER SANITIZERS SOURCE TARGET FLAGS...
    local cc=$1 sanitizers=$2 source=$3 target=$4
    shift 4
    "$cc" -std=c11 -g -O1 -march=native -fsanitize="$sanitizers" -fno-sanitize-recover=all -DTF_LIBRARY "$@" \
        "$here/$source" -lm -lpthread -o "$work/$target"
}

if [ "${1:-}" = fuzz ]; then
    mkdir -p "$work/found"
    [ -e "$work/seeds" ] || "$python" "$here/seeds.py" "$work/seeds"
    build clang fuzzer,address,undefined fuzz_run.c fuzz
    cd "$work"
    exec ./fuzz -max_total_time="${2:-1800}" -rss_limit_mb=2048 -malloc_limit_mb=128 -max_len=40000 -timeout=20 \
        -print_final_stats=1 found "$here/corpus" seeds adapters
fi

ran=0
for cc in ${TWOFILE_SANITIZE_CC:-gcc clang}; do
    command -v "$cc" >/dev/null || continue
    echo 'int main(void) { return 0; }' >"$work/empty.c"
    for sanitizers in address,undefined thread; do
        if ! "$cc" -fsanitize=$sanitizers "$work/empty.c" -o "$work/empty" 2>/dev/null || ! "$work/empty"; then
            echo "$cc: no -fsanitize=$sanitizers here"
            continue
        fi
        build "$cc" $sanitizers test_run.c test
        echo -n "$cc -fsanitize=$sanitizers: "
        "$work/test" "$work"/models/*
        [ $sanitizers = thread ] || {
            build "$cc" $sanitizers fuzz_run.c replay -DREPLAY
            echo -n "$cc -fsanitize=$sanitizers, fuzzing corpus: "
            "$work/replay" "$here"/corpus/* "$work"/adapters/*
        }
        ran=$((ran + 1))
    done
done
[ $ran -gt 0 ] || { echo "no compiler with sanitizers: install gcc or clang" >&2; exit 1; }
