# Mounts a disk of the cloud where the engine keeps its volumes, now and at every later boot. Run as root.
# $1: the id of the volume in the cloud. $2: `new`, or `used` for one with work on it: that one is never formatted.
# Prints `mounted`, or `kept` if the engine has volumes on the machine's own disk.
# The engine does not start without that disk: it would make new, empty volumes for the students.
set -eu
export LC_ALL=C
COURSE=/var/lib/cloudscale/course
UNIT=/etc/systemd/system/docker.service.d/cloudscale-work.conf

fail() {
  echo "cloudscale: $*" >&2
  exit 1
}

find_disk() { # by its serial: what the cloud calls the device is a guess. A hypervisor may cut the serial to 20 characters
  for link in /dev/disk/by-id/*"$serial"* /dev/disk/by-id/wwn-0x"$hex"*; do
    case $link in *-part[0-9]*) continue ;; esac
    if [ -b "$link" ]; then
      readlink -f "$link"
      return
    fi
  done
}

format_if_empty() { # $1: the disk, $2: `new` or `used`. What is on it is never overwritten, whatever it is
  head -c 1048576 "$1" >/dev/null 2>&1 || fail "its disk $1 can't be read"
  code=0
  content=$(blkid -p -o export "$1" 2>&1) || code=$?
  case $code in
    0) case $content in *TYPE=ext4*) ;; *) fail "on its disk $1 is something else than ext4: $(echo "$content" | grep TYPE= | tail -n 1)" ;; esac ;;
    2)
      [ "$2" = new ] || fail "there is no file system on its disk $1 any more"
      output=$(mkfs.ext4 -q -m 0 "$1" 2>&1) || fail "its disk $1 can't be formatted: $(echo "$output" | tail -n 1)"
      ;;
    *) fail "it is not known what is on its disk $1: $(echo "$content" | tail -n 1)" ;;
  esac
}

stop_engine() {
  for unit in docker.socket docker.service; do
    if systemctl is-active --quiet $unit; then systemctl stop $unit; fi
  done
}

serial=$(printf %.20s "$1")
hex=$(echo "$1" | tr -d -)
mkdir -p $COURSE && chmod 700 $COURSE
exec 9>$COURSE/lock # another run may be setting up the engine
flock -w 1800 9 || fail "another run has been setting this host up for 1800 s"

disk=
for _ in $(seq 120); do
  disk=$(find_disk)
  [ -z "$disk" ] || break
  sleep 1
done
[ -n "$disk" ] || fail "its disk does not appear (/dev/disk/by-id/*$serial*)"

data=$(systemctl show docker.service --property ExecStart 2>/dev/null | sed -n 's/.*--data-root[= ]\([^ ;]*\).*/\1/p' | head -n 1)
: "${data:=$(cat /etc/docker/daemon.json 2>/dev/null | tr '\n\t' '  ' | sed -n 's/.*"data-root" *: *"\([^"]*\)".*/\1/p')}"
: "${data:=/var/lib/docker}"
folder=$data/volumes
mounted=$(findmnt -n -o SOURCE --mountpoint "$folder" || true)
if [ -z "$mounted" ] && [ -n "$(find "$folder" -mindepth 1 -maxdepth 1 -type d ! -name lost+found 2>/dev/null | head -n 1)" ]; then
  echo kept
  exit 0
fi
if [ "$mounted" != "$disk" ]; then
  format_if_empty "$disk" "$2"
  stop_engine
  if [ -n "$mounted" ]; then umount "$folder" 2>/dev/null || umount -l "$folder"; fi # the disk that it had is gone
fi

mkdir -p "$folder"
chmod 710 "$data" # as the engine has it
# nofail: SSH has to work without the disk. The time-out is for the engine, which waits for it: some VMs boot slowly
{
  awk -v folder="$folder" '$2 != folder' /etc/fstab
  echo "UUID=$(blkid -p -o value -s UUID "$disk") $folder ext4 defaults,nofail,x-systemd.device-timeout=300s 0 2"
} >$COURSE/fstab
cmp -s $COURSE/fstab /etc/fstab || cat $COURSE/fstab >/etc/fstab # not mv: it stays the file that it is
rm $COURSE/fstab
mkdir -p "${UNIT%/*}"
printf '[Unit]\nRequiresMountsFor=%s\n' "$folder" >$UNIT
systemctl daemon-reload
systemctl start "$(systemd-escape --path --suffix=mount "$folder")" || fail "its disk $disk can't be mounted at $folder"
mounted=$(findmnt -n -o SOURCE --mountpoint "$folder" || true)
[ "$mounted" = "$disk" ] || fail "at $folder is ${mounted:-nothing} mounted, and not its disk $disk"
rmdir "$folder/lost+found" 2>/dev/null || true # the engine would take it for a volume
chmod 701 "$folder" # as the engine has it
sync
echo mounted
