#!/bin/bash
# boot.sh FOLDER: boots systemd as PID 1 of its own namespaces on the unit files in FOLDER/units and the bare targets
# beside this script, with FOLDER/home as /home, FOLDER/lib as /var/lib and FOLDER/etc over single files of /etc.
# driver.service runs FOLDER/driver.sh as root and ends the boot. The network is this machine's own, so that what a unit
# cannot reach is cut off by the unit and by nothing else. Needs root. Takes about 0.3 s plus the driver.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(cd "$1" && pwd)
case ${2-} in
  '')
    exec unshare --mount bash "$here/boot.sh" "$folder" apart </dev/null
    ;;
  apart)
    # Of two systemds in one cgroup each removes what the other has just made, and starts of units fail (219/CGROUP).
    mount --make-rprivate /
    [[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
    cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/lab-$$
    mkdir "$cgroup"
    trap 'find "$cgroup" -depth -type d -exec rmdir {} +' EXIT
    timeout -k 2 "${BOOT_SECONDS:-300}" unshare --pid --fork --kill-child bash "$here/boot.sh" "$folder" into "$cgroup"
    exit
    ;;
  into)
    echo 0 >"$3/cgroup.procs"
    exec unshare --mount --cgroup --uts --ipc bash "$here/boot.sh" "$folder" inside
    ;;
esac
mount --make-rshared / # else LoadCredential's folders come up empty
mount -t proc proc /proc
mkdir -p "$folder"/{home,lib,etc,lib/systemd,lib/private}
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/{unit-root,mount-rootfs} # what the first walled unit makes (252, newer), and a user's manager cannot
for file in "$folder"/etc/*; do [[ ! -e $file ]] || mount --bind "$file" "/etc/${file##*/}"; done
mount -t tmpfs tmpfs /etc/systemd
mount --bind "$folder/home" /home
mount --bind "$folder/lib" /var/lib
umount /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
export container=lab SYSTEMD_UNIT_PATH="$folder/units:$here/targets" SYSTEMD_LOG_TARGET=console
export SYSTEMD_GENERATOR_PATH=/nonexistent SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nonexistent
exec /lib/systemd/systemd --system --unit=lab.target --show-status=no --log-target=console
