# Lets another machine load an image into this host's engine, and nothing else. Run as root.
# `open` KEY USER MINUTES: prints the port of the SSH server at which the key can log in. `close` KEY USER: undoes it.
# The key is in the format of a .pub file; its comment is unique.
set -eu
key=$2 user=$3
home=$(getent passwd "$user" | cut -d: -f6)
[ -d "$home" ] || { echo "cloudscale: $user has no home folder" >&2; exit 1; }
folder=$home/.ssh
keys=$folder/authorized_keys

own() { # what is made here belongs to the user, or sshd can't read it
  chown --reference="$home" "$@"
}

case $1 in
  open)
    load='docker load --quiet'
    [ "$(id -u "$user")" = 0 ] || load="sudo -n $load"
    [ -d "$folder" ] || { mkdir -m 700 "$folder" && own "$folder"; }
    [ -e "$keys" ] || { (umask 077 && : >"$keys") && own "$keys"; }
    [ -z "$(tail -c 1 "$keys")" ] || echo >>"$keys" # its last line may lack an end
    # the time is the host's own; should the key not be removed, it is of no use afterwards
    echo "restrict,expiry-time=\"$(date -d "+$4 minutes" +%Y%m%d%H%M)\",command=\"$load\" $key" >>"$keys"
    # sudo drops the variable, but has it itself: CLIENT PORT SERVER PORT (ssh(1))
    connection=${SSH_CONNECTION:-$(tr '\0' '\n' </proc/$PPID/environ | sed -n 's/^SSH_CONNECTION=//p')}
    echo "${connection##* }"
    ;;
  close)
    [ -e "$keys" ] || exit 0
    rest=$(mktemp)
    trap 'rm -f "$rest"' EXIT
    grep -v -F -e "$key" "$keys" >"$rest" || true
    cat "$rest" >"$keys"
    [ -s "$keys" ] || rm "$keys"
    ;;
esac
