#!/bin/sh
# Prints the address of the Debian mirror that apt on this machine is set up for.
#
# For scripts that fetch packages of other suites and architectures through an apt state of their own. DEBIAN_MIRROR, if
# set, is taken instead.
set -eu
[ -z "${DEBIAN_MIRROR:-}" ] || { echo "$DEBIAN_MIRROR"; exit; }
mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian //p' | head -n 1)
[ -n "$mirror" ] || { echo "mirror.sh: apt knows no Debian mirror here: run apt-get update, or set DEBIAN_MIRROR" >&2; exit 1; }
echo "$mirror"
