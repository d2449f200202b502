#!/bin/sh
# Installs what the lab needs and starts none of it. Usage: packages.sh PACKAGE…     (PACKAGE?: if the release has it)
set -eu
missing=
for package in "$@"; do
  name=${package%\?}
  dpkg-query --show --showformat='${db:Status-Abbrev}' "$name" 2>/dev/null | grep -q '^ii' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# no service may start by itself: each is started by hand, in its namespace
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
apt-get -qq update
wanted=''
for package in $missing; do
  case $package in
    *\?) package=${package%\?} && [ -n "$(apt-cache --names-only search "^$package\$")" ] || continue ;;
  esac
  wanted="$wanted $package"
done
# shellcheck disable=SC2086 # a list of names
apt-get -y -qq -o DPkg::Lock::Timeout=300 --no-install-recommends install $wanted >/dev/null
