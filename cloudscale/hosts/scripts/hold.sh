# Keeps other runs away from this machine as long as the run that started this is there: it sends a dot every now and then.
# $1: who that is, for the others. $2: seconds to wait for another run; $3: seconds without a dot after which it is gone.
# Prints `held`, or `busy` and who; before that, if it has to wait, `waiting` and for whom. Run as root.
# The folder itself is locked, so no file has to be made for that; the lock ends with this program, whatever ends it.
set -eu
WHO=/run/cloudscale.run
exec 9</run/.
if ! flock -n 9; then
  other=$(head -c 200 $WHO 2>/dev/null | tr -d '\000-\037') || true
  echo "waiting $other"
  flock -w "$2" 9 || { echo "busy $other"; exit; }
fi
trap 'rm -f $WHO' EXIT
trap 'exit 1' HUP TERM INT
(umask 077 && echo "$1" >$WHO)
echo held
# a child that was left behind would hold the lock
while [ -n "$(timeout "$3" head -c 1 9<&-)" ]; do :; done
