#!/usr/bin/env bash
# Sets up a bare Debian 12 that has Node.js and npm, then passes all checks and tests:
# everything on Deno 2.9.6; the type check and a smoke test on Deno 2.8.3, which nixos-26.05 has.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(age chromium find:findutils fuse3:fuse3 ip:iproute2 nix-instantiate:nix-bin rclone rdiff rrsync:rsync rsync
  sqlite3 ssh:openssh-client /usr/sbin/sshd:openssh-server /lib/systemd/systemd:systemd gpg:gnupg restic borg:borgbackup duplicity
  jq /usr/bin/time:time zstd zsh fish mandoc script:bsdutils)
missing=()
for entry in "${packages[@]}"; do
  command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
done
if ((${#missing[@]})); then
  echo "installing: ${missing[*]}"
  sudo=(); ((EUID == 0)) || sudo=(sudo)
  "${sudo[@]}" apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
fi

# Deno comes as an npm package; each version in a folder of its own, outside the project.
deno() { "$tools/$1/node_modules/.bin/deno" "${@:2}"; }
tools=${HAPI_BACKUP_TOOLS:-$HOME/.cache/hapi-backup-tests}
for version in 2.9.6 2.8.3; do
  [[ -x $tools/$version/node_modules/.bin/deno ]] && continue
  mkdir -p "$tools/$version"
  npm install --silent --no-save --prefix "$tools/$version" "deno@$version"
done

echo "== Deno 2.9.6: format, lint, types"
deno 2.9.6 task check

echo "== Deno 2.8.3: types, and the demo as a smoke test"
deno 2.8.3 check mod.ts scripts tests
deno 2.8.3 task demo

echo "== Deno 2.9.6: all tests"
export HAPI_BACKUP_DENO_28="$tools/2.8.3/node_modules/deno/deno"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
# One more file at a time than there are cores: some of them wait much, for a far side that says nothing or a unit.
export DENO_JOBS=${DENO_JOBS:-$(($(nproc) + 1))}
NO_COLOR=1 deno 2.9.6 task test "$@" 2>&1 | tee "$log" || status=$?
summary=$(grep -E '^(ok|FAILED) \| ' "$log" | tail -n 1)
[[ $summary =~ ([0-9]+)\ passed ]] && echo "${BASH_REMATCH[1]} passed, $([[ $summary =~ ([0-9]+)\ failed ]] && echo "${BASH_REMATCH[1]}" || echo 0) failed"
exit "$status"
