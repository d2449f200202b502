# Sets a host's Docker Engine up for the course; if the host has none, installs the distribution's.
# $1: `install` or `keep` an engine, or `firewall` for nothing but that. Standard input: a tar of files to write before the engine's only start. Run as root.
# Everything that is added is recorded in $COURSE first, so that engine-down.sh can undo exactly that.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C NEEDRESTART_SUSPEND=1
COURSE=/var/lib/cloudscale/course
SETTINGS=/etc/docker/daemon.json
UNIT=/etc/systemd/system/docker.service.d/zz-cloudscale.conf
# seconds; a machine that just booted is busy with its own updates. No installed package is removed for an engine.
APT='apt-get -y -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold --no-remove --no-install-recommends'

fail() {
  echo "cloudscale: $*" >&2
  exit 1
}

last_error() { # FILE with apt's output
  grep '^E: ' "$1" | tail -n 1 | cut -c 4-
}

ready_for_packages() {
  # a cloud's image installs packages at its first boot; exit code 2 of cloud-init is "done, with warnings"
  if command -v cloud-init >/dev/null; then
    timeout 600 cloud-init status --wait >/dev/null 2>&1 || [ $? != 124 ] || fail "cloud-init is still busy after 600 s"
  fi
  for _ in $(seq 60); do # apt-get has no time-out for the lock of the package lists
    if apt-get -qq update >$COURSE/apt 2>&1; then return; fi
    grep -q -E 'Could not get lock|Unable to lock' $COURSE/apt || break
    sleep 5
  done
  # an unreachable index does not matter if the packages are known already
}

missing_packages() {
  echo docker.io
  for package in docker-cli ca-certificates; do # the command line is a separate package since Debian 13
    if [ -n "$(apt-cache --names-only search "^$package\$")" ] && ! dpkg -s $package >/dev/null 2>&1; then echo $package; fi
  done
}

record() { # the present state of everything that the installation may change
  [ ! -e $COURSE/packages ] || return 0
  $APT -s install $PACKAGES >$COURSE/apt 2>&1 || fail "no engine can be installed: $(last_error $COURSE/apt)"
  for folder in /var/lib/docker /var/lib/containerd /etc/docker /etc/cni; do
    [ -n "$(ls -A $folder 2>/dev/null)" ] || echo $folder
  done >$COURSE/folders
  getent group docker >/dev/null || echo docker >$COURSE/group
  cat /proc/sys/net/ipv4/ip_forward >$COURSE/forwarding
  for tables in iptables ip6tables; do
    { $tables -S FORWARD 2>/dev/null | sed -n 's/^-P //p'; } >$COURSE/$tables
  done
  # a new package has no old version in square brackets. This file comes last: it shows that the others are complete
  sed -n 's/^Inst \([^ ]*\) (.*/\1/p' $COURSE/apt >$COURSE/packages.new
  mv $COURSE/packages.new $COURSE/packages
}

install() {
  $APT install $PACKAGES >$COURSE/apt 2>&1
}

set_firewall() { # before the engine starts
  [ -e $COURSE/firewall.sh ] || return 0
  output=$(sh $COURSE/firewall.sh up 2>&1) || fail "its firewall can't be set: $(echo "$output" | tail -n 1)"
}

start_engine() {
  if [ "$ran" = active ]; then what=restart; else what=start; fi
  systemctl reset-failed docker.service 2>/dev/null || true # systemd refuses a fourth start within a minute
  if ! systemctl $what docker.service || ! systemctl is-active --quiet docker.service; then
    cause=$(journalctl -u docker.service -n 30 -o cat --no-pager 2>/dev/null | grep -v '^docker.service' | tail -n 3 | tr '\n' ' ')
    if [ ! -e $COURSE/packages ]; then # an engine of the host's owner continues as before
      [ -n "$had_unit" ] || rm -f $UNIT
      rm -f $SETTINGS
      cp -p $COURSE/daemon.json.last $SETTINGS 2>/dev/null || true
      cp -p $COURSE/mark.json.last $COURSE/mark.json 2>/dev/null || true
      [ ! -e $COURSE/firewall.sh ] || sh $COURSE/firewall.sh remove
      systemctl daemon-reload
      systemctl reset-failed docker.service 2>/dev/null || true
      systemctl restart docker.service || cause="$cause; it does not start with its own settings either"
    fi
    fail "the engine does not start: $cause"
  fi
}

dropped() { # how many packets of seats to the metadata service the firewall has dropped
  iptables -w -vS CLOUDSCALE-SEATS 2>/dev/null | sed -n 's|.* 169\.254\.0\.0/16 -c \([0-9]*\) .* DROP$|\1|p'
}

has_dropped() { # whether there are more than before, where both are known
  now=$(dropped)
  [ -n "$before" ] && [ "${now:-0}" -gt "$before" ]
}

prove_firewall() { # of a machine that has one (see boot.sh): tries a seat's way to the metadata service
  [ -e $COURSE/firewall.sh ] || return 0
  own=$(ip -4 -o address show docker0 | sed -n 's/.* inet \([0-9./]*\).*/\1/p')
  gateway=${own%/*}
  {
    ip netns add cloudscale &&
      ip link add cloudscale0 type veth peer name eth0 netns cloudscale && ip link set cloudscale0 master docker0 up &&
      ip -n cloudscale address add "${gateway%.*}.254/${own#*/}" dev eth0 && ip -n cloudscale link set eth0 up &&
      ip -n cloudscale route add default via "$gateway"
  } >$COURSE/probe 2>&1 || broken=$(tail -n 1 $COURSE/probe)
  before=$(dropped)
  timeout 3 ip netns exec cloudscale bash -c ': </dev/tcp/169.254.169.254/80' 2>/dev/null &
  attempt=$!
  # no answer would take three seconds to show; what the firewall counts shows at once
  while ! has_dropped && kill -0 $attempt 2>/dev/null; do sleep 0.1; done
  if has_dropped; then # that may have been another seat's: an answer would be here by then
    sleep 0.3
    kill $attempt 2>/dev/null || true
  fi
  if wait $attempt 2>/dev/null; then leaks=yes; fi
  ip netns delete cloudscale 2>/dev/null || true
  rm -f $COURSE/probe
  [ -z "${leaks-}" ] || fail "its firewall is not in force: a container reaches the metadata service (169.254.169.254)"
  [ -z "${broken-}" ] || fail "its firewall can't be tried: $broken"
}

mkdir -p $COURSE
chmod 700 $COURSE
exec 9>$COURSE/lock # an interrupted run may still be working here
flock -w 900 9 || fail "another run has been setting this host up for 900 s"
trap 'rm -f $COURSE/files.tar $COURSE/apt $COURSE/*.last' EXIT # files.tar contains the engine's key
cat >$COURSE/files.tar
cp -p $COURSE/mark.json $COURSE/mark.json.last 2>/dev/null || true
tar -x -f $COURSE/files.tar -C / --no-same-owner --overwrite "${COURSE#/}/mark.json" # which course uses this host
if [ ! -e $COURSE/settled ]; then
  cp -p $SETTINGS $COURSE/daemon.json.before 2>/dev/null || true
  sync
  : >$COURSE/settled
fi
if [ "$1" = install ]; then
  ready_for_packages
  PACKAGES=$(missing_packages)
  record
fi
rm -f $COURSE/ready
ran=$(systemctl is-active docker.service || true)
had_unit=$([ ! -e $UNIT ] || echo yes)
cp -p $SETTINGS $COURSE/daemon.json.last 2>/dev/null || true
tar -x -f $COURSE/files.tar -C / --no-same-owner --overwrite
chmod --reference=$COURSE/daemon.json.before $SETTINGS 2>/dev/null || chmod 644 $SETTINGS || true
[ ! -e $COURSE/firewall.sh ] || sh $COURSE/firewall.sh install
systemctl daemon-reload
if [ "$1" = install ]; then
  # the package starts the engine, with the settings that were just written.
  # An interrupted installation has to be finished before another one works
  install || { dpkg --configure -a >/dev/null 2>&1 && install; } || fail "the engine can't be installed: $(last_error $COURSE/apt)"
  systemctl enable --quiet docker.service
fi
set_firewall
[ "$1" = firewall ] || start_engine
prove_firewall
: >$COURSE/ready
sync
