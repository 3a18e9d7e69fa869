# flatten-npm.sh LOCK OUT: the packages of the lock file LOCK, one folder NAME@VERSION each, with nothing in them but
# what their tarballs hold. Run beside deno.json; needs the registry, deno and coreutils.
set -euo pipefail
shopt -s nullglob
lock=$1 out=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp --no-preserve=mode deno.json "$work/deno.json"
cp --no-preserve=mode "$lock" "$work/deno.lock"
(cd "$work" && HOME=$work DENO_DIR=$work/cache deno install --frozen --quiet)
mkdir -p "$out"
for dir in "$work"/node_modules/.deno/*/node_modules; do
  version=${dir%/node_modules}
  version=${version##*/} # @noble+hashes@2.0.1, bare-stream@2.13.4_1
  version=${version#*[!@]@}
  version=${version%%_*}
  for package in "$dir"/* "$dir"/@*/*; do
    [[ -f $package/package.json && ! -L $package ]] || continue
    target=$out/${package#"$dir"/}@$version
    mkdir -p "${target%/*}"
    cp -R --no-preserve=ownership,timestamps "$package" "$target"
  done
done
