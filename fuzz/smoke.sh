#!/bin/sh
# Runs every fuzz target for so many seconds, one on each core, and fails when one of them finds something.
#
#   fuzz/smoke.sh SECONDS [TARGET…]
#
# Needs nothing but the stable toolchain: the coverage that libFuzzer wants is a few flags, the same that `cargo fuzz`
# gives (which works here too). Seeds: fuzz/seed.sh, once before. Prints the number of executions, a line per target.
#   FUZZ_COMPARES=1         instruments comparisons too: finds magic values, half as many executions
#   FUZZ_SANITIZER=address  adds AddressSanitizer (for the C in zstd and xz), half as many executions
#   FUZZ_RUNS=10000000      stops each target after so many executions
#   FUZZ_JOBS=1             so many targets at a time
set -eu
seconds=${1:?usage: smoke.sh SECONDS [TARGET…]}
shift
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- authenticode config efivars fat fat_edit gpt image initrd iso members oci os_release packed pe record schematic squashfs variables

flags="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags="$flags -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
[ -z "${FUZZ_COMPARES:-}" ] || flags="$flags -Cllvm-args=-sanitizer-coverage-trace-compares"
if [ -n "${FUZZ_SANITIZER:-}" ]; then
    # The one flag that is not stable.
    export RUSTC_BOOTSTRAP=1
    flags="$flags -Zsanitizer=$FUZZ_SANITIZER"
fi
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags go to what is fuzzed and not to build scripts.
RUSTFLAGS=$flags cargo build --locked --release --quiet --bins --target "$host"
programs=${CARGO_TARGET_DIR:-target}/$host/release
export programs seconds

cat >target/one.sh <<'END'
target=$1
mkdir -p "corpus/$target" "artifacts/$target"
# No longer than the format needs: executions are worth more than bytes.
case $target in
iso) length=180000 ;;
fat) length=24576 ;;
gpt) length=40000 ;;
authenticode) length=16384 ;;
pe | initrd | squashfs) length=8192 ;;
efivars | members | oci | variables) length=4096 ;;
os_release | record | schematic) length=2048 ;;
fat_edit) length=512 ;;
packed) length=1024 ;; # a byte can unpack to 32 KiB
*) length=65536 ;;
esac
log=$(mktemp)
# The wall limit is for a target that hangs in a way that libFuzzer does not notice.
if timeout $((seconds + 60)) "$programs/$target" -max_total_time="$seconds" -runs="${FUZZ_RUNS:--1}" -timeout=5 \
    -rss_limit_mb=512 -malloc_limit_mb=64 -max_len="$length" -reload=0 -artifact_prefix="artifacts/$target/" \
    -print_final_stats=1 "corpus/$target" >"$log" 2>&1; then
    result=ok
else
    result=FAILED
    tail -n 60 "$log"
fi
printf '%-13s %-6s %s\n' "$target" "$result" "$(grep -E '^Done [0-9]+ runs|number_of_executed_units|peak_rss' "$log" | tr -s ' \n' ' ')"
rm -f "$log"
[ $result = ok ]
END
printf '%s\n' "$@" | xargs -P "${FUZZ_JOBS:-$(nproc)}" -n 1 sh target/one.sh || { echo "a target found something" >&2; exit 1; }
