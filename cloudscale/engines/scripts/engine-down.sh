# Undoes engine-up.sh on a host: removes settings and certificates, and the engine if engine-up.sh installed it.
# Standard input: the new daemon.json, or nothing to remove it. Run as root.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
COURSE=/var/lib/cloudscale/course
APT='apt-get -y -qq -o DPkg::Lock::Timeout=300'

fail() {
  echo "cloudscale: $*" >&2
  exit 1
}

clear_network() { # removes what the engine leaves in the kernel: its bridges and rules
  for bridge in docker0 docker_gwbridge; do
    ip link delete $bridge 2>/dev/null || true
  done
  for tables in iptables ip6tables; do
    command -v $tables >/dev/null || continue
    for table in filter nat mangle raw; do
      $tables -t $table -S 2>/dev/null | grep -E '^-A .*(DOCKER|docker0|docker_gwbridge)' | sed 's/^-A/-D/' | while read -r rule; do
        eval "$tables -t $table $rule" 2>/dev/null || true
      done
      $tables -t $table -S 2>/dev/null | sed -n 's/^-N \(DOCKER[^ ]*\)$/\1/p' | while read -r chain; do
        $tables -t $table -F "$chain" 2>/dev/null || true
        $tables -t $table -X "$chain" 2>/dev/null || true
      done
    done
    $tables -P $(grep . $COURSE/$tables || echo FORWARD ACCEPT) 2>/dev/null || true
  done
  cat $COURSE/forwarding >/proc/sys/net/ipv4/ip_forward
}

purge() {
  # a package that other packages need by now is kept
  for package in $(cat $COURSE/packages); do
    $APT -s purge "$package" >$COURSE/apt 2>&1 || fail "the engine's packages can't be removed: $(tail -n 1 $COURSE/apt)"
    sed -n 's/^\(Purg\|Remv\) \([^ ]*\) .*/\2/p' $COURSE/apt | grep -v -x -q -F -f $COURSE/packages || echo "$package"
  done >$COURSE/purge
  [ ! -s $COURSE/purge ] || $APT purge $(cat $COURSE/purge) >$COURSE/apt 2>&1 ||
    fail "the engine's packages can't be removed: $(tail -n 1 $COURSE/apt)"
}

exec 9>$COURSE/lock # an interrupted run may still be working here
flock -w 900 9 || fail "another run has been changing this host for 900 s"
cat >$COURSE/daemon.json.after
[ ! -e $COURSE/firewall.sh ] || sh $COURSE/firewall.sh remove
if [ -e $COURSE/packages ]; then
  systemctl stop docker.socket docker.service 2>/dev/null || true
  if grep -q -x containerd $COURSE/packages; then systemctl stop containerd.service 2>/dev/null || true; fi
  for network in /run/docker/netns/*; do umount "$network" 2>/dev/null || true; done
  clear_network
  purge
  for folder in $(cat $COURSE/folders) /etc/docker/cloudscale /run/docker; do
    rm -rf "$folder" 2>/dev/null || find "$folder" -mindepth 1 -delete 2>/dev/null || true # a mount point stays, empty
  done
  [ ! -e $COURSE/group ] || groupdel docker 2>/dev/null || true
fi
rm -rf /etc/docker/cloudscale /etc/systemd/system/docker.service.d/zz-cloudscale.conf
rmdir /etc/systemd/system/docker.service.d 2>/dev/null || true
if [ -d /etc/docker ]; then
  if [ -s $COURSE/daemon.json.after ]; then
    cat $COURSE/daemon.json.after >/etc/docker/daemon.json
  else
    rm -f /etc/docker/daemon.json
  fi
fi
systemctl daemon-reload
if [ ! -e $COURSE/packages ]; then
  systemctl stop docker.socket docker.service 2>/dev/null || true
  ip link delete docker0 2>/dev/null || true # the engine creates it again, with its own settings
  systemctl reset-failed docker.service 2>/dev/null || true
  systemctl start docker.service || fail "the engine does not start with its own settings (see journalctl -u docker)"
fi
rm -rf $COURSE
rmdir /var/lib/cloudscale 2>/dev/null || true
