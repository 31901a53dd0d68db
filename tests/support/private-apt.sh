# Packages of other suites and architectures, through an apt configuration of their own: the machine's lists stay as they are,
# and nothing is installed. To be read by a script (`. private-apt.sh`) that has set
#
#   mirror  what mirror.sh prints
#   dir     a folder to work in: DIR/apt/SUITE holds lists, and in debs/ what was fetched
#
# Needs: apt, dpkg, debian-archive-keyring.

# private_apt SUITE COMMAND...: an apt command as amd64 with arm64 beside it
private_apt() {
    root=$dir/apt/$1
    shift
    "$@" -o Dir::State="$root/state" -o Dir::State::status="$root/status" -o Dir::Cache="$root/cache" \
        -o Dir::Etc::sourcelist="$root/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o APT::Architecture=amd64 -o APT::Architectures=amd64,arm64 -o Acquire::Languages=none -o APT::Sandbox::User=root
}

# open_suite SUITE [deb-src]: reads its lists, those of sources where they are named
open_suite() {
    root=$dir/apt/$1
    mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial" "$root/debs"
    : >"$root/status"
    echo "${2:-deb} [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$root/sources.list"
    private_apt "$1" apt-get -qq update
}

# fetch_packages SUITE PACKAGE...: into DIR/apt/SUITE/debs
fetch_packages() {
    suite=$1
    shift
    (cd "$dir/apt/$suite/debs" && private_apt "$suite" apt-get -qq download "$@")
}
