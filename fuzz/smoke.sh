#!/bin/sh
# Runs every fuzz target for so many seconds, one after the other, and fails when one of them finds something.
#
#   fuzz/smoke.sh SECONDS [TARGET…]
#
# Needs cargo-fuzz (`cargo install cargo-fuzz`). Works with the stable toolchain. Seeds: fuzz/seed.sh, once before.
# Prints what libFuzzer says of the number of executions, a line per target. FUZZ_SANITIZER=address adds AddressSanitizer
# (for the C in zstd and xz; half as many executions).
set -eu
seconds=${1:?usage: smoke.sh SECONDS [TARGET…]}
shift
cd "$(dirname "$0")"
export RUSTC_BOOTSTRAP=1
sanitizer=${FUZZ_SANITIZER:-none}
[ $# -gt 0 ] || set -- authenticode efivars fat fat_edit gpt image initrd iso os_release pe schematic squashfs
cargo fuzz build --sanitizer "$sanitizer"
failed=
for target in "$@"; do
    mkdir -p "corpus/$target"
    log=$(mktemp)
    # No longer than the format needs: executions are worth more than bytes.
    case $target in
    iso) length=180000 ;;
    fat) length=24576 ;;
    fat_edit) length=512 ;;
    *) length=65536 ;;
    esac
    # The wall limit is for a target that hangs in a way that libFuzzer does not notice.
    if timeout $((seconds + 60)) cargo fuzz run --sanitizer "$sanitizer" "$target" -- -max_total_time="$seconds" -timeout=5 \
        -rss_limit_mb=512 -malloc_limit_mb=64 -max_len="$length" -print_final_stats=1 >"$log" 2>&1; then
        result=ok
    else
        result=FAILED
        failed="$failed $target"
        tail -n 60 "$log"
    fi
    printf '%-13s %-6s %s\n' "$target" "$result" "$(grep -E '^Done [0-9]+ runs|number_of_executed_units|peak_rss' "$log" | tr -s ' \n' ' ')"
    rm -f "$log"
done
[ -z "$failed" ] || { echo "found something:$failed" >&2; exit 1; }
