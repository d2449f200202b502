# Run as root in a build stage: installs the Debian packages of packages.txt and the Python packages of requirements.txt,
# and copies every changed file to /new, so that the image adds one layer to its base.
set -eu
cd "$(dirname "$0")"
export DEBIAN_FRONTEND=noninteractive HOME=/root
mkdir -p /usr/share/man/man1 # slim images lack it, and packages create links in it
touch before
sleep 0.1 # a file that changes within the same clock tick is not newer
if [ -d debs ]; then # downloaded before: the build has no network
  dpkg --install debs/*.deb
elif [ -s packages.txt ]; then
  apt-get update -q
  xargs -a packages.txt apt-get install -q -y --no-install-recommends
fi
if [ -s requirements.txt ]; then
  pip install -q --disable-pip-version-check --root-user-action=ignore --no-cache-dir \
    --no-index --no-deps --find-links wheels -r requirements.txt
fi
# all versions, so that the same image can be built again
mkdir -p /usr/share/cloudscale
pip list --format=freeze --disable-pip-version-check >/usr/share/cloudscale/requirements.txt
rm -rf /var/lib/apt/lists/*
mkdir /new
cd /
find . -xdev \( -path ./build -o -path ./new -o -path ./tmp -o -path ./root -o -path ./var/log -o -path ./var/cache \) \
  -prune -o -cnewer build/before -print0 | tar --create --null --no-recursion --files-from - |
  tar --extract --directory /new
