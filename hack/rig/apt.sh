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
