# Sends an image of this host's engine to another host's: IMAGE USER HOST PORT. Run as root.
# Standard input: a tar of `key`, which logs in at the other host, and `known_hosts` with its host key; they are not kept.
# The progress is printed by dd(1).
set -eu
folder=$(mktemp -d /dev/shm/cloudscale.XXXXXX 2>/dev/null || mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP TERM INT
tar -x -C "$folder" --no-same-owner
set -- "$@" -F none -i "$folder/key" -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes -o LogLevel=ERROR \
  -o UserKnownHostsFile="$folder/known_hosts" -o GlobalKnownHostsFile=none -o HostKeyAlias=cloudscale \
  -o StrictHostKeyChecking=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=8
image=$1 user=$2 host=$3 port=$4
shift 4
{ docker save "$image" || : >"$folder/failed"; } | dd bs=1M status=progress | ssh "$@" -p "$port" -l "$user" "$host" >/dev/null
[ ! -e "$folder/failed" ]
