# Shared by the hack/install-* scripts: quiet, repeatable installation from the machine's own apt configuration.
# shellcheck shell=bash

die() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  exit 1
}

need_root_on_debian() {
  command -v apt-get >/dev/null || die "this script knows Debian and Ubuntu only; install $1 with your own package manager"
  [ "$(id -u)" = 0 ] || die "run as root to install $1 (missing: $2)"
}

# missing TOOL...: the tools that are not there. System administrators' folders count, whatever PATH says.
missing() {
  local tool
  local PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
  for tool; do
    command -v "$tool" >/dev/null || printf '%s ' "$tool"
  done
}

_apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 \
    -o Dpkg::Options::=--force-confold "$@"
}

# apt_install PACKAGE...: with the package index as it is; only when that fails, with a fresh one.
apt_install() {
  local log
  log=$(mktemp)
  if ! _apt install -y --no-install-recommends "$@" >"$log" 2>&1; then
    if ! { _apt update && _apt install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
      tail -n 20 "$log" >&2
      rm -f "$log"
      die "apt-get could not install: $*"
    fi
  fi
  rm -f "$log"
}

# mirror_of_debian: the address of the first Debian archive (not its security one) that apt uses.
mirror_of_debian() {
  local site
  # shellcheck disable=SC2016  # apt-get expands these
  site=$(apt-get indextargets --format '$(ORIGIN)|$(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian|//p' | grep -v security | head -n 1)
  [ -n "$site" ] && printf '%s\n' "$site"
}

# debian_suite SUITE DIRECTORY: makes _apt_apart work on another suite of Debian than this machine's, with everything in DIRECTORY and
# nothing taken for installed. The system's own packages and lists stay as they are.
debian_suite() {
  local site keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  # shellcheck source=/dev/null
  [ "$(. /etc/os-release && echo "$ID")" = debian ] || die "this needs a Debian and its archive"
  [ -r "$keyring" ] || apt_install debian-archive-keyring
  site=$(mirror_of_debian) || { _apt update && site=$(mirror_of_debian); } || die "apt names no Debian mirror"
  mkdir -p "$2/lists/partial" "$2/cache/archives/partial"
  printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$site" "$1" >"$2/sources.list"
  apart=(-o Dir::State::Lists="$2/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$2/cache"
    -o Dir::Etc::SourceList="$2/sources.list" -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root)
  _apt_apart update
}

_apt_apart() { _apt "${apart[@]}" "$@"; }
