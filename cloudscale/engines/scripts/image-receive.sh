# Loads an image into this host's engine while it arrives on standard input, and passes it on at the same time if there
# is a next host: FOLDER POSITION. Run as root, by sshd, for a key that may do nothing else (image-door.sh).
# FOLDER may have `config`, `key` and `known_hosts` for the next host; it is removed in the end. The host's own result is
# one line on standard error; those of the hosts behind it arrive there, too.
set -eu
cd "$1"
trap 'rm -rf "$1"' EXIT
trap 'exit 1' HUP TERM INT
position=$2
echo $PPID >pid # that of timeout(1), which ends all of it

load() {
  if cause=$(docker load --quiet 2>&1 >/dev/null); then
    printf '\ncloudscale: loaded %s\n' "$position" >&2
  else
    printf '\ncloudscale: failed %s %s\n' "$position" "$(echo "$cause" | tail -n 1)" >&2
  fi
}

[ -e config ] || { load; exit; }
mkfifo next
ssh -F config next <next >/dev/null &
tee -p next | load # if one of the two ends early, tee goes on for the other one
wait
