#!/bin/bash
# Installs into an empty folder, moves it, and builds the host example against it with pkg-config and with CMake; checks what the
# library exports. Usage: installed.sh BUILD-FOLDER SOURCE-FOLDER C-COMPILER
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME="$work"

cmake --install "$1" --prefix "$work/first" >"$work/log"
mv "$work/first" "$work/moved" # nothing may remember where it was installed
pc=$(find "$work/moved" -name sparseflow.pc)
lib=$(dirname "$(dirname "$pc")")

run() {
  LD_LIBRARY_PATH="$lib" "$1" >"$work/out"
  diff "$work/out" - <<'END'
batch 1: sum of y = 19.5938
batch 5: sum of y = 105.2812
END
}
export PKG_CONFIG_PATH="${pc%/*}"
# shellcheck disable=SC2046 # words are wanted
"$3" -std=c11 -Wall -Wextra -Werror -pedantic "$2/examples/host/host.c" -o "$work/by-pkg-config" $(pkg-config --cflags --libs sparseflow)
run "$work/by-pkg-config"
[ "$(pkg-config --modversion sparseflow)" = "$("$work/moved/bin/sf-warm" --version | cut -d' ' -f2)" ]

cmake -G Ninja -S "$2/examples/host" -B "$work/host" -DCMAKE_C_COMPILER="$3" -DCMAKE_PREFIX_PATH="$work/moved" >"$work/log"
cmake --build "$work/host" >"$work/log" || { cat "$work/log"; exit 1; }
run "$work/host/host"

# A name for each major version, and nothing but the API outside.
so=$lib/libsparseflow.so.0
[ -e "$so" ] && objdump -p "$so" | grep -q 'SONAME *libsparseflow.so.0$'
others=$(nm -D --defined-only "$so" | awk '{ print $3 }' | grep -vE '^sf_|^SPARSEFLOW_0' || true)
[ -z "$others" ] || { echo "exported beside the API: $others"; exit 1; }
# Every public function that the headers declare is there.
for name in $(grep -ohE '^SF_API [^(]*\bsf_[a-z0-9_]+\(' "$work/moved/include/sparseflow/sparseflow.h" | grep -oE 'sf_[a-z0-9_]+\($' | tr -d '('); do
  nm -D --defined-only "$so" | grep -qE " $name(@|$)" || { echo "declared but not exported: $name"; exit 1; }
done
echo passed
