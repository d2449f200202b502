# Brings a host's Docker Engine to the course's settings, installing the distribution's where there is none.
# $1: `install` or `keep`. Standard input: a tar with the files, laid down before the engine's one start. Run as root.
# What is brought is written down in $COURSE first, so that engine-down.sh can take away just that.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C NEEDRESTART_SUSPEND=1
COURSE=/var/lib/cloudscale/course
SETTINGS=/etc/docker/daemon.json
UNIT=/etc/systemd/system/docker.service.d/zz-cloudscale.conf
# seconds; a machine that just booted is busy with its own updates. Nothing that is there has to go for an engine.
APT='apt-get -y -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold --no-remove --no-install-recommends'

fail() {
  echo "cloudscale: $*" >&2
  exit 1
}

last_error() { # of apt's output in FILE
  grep '^E: ' "$1" | tail -n 1 | cut -c 4-
}

ready_for_packages() {
  # a cloud's image installs by itself at its first boot; 2 is cloud-init's "done, with warnings"
  if command -v cloud-init >/dev/null; then
    timeout 600 cloud-init status --wait >/dev/null 2>&1 || [ $? != 124 ] || fail "cloud-init is still busy after 600 s"
  fi
  for _ in $(seq 60); do # the lock of the package lists knows no time-out of its own
    if apt-get -qq update >$COURSE/apt 2>&1; then return; fi
    grep -q -E 'Could not get lock|Unable to lock' $COURSE/apt || break
    sleep 5
  done
  # an index that is out of reach does no harm where the packages are known already
}

wanted_packages() {
  echo docker.io
  for package in docker-cli ca-certificates; do # the command line is a package of its own from Debian 13 on
    if [ -n "$(apt-cache --names-only search "^$package\$")" ] && ! dpkg -s $package >/dev/null 2>&1; then echo $package; fi
  done
}

write_down() { # what is there now, of all that the installation may bring
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
  # new ones have no version in brackets before the bracketed new one. The last file: it says that the others are whole
  sed -n 's/^Inst \([^ ]*\) (.*/\1/p' $COURSE/apt >$COURSE/packages.new
  mv $COURSE/packages.new $COURSE/packages
}

install() {
  $APT install $PACKAGES >$COURSE/apt 2>&1
}

mkdir -p $COURSE
chmod 700 $COURSE
exec 9>$COURSE/lock # an earlier run that was cut off may be at work here yet
flock -w 900 9 || fail "another run has been setting this host up for 900 s"
trap 'rm -f $COURSE/files.tar $COURSE/apt $COURSE/*.last' EXIT # the engine's key is in the first
cat >$COURSE/files.tar
cp -p $COURSE/mark.json $COURSE/mark.json.last 2>/dev/null || true
tar -x -f $COURSE/files.tar -C / --no-same-owner --overwrite "${COURSE#/}/mark.json" # whose host this is from now on
if [ ! -e $COURSE/settled ]; then
  cp -p $SETTINGS $COURSE/daemon.json.before 2>/dev/null || true
  sync
  : >$COURSE/settled
fi
if [ "$1" = install ]; then
  ready_for_packages
  PACKAGES=$(wanted_packages)
  write_down
fi
rm -f $COURSE/ready
ran=$(systemctl is-active docker.service || true)
had_unit=$([ ! -e $UNIT ] || echo yes)
cp -p $SETTINGS $COURSE/daemon.json.last 2>/dev/null || true
tar -x -f $COURSE/files.tar -C / --no-same-owner --overwrite
chmod --reference=$COURSE/daemon.json.before $SETTINGS 2>/dev/null || chmod 644 $SETTINGS || true
systemctl daemon-reload
if [ "$1" = install ]; then
  # the package starts the engine, with the settings that are there already.
  # An installation that was cut off is finished first; only then does the next one work
  install || { dpkg --configure -a >/dev/null 2>&1 && install; } || fail "the engine can't be installed: $(last_error $COURSE/apt)"
  systemctl enable --quiet docker.service
fi
if [ "$ran" = active ]; then what=restart; else what=start; fi
systemctl reset-failed docker.service 2>/dev/null || true # systemd refuses the fourth start in a minute
if ! systemctl $what docker.service || ! systemctl is-active --quiet docker.service; then
  said=$(journalctl -u docker.service -n 30 -o cat --no-pager 2>/dev/null | grep -v '^docker.service' | tail -n 3 | tr '\n' ' ')
  if [ ! -e $COURSE/packages ]; then # an engine of the host's own goes on as it did
    [ -n "$had_unit" ] || rm -f $UNIT
    rm -f $SETTINGS
    cp -p $COURSE/daemon.json.last $SETTINGS 2>/dev/null || true
    cp -p $COURSE/mark.json.last $COURSE/mark.json 2>/dev/null || true
    systemctl daemon-reload
    systemctl reset-failed docker.service 2>/dev/null || true
    systemctl restart docker.service || said="$said; nor does it with its own settings"
  fi
  fail "the engine does not start: $said"
fi
: >$COURSE/ready
sync
