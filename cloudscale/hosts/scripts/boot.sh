#!/bin/sh
# The first boot of a cloud's machine, run by cloud-init from user_data. It contains no secret: students can read it.
# cloud-init runs it without an argument, before sshd and the engine start; the rest runs in parallel with the boot, so
# that the packages are installed by the time SSH answers. The engine starts once, with the course's certificates, after
# engine-up.sh has written them.
set -u
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
COURSE=/var/lib/cloudscale/course
# unsafe I/O: if the power fails in the middle, the machine is created again
APT='apt-get -y -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-unsafe-io
  --no-remove --no-install-recommends'

hold_engine() { # an engine in the image would start with the image's settings, and with the identity of its original
  for unit in service socket; do
    mkdir -p /etc/systemd/system/docker.$unit.d
    printf '[Unit]\nConditionPathExists=/etc/docker/cloudscale/key.pem\n' >/etc/systemd/system/docker.$unit.d/cloudscale.conf
  done
  rm -rf /etc/docker/key.json /var/lib/docker/swarm
}

write_firewall() { # the same on every machine; hosts/first_boot.py puts it here
  cat >$COURSE/firewall.sh <<'END'
@firewall.sh@
END
  sh $COURSE/firewall.sh install
}

show_host_keys() { # in cloud-init's own format; cloud-init prints them only at its very end
  {
    echo
    echo '-----BEGIN SSH HOST KEY KEYS-----'
    cat /etc/ssh/ssh_host_*_key.pub
    echo '-----END SSH HOST KEY KEYS-----'
  } >/dev/console
}

install_packages() { # an engine, and what engines/scripts/disk-limits.sh needs, in one go
  for _ in $(seq 60); do # apt-get has no time-out for the lock of the package lists
    output=$(LC_ALL=C apt-get -qq update 2>&1) && break
    case $output in
      *'Could not get lock'* | *'Unable to lock'*) sleep 5 ;;
      *) break ;; # an unreachable index does not matter if the packages are known already
    esac
  done
  packages=
  command -v dockerd >/dev/null || packages=docker.io
  for package in ${packages:+docker-cli ca-certificates} xfsprogs; do # docker-cli: a package of its own since Debian 13
    if [ -n "$(apt-cache --names-only search "^$package\$")" ]; then packages="$packages $package"; fi
  done
  $APT install $packages
}

in_parallel() { # NAME PROPERTY: runs this script with the argument NAME, as a unit that the boot does not wait for
  name=$1
  shift
  systemd-run --quiet --no-block --unit="cloudscale-$name" --property=DefaultDependencies=no "$@" "$0" "$name"
}

case ${1-} in
  keys) show_host_keys ;;
  install)
    exec 9>$COURSE/lock # engine-up.sh and the tool wait for it
    flock 9
    { command -v dockerd && command -v mkfs.xfs; } >/dev/null || install_packages || command -v dockerd >/dev/null || exit
    echo docker.io >$COURSE/packages # the engine belongs to the course, like the whole machine
    : >$COURSE/installed
    ;;
  *)
    mkdir -p $COURSE && chmod 700 $COURSE
    [ ! -e $COURSE/begun ] || exit 0 # a later boot
    : >$COURSE/begun
    hold_engine
    write_firewall
    systemctl daemon-reload
    in_parallel keys --property='After=cloud-init.service cloud-init-network.service' --property='Before=ssh.service sshd.service'
    in_parallel install
    ;;
esac
