# Run as root in a stage of a build: adds what packages.txt (Debian's) and requirements.txt (Python's) name, and gathers
# in /new all that has changed thereby, so that the image gets it as one layer on those of its base.
set -eu
cd "$(dirname "$0")"
export DEBIAN_FRONTEND=noninteractive HOME=/root
mkdir -p /usr/share/man/man1 # slim images lack it, and packages put links there
touch before
sleep 0.1 # what happens within a tick of the clock is not newer
if [ -d debs ]; then # fetched before: the build has no network
  dpkg --install debs/*.deb
elif [ -s packages.txt ]; then
  apt-get update -q
  xargs -a packages.txt apt-get install -q -y --no-install-recommends
fi
if [ -s requirements.txt ]; then
  pip install -q --disable-pip-version-check --root-user-action=ignore --no-cache-dir \
    --no-index --no-deps --find-links wheels -r requirements.txt
fi
# all that the image holds, for whoever wants the very same again
mkdir -p /usr/share/cloudscale
pip list --format=freeze --disable-pip-version-check >/usr/share/cloudscale/requirements.txt
rm -rf /var/lib/apt/lists/*
mkdir /new
cd /
find . -xdev \( -path ./build -o -path ./new -o -path ./tmp -o -path ./root -o -path ./var/log -o -path ./var/cache \) \
  -prune -o -cnewer build/before -print0 | tar --create --null --no-recursion --files-from - |
  tar --extract --directory /new
