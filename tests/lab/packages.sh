#!/bin/sh
# Installs what the lab needs and starts none of it. Usage: packages.sh PACKAGE…
set -eu
missing=
for package in "$@"; do
  dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing="$missing $package"
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
# shellcheck disable=SC2086 # a list of names
apt-get -y -qq -o DPkg::Lock::Timeout=300 --no-install-recommends install $missing >/dev/null
