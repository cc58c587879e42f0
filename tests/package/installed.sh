#!/bin/bash
# Installs into an empty folder, moves it, and builds the host example against it with pkg-config and with CMake; takes the headers
# through C and C++, and checks what the library exports. Usage: installed.sh BUILD-FOLDER SOURCE-FOLDER C-COMPILER
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
batch 1: y[0] = 1.43359 -0.0390625 -1.71484 ...
batch 5: y[0] = 0.226562 -1.30469 -0.601562 ...
END
}
export PKG_CONFIG_PATH="${pc%/*}"
# shellcheck disable=SC2046 # words are wanted
"$3" -std=c11 -pthread -Wall -Wextra -Werror -pedantic "$2/examples/host/host.c" -o "$work/by-pkg-config" $(pkg-config --cflags --libs sparseflow)
run "$work/by-pkg-config"
[ "$(pkg-config --modversion sparseflow)" = "$("$work/moved/bin/sf-warm" --version | cut -d' ' -f2)" ]

cmake -G Ninja -S "$2/examples/host" -B "$work/host" -DCMAKE_C_COMPILER="$3" -DCMAKE_PREFIX_PATH="$work/moved" >"$work/log"
cmake --build "$work/host" >"$work/log" || { cat "$work/log"; exit 1; }
run "$work/host/host"

# Each header alone, as C11 and as C++17; and a C++ host that links.
cxx=$(command -v c++ || command -v clang++-19) || { echo "no C++ compiler"; exit 1; }
flags=(-Wall -Wextra -Werror -pedantic -I"$work/moved/include")
for header in "$work"/moved/include/sparseflow/*.h; do
  echo "#include <sparseflow/${header##*/}>" >"$work/alone.h"
  "$3" -x c -std=c11 "${flags[@]}" -fsyntax-only "$work/alone.h"
  "$cxx" -x c++ -std=c++17 "${flags[@]}" -fsyntax-only "$work/alone.h"
done
cat >"$work/host.cpp" <<'END'
#include <sparseflow/sparseflow.h>
int main() {
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.cache_dir = "";
  sf_status status = sf_context_create(&options, &context);
  sf_context_release(context);
  return status == SF_OK ? 0 : 1;
}
END
"$cxx" -std=c++17 "${flags[@]}" -c "$work/host.cpp" -o "$work/host.o"
"$3" "$work/host.o" -L"$lib" -lsparseflow -o "$work/by-cxx" # nothing of the C++ library is needed
LD_LIBRARY_PATH="$lib" "$work/by-cxx"

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
