#!/bin/sh
# Prints the time that everything in a release is dated with, in seconds since 1970: SOURCE_DATE_EPOCH if set, else that of the
# last commit, else (no git here) that of Cargo.lock.
set -eu
[ -z "${SOURCE_DATE_EPOCH:-}" ] || { echo "$SOURCE_DATE_EPOCH"; exit; }
cd "$(dirname "$0")/.."
git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.lock
