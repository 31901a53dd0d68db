#!/bin/sh
# Prints the address of the Debian mirror that apt on this machine is set up for.
#
#   tests/support/mirror.sh [Debian|Debian-Security]
#
# For scripts that fetch packages of other suites and architectures through an apt state of their own. DEBIAN_MIRROR, if
# set, is taken instead (DEBIAN_SECURITY_MIRROR for security updates).
set -eu
label=${1:-Debian}
case $label in
Debian-Security) variable=DEBIAN_SECURITY_MIRROR given=${DEBIAN_SECURITY_MIRROR:-} ;;
*) variable=DEBIAN_MIRROR given=${DEBIAN_MIRROR:-} ;;
esac
[ -z "$given" ] || { echo "$given"; exit; }
# shellcheck disable=SC2016 # apt's variables
mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' | sed -n "s/^$label //p" | head -n 1)
[ -n "$mirror" ] || { echo "mirror.sh: apt knows no $label mirror here: run apt-get update, or set $variable" >&2; exit 1; }
echo "$mirror"
