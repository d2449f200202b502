# Lets another machine load one image into this host's engine, and nothing else. Run as root.
# `open` KEY USER MINUTES POSITION: prints the port of the SSH server at which the key can log in. Standard input: the
# script that it runs there (image-receive.sh). `next` KEY: standard input is a tar of what that script needs to pass the
# image on. `close` KEY USER: undoes both. The key is in the format of a .pub file; its comment is unique.
set -eu
key=$2
given=/run/cloudscale-image.${key##*-} # in memory; only root can write there
if [ "$1" != next ]; then
  user=$3
  home=$(getent passwd "$user" | cut -d: -f6)
  [ -d "$home" ] || { echo "cloudscale: $user has no home folder" >&2; exit 1; }
  folder=$home/.ssh
  keys=$folder/authorized_keys
fi

own() { # what is made here belongs to the user, or sshd can't read it
  chown --reference="$home" "$@"
}

case $1 in
  open)
    mkdir -m 700 "$given"
    cat >"$given/receive"
    receive="timeout ${4}m sh $given/receive $given $5"
    [ "$(id -u "$user")" = 0 ] || receive="sudo -n $receive"
    [ -d "$folder" ] || { mkdir -m 700 "$folder" && own "$folder"; }
    [ -e "$keys" ] || { (umask 077 && : >"$keys") && own "$keys"; }
    [ -z "$(tail -c 1 "$keys")" ] || echo >>"$keys" # its last line may lack an end
    # the time is the host's own; should the key not be removed, it is of no use afterwards
    echo "restrict,expiry-time=\"$(date -d "+$4 minutes" +%Y%m%d%H%M)\",command=\"$receive\" $key" >>"$keys"
    # sudo drops the variable, but has it itself: CLIENT PORT SERVER PORT (ssh(1))
    connection=${SSH_CONNECTION:-$(tr '\0' '\n' </proc/$PPID/environ | sed -n 's/^SSH_CONNECTION=//p')}
    echo "${connection##* }"
    ;;
  next)
    tar -x -C "$given" --no-same-owner
    ;;
  close)
    # where the machine before it went silent, it still waits
    [ ! -e "$given/pid" ] || kill "$(cat "$given/pid")" 2>/dev/null || true
    rm -rf "$given"
    [ -e "$keys" ] || exit 0
    rest=$(mktemp)
    trap 'rm -f "$rest"' EXIT
    grep -v -F -e "$key" "$keys" >"$rest" || true
    cat "$rest" >"$keys"
    [ -s "$keys" ] || rm "$keys"
    ;;
esac
