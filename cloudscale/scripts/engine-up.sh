# Brings a host's Docker Engine to the course's settings, installing the distribution's where there is none.
# $1: `install` or `keep`. Standard input: a tar with the files, laid down before the engine's one start. Run as root.
# What is brought is written down in $COURSE first, so that engine-down.sh can take away just that.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
COURSE=/var/lib/cloudscale/course
LOCK='-o DPkg::Lock::Timeout=300' # seconds; a machine that just booted is busy with its own updates

fail() {
  echo "cloudscale: $*" >&2
  exit 1
}

ready_for_packages() {
  # a cloud's image installs by itself at its first boot; 2 is cloud-init's "done, with warnings"
  if command -v cloud-init >/dev/null; then
    timeout 600 cloud-init status --wait >/dev/null 2>&1 || [ $? != 124 ] || fail "cloud-init is still busy after 600 s"
  fi
  for _ in $(seq 60); do # the lock of the package lists knows no time-out of its own
    if said=$(apt-get -qq update 2>&1); then return; fi
    case $said in *"Could not get lock"* | *"Unable to lock"*) sleep 5 ;; *) break ;; esac
  done
  # an index that is out of reach does no harm where the packages are known already
  echo "$said" >&2
}

write_down() { # what is there now, of all that the installation may bring
  [ -e $COURSE/packages ] && return
  apt-get $LOCK -s --no-install-recommends install $PACKAGES >$COURSE/plan || fail "there is no package for an engine: $(tail -n 3 $COURSE/plan | tr '\n' ' ')"
  for folder in /var/lib/docker /var/lib/containerd /etc/docker /etc/cni; do
    [ -n "$(ls -A $folder 2>/dev/null)" ] || echo $folder
  done >$COURSE/folders
  getent group docker >/dev/null || echo docker >$COURSE/group
  cat /proc/sys/net/ipv4/ip_forward >$COURSE/forwarding
  for tables in iptables ip6tables; do
    { $tables -S FORWARD 2>/dev/null | sed -n 's/^-P //p'; } >$COURSE/$tables
  done
  # the last one: it says that the others are whole
  sed -n 's/^Inst \([^ ]*\) .*/\1/p' $COURSE/plan >$COURSE/packages.new
  mv $COURSE/packages.new $COURSE/packages
  rm $COURSE/plan
}

install() {
  apt-get $LOCK -y -qq --no-install-recommends install $PACKAGES >&2
}

mkdir -p $COURSE
chmod 700 $COURSE
trap 'rm -f $COURSE/files.tar' EXIT # the engine's key is in it
cat >$COURSE/files.tar
tar -x -f $COURSE/files.tar -C / --no-same-owner --overwrite "${COURSE#/}/mark.json" # whose host this is from now on
if [ ! -e $COURSE/settled ]; then
  cp /etc/docker/daemon.json $COURSE/daemon.json.before 2>/dev/null || true
  : >$COURSE/settled
fi
if [ "$1" = install ]; then
  ready_for_packages
  PACKAGES=docker.io
  for package in docker-cli ca-certificates; do # the command line is a package of its own from Debian 13 on
    if [ -n "$(apt-cache --names-only search "^$package\$")" ]; then PACKAGES="$PACKAGES $package"; fi
  done
  write_down
fi
rm -f $COURSE/ready
tar -x -f $COURSE/files.tar -C / --no-same-owner --overwrite
systemctl daemon-reload
if [ "$1" = install ]; then
  # the package starts the engine, with the settings that are there already
  # an installation that was cut off is finished first; only then does the next one work
  install || { dpkg --configure -a >&2 && install; } || fail "the engine's packages can't be installed"
  systemctl enable --quiet docker.service
  systemctl start docker.service || STOPPED=1
else
  systemctl restart docker.service || STOPPED=1
fi
if [ -n "${STOPPED:-}" ] || ! systemctl is-active --quiet docker.service; then
  fail "the engine does not start: $(journalctl -u docker.service -n 30 -o cat --no-pager 2>/dev/null | grep -v '^docker.service' | tail -n 3 | tr '\n' ' ')"
fi
: >$COURSE/ready
