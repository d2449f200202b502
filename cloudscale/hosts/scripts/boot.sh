#!/bin/sh
# The first boot of a cloud's machine, run by cloud-init out of user_data. Nothing in here is secret: students can read it.
# At first without an argument, before sshd and the engine start; the rest runs beside the boot, so that the packages
# are there when SSH is. The engine starts once, with the course's certificates, when engine-up.sh has laid them down.
set -u
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
COURSE=/var/lib/cloudscale/course
FIREWALL=/etc/systemd/system/cloudscale-firewall.service
# a power cut in the middle is no loss here: the machine is made anew
APT='apt-get -y -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-unsafe-io
  --no-remove --no-install-recommends'

hold_engine() { # one that is in the image would start with the image's settings, and as a copy of whom it was there
  for unit in service socket; do
    mkdir -p /etc/systemd/system/docker.$unit.d
    printf '[Unit]\nConditionPathExists=/etc/docker/cloudscale/key.pem\n' >/etc/systemd/system/docker.$unit.d/cloudscale.conf
  done
  rm -rf /etc/docker/key.json /var/lib/docker/swarm
}

write_firewall() { # seats reach neither the metadata service nor the machine, nor the ports of engines and swarm,
  # nor more of the gateway than a name server: behind that of a VM on the trainer's computer is this one's loopback
  cat >$COURSE/firewall.sh <<'END'
add() {
  iptables -w -C "$@" 2>/dev/null || iptables -w -I "$@"
}
iptables -w -N DOCKER-USER 2>/dev/null || true # the engine keeps what it finds there
add DOCKER-USER -d 169.254.169.254 -j DROP
add DOCKER-USER -p tcp -m multiport --dports 2376,2377,7946 -j DROP
add DOCKER-USER -p udp -m multiport --dports 4789,7946 -j DROP
for gateway in $(ip -4 route show default | sed -n 's/.* via \([^ ]*\).*/\1/p'); do
  for protocol in tcp udp; do
    add DOCKER-USER -d $gateway -p $protocol ! --dport 53 -m conntrack --ctstate NEW -j DROP
  done
done
for bridge in docker0 docker_gwbridge; do
  add INPUT -i $bridge -m conntrack --ctstate NEW -j DROP
done
END
  cat >$FIREWALL <<END
[Unit]
Before=docker.service
Wants=network-online.target
After=network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -e $COURSE/firewall.sh
END
  mkdir -p /etc/systemd/system/docker.service.requires
  ln -sf $FIREWALL /etc/systemd/system/docker.service.requires/
}

tell_host_keys() { # in cloud-init's own form; it prints them only when all is done
  {
    echo
    echo '-----BEGIN SSH HOST KEY KEYS-----'
    cat /etc/ssh/ssh_host_*_key.pub
    echo '-----END SSH HOST KEY KEYS-----'
  } >/dev/console
}

install_engine() {
  for _ in $(seq 60); do # the lock of the package lists knows no time-out of its own
    said=$(LC_ALL=C apt-get -qq update 2>&1) && break
    case $said in
      *'Could not get lock'* | *'Unable to lock'*) sleep 5 ;;
      *) break ;; # an index that is out of reach does no harm where the packages are known already
    esac
  done
  packages=docker.io
  for package in docker-cli ca-certificates; do # the command line is a package of its own from Debian 13 on
    if [ -n "$(apt-cache --names-only search "^$package\$")" ]; then packages="$packages $package"; fi
  done
  $APT install $packages
}

beside() { # NAME PROPERTY: this script with NAME as its argument, as a unit of its own that the boot doesn't wait for
  name=$1
  shift
  systemd-run --quiet --no-block --unit="cloudscale-$name" --property=DefaultDependencies=no "$@" "$0" "$name"
}

case ${1-} in
  keys) tell_host_keys ;;
  install)
    exec 9>$COURSE/lock # engine-up.sh and the tool wait for it
    flock 9
    command -v dockerd >/dev/null || install_engine || exit
    echo docker.io >$COURSE/packages # the engine is the course's, with all of the machine
    : >$COURSE/installed
    ;;
  *)
    mkdir -p $COURSE && chmod 700 $COURSE
    [ ! -e $COURSE/begun ] || exit 0 # a later boot
    : >$COURSE/begun
    hold_engine
    write_firewall
    systemctl daemon-reload
    beside keys --property='After=cloud-init.service cloud-init-network.service' --property='Before=ssh.service sshd.service'
    beside install
    ;;
esac
