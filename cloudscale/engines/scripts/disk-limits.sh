# Puts the engine's data on a file system with project quotas (XFS), with which the disk of each seat can be limited. Run as
# root, on a machine that was made for the course, before its engine serves the course.
# Prints `limited`, `used` for a machine that serves the course already, or why it is not possible: nothing is changed then.
# The file system is in a sparse file. It can't be larger than the disk has room for: a full disk would damage it.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
COURSE=/var/lib/cloudscale/course
FILE=/var/lib/cloudscale/engine.xfs
TRY=$COURSE/engine
DATA=/var/lib/docker
UNIT=/etc/systemd/system/docker.service.d/cloudscale-disk.conf
SPARE=1024 # MiB that stay for the system, with a tenth of the disk: so much its journal may take
LEAST=2048 # MiB, for an engine and its images

no() {
  ! mountpoint -q $TRY || umount $TRY
  rm -rf $FILE $TRY
  echo "$*"
  exit 0
}

mkdir -p $COURSE && chmod 700 $COURSE
exec 9>$COURSE/lock # another run may be setting up the engine
flock -w 1800 9 || { echo "cloudscale: another run has been setting this host up for 1800 s" >&2; exit 1; }

if findmnt -n -o OPTIONS --mountpoint $DATA | grep -q prjquota; then
  echo limited
  exit 0
fi
if [ -e $COURSE/mark.json ]; then
  echo used
  exit 0
fi
! mountpoint -q $TRY || umount $TRY # of a run that was cut off
for folder in $DATA $DATA/volumes; do
  ! mountpoint -q $folder || no "$folder is on a disk of its own"
done
if systemctl show docker.service --property ExecStart 2>/dev/null | grep -q -e --data-root ||
  grep -q '"data-root"' /etc/docker/daemon.json 2>/dev/null; then
  no "its engine keeps its data in another folder than $DATA"
fi

if ! command -v mkfs.xfs >/dev/null; then
  apt='apt-get -y -qq -o DPkg::Lock::Timeout=300 --no-remove --no-install-recommends'
  { $apt update && $apt install xfsprogs; } >$COURSE/apt 2>&1 || true
  rm -f $COURSE/apt
  command -v mkfs.xfs >/dev/null || no "the package xfsprogs can't be installed"
fi
room=$(df -Pk /var/lib | awk -v spare=$SPARE 'END { print int($4 / 1024 - $2 / 10240 - spare) }')
[ "$room" -ge $LEAST ] || no "its disk has too little room"
rm -f $FILE
truncate -s "${room}M" $FILE
chmod 600 $FILE
output=$(mkfs.xfs -q $FILE 2>&1) || no "no XFS can be made ($(echo "$output" | tail -n 1))"
mkdir -p $TRY
output=$(mount -o loop,prjquota $FILE $TRY 2>&1) || no "its kernel mounts no XFS with quotas ($(echo "$output" | tail -n 1))"
findmnt -n -o OPTIONS --mountpoint $TRY | grep -q prjquota || no "its kernel has no quotas of XFS"

for unit in docker.socket docker.service; do
  if systemctl is-active --quiet $unit; then systemctl stop $unit; fi
done
mkdir -p $DATA
output=$(cp -a $DATA/. $TRY/ 2>&1) || no "the engine's images can't be copied ($(echo "$output" | tail -n 1))"
chmod 710 $TRY # as the engine has it
umount $TRY
rmdir $TRY
{
  awk -v folder=$DATA '$2 != folder' /etc/fstab
  echo "$FILE $DATA xfs loop,prjquota,nofail 0 0" # nofail: SSH has to work without it
} >$COURSE/fstab
cat $COURSE/fstab >/etc/fstab # not mv: it stays the file that it is
rm $COURSE/fstab
mkdir -p "${UNIT%/*}"
printf '[Unit]\nRequiresMountsFor=%s\n' $DATA >$UNIT # not with an empty folder in its place
sync
find $DATA -mindepth 1 -delete
systemctl daemon-reload
systemctl start "$(systemd-escape --path --suffix=mount $DATA)" || true
if ! findmnt -n -o OPTIONS --mountpoint $DATA | grep -q prjquota; then
  echo "cloudscale: its engine's data in $FILE can't be mounted on $DATA" >&2
  exit 1
fi
echo limited
