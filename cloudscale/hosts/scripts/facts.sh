# Prints facts about a host: on each line a name and its value in base64. Changes nothing. Run as root.
fact() { # NAME, value on standard input
  printf '%s ' "$1"
  base64 | tr -d '\n'
  echo
}

COURSE=/var/lib/cloudscale/course
TLS=/etc/docker/cloudscale

cat /etc/os-release 2>/dev/null | fact os
{ command -v apt-get || true; } | fact apt
{ [ -d /run/systemd/system ] && echo yes; } | fact systemd
nproc | fact cores
cat /proc/meminfo | fact memory
ip -o address 2>/dev/null | fact addresses
ip -o link 2>/dev/null | fact links
{ ip -o route; ip -6 -o route; } 2>/dev/null | fact routes
cat /etc/resolv.conf 2>/dev/null | fact resolvers
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | fact sockets

engine_start() { # the engine's command line: as it runs, and as it will be started
  pid=$(systemctl show docker.service --property MainPID --value 2>/dev/null)
  [ "${pid:-0}" = 0 ] || tr '\0' ' ' <"/proc/$pid/cmdline"
  systemctl show docker.service --property ExecStart
}

keeps_images_in_containerd() { # $1: the engine's data. A new engine does so since 29; one that was upgraded does not
  case $(echo "$settings" | tr -d ' \n\t') in
    *'"containerd-snapshotter":true'*) return 0 ;;
    *'"containerd-snapshotter":false'*) return 1 ;;
  esac
  [ "$(dockerd --version 2>/dev/null | sed -n 's/.*version \([0-9]*\)\..*/\1/p')" -ge 29 ] 2>/dev/null && [ ! -d "$1/image" ]
}

present() { # the folder, or what it will be made in
  folder=$1
  while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
  echo "$folder"
}

settings=$(cat /etc/docker/daemon.json 2>/dev/null)
data=$(engine_start 2>/dev/null | sed -n 's/.*--data-root[= ]\([^ ;]*\).*/\1/p' | head -n 1)
: "${data:=$(echo "$settings" | tr '\n\t' '  ' | sed -n 's/.*"data-root" *: *"\([^"]*\)".*/\1/p')}"
: "${data:=/var/lib/docker}"
if keeps_images_in_containerd "$data"; then
  images=$(sed -n "/^\[/q; s/^root *= *[\"']\([^\"']*\).*/\1/p" /etc/containerd/config.toml 2>/dev/null)
  : "${images:=/var/lib/containerd}"
else
  images=$data
fi
df -Pk "$(present "$data")" "$(present "$images")" "$(present "$data/volumes")" | fact disk
# whether volumes, and what containers write, can be limited: quotas of XFS
{ findmnt -n -o FSTYPE,OPTIONS --target "$(present "$data/volumes")" 2>/dev/null | grep -E '^xfs .*prjquota' || true; } | fact quotas
{ dockerd --version 2>/dev/null || true; } | fact engine
{ systemctl show docker.service --property ExecStart 2>/dev/null || true; } | fact start
{ systemctl is-active docker.service 2>/dev/null || true; } | fact active
# of an engine that is not set up for a course: the state of its swarm, and the number of its containers
if [ ! -e $COURSE/mark.json ]; then
  swarm=$(timeout 20 docker info --format '{{.Swarm.LocalNodeState}} {{.Containers}}' 2>/dev/null) || swarm= # it does not run
fi
echo "${swarm:-}" | fact swarm
cat /etc/docker/daemon.json 2>/dev/null | fact settings
cat /etc/systemd/system/docker.service.d/zz-cloudscale.conf 2>/dev/null | fact unit
cat $TLS/ca.pem 2>/dev/null | fact authority
cat $TLS/cert.pem 2>/dev/null | fact certificate
{ [ -s $TLS/key.pem ] && echo yes; } | fact key
cat $COURSE/mark.json 2>/dev/null | fact mark
cat $COURSE/firewall.sh 2>/dev/null | fact firewall
{ [ -e $COURSE/ready ] && echo yes; } | fact ready
{ [ -e $COURSE/packages ] && echo yes; } | fact installed_by_course
{ [ -e $COURSE/installed ] && echo yes; } | fact installed_at_boot
cat $COURSE/daemon.json.before 2>/dev/null | fact before
