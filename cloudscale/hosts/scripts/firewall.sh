# What seats can't reach from the inside of their containers. Run as root: `install` (written here for every start of
# the engine), `up`, or `remove`. Each rule is in a chain of our own, or names one: that is how they are found again.
# Seats are the containers on the engine's own bridges, on a machine where no others are.
set -eu
REACH='' # addresses that the course needs all the same, each with a port, or with 0 for all: 192.0.2.0/24:5432
COURSE=/var/lib/cloudscale/course
UNIT=/etc/systemd/system/cloudscale-firewall.service
SEATS=CLOUDSCALE-SEATS MACHINE=CLOUDSCALE-HOST # chains: to elsewhere, to the machine itself
BRIDGES='docker0 docker_gwbridge'

fresh_chain() {
  iptables -w -N $1 2>/dev/null || iptables -w -F $1
}

enter() { # CHAIN BRIDGE OURS: new connections from a bridge go through our chain first
  iptables -w -C $1 -i $2 -m conntrack --ctstate NEW -j $3 2>/dev/null ||
    iptables -w -I $1 -i $2 -m conntrack --ctstate NEW -j $3
}

allow() { # CHAIN VERDICT: what a course needs, and name servers, wherever they are
  for place in $REACH; do
    case $place in
      *:0) iptables -w -A $1 -d ${place%:*} -j $2 ;;
      *) iptables -w -A $1 -d ${place%:*} -p tcp --dport ${place##*:} -j $2 ;;
    esac
  done
  for protocol in tcp udp; do
    iptables -w -A $1 -p $protocol --dport 53 -j $2
  done
}

up() {
  fresh_chain $SEATS
  fresh_chain $MACHINE
  for bridge in $BRIDGES; do
    iptables -w -A $SEATS -o $bridge -j DROP # other seats
  done
  allow $SEATS RETURN
  allow $MACHINE ACCEPT
  iptables -w -A $MACHINE -j DROP
  iptables -w -A $SEATS -d 169.254.0.0/16 -j DROP # a cloud's metadata service
  iptables -w -A $SEATS -p tcp -m multiport --dports 2376,2377,7946 -j DROP
  iptables -w -A $SEATS -p udp -m multiport --dports 4789,7946 -j DROP
  # the networks that the machine is in, and its gateway: that of a VM on the trainer's computer leads to that computer
  for network in $(ip -4 route show scope link | sed -n 's/^\([0-9./]*\) .*/\1/p') \
    $(ip -4 route show default | sed -n 's/.* via \([^ ]*\).*/\1/p'); do
    iptables -w -A $SEATS -d $network -j DROP
  done
  iptables -w -N DOCKER-USER 2>/dev/null || true # the engine keeps existing rules
  for bridge in $BRIDGES; do
    enter DOCKER-USER $bridge $SEATS
    enter INPUT $bridge $MACHINE
  done
}

remove() {
  for chain in DOCKER-USER:$SEATS INPUT:$MACHINE; do
    for bridge in $BRIDGES; do
      iptables -w -D ${chain%:*} -i $bridge -m conntrack --ctstate NEW -j ${chain#*:} 2>/dev/null || true
    done
    iptables -w -F ${chain#*:} 2>/dev/null || true
    iptables -w -X ${chain#*:} 2>/dev/null || true
  done
  rm -f $UNIT /etc/systemd/system/docker.service.requires/cloudscale-firewall.service $COURSE/firewall.sh
  rmdir /etc/systemd/system/docker.service.requires 2>/dev/null || true
}

install() {
  cat >$UNIT <<UNIT
[Unit]
Before=docker.service
Wants=network-online.target
After=network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh $COURSE/firewall.sh up
UNIT
  mkdir -p /etc/systemd/system/docker.service.requires
  ln -sf $UNIT /etc/systemd/system/docker.service.requires/
}

$1
