#!/bin/bash
# The digest that cache entries are marked with: the same wherever the sources lie and however their lines end, another one for any change of
# a text, a name or the list, and untouched where nothing has changed. Usage: sources_digest.sh SOURCE-FOLDER BUILD-FOLDER
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/a" "$work/b"
printf 'int a; /* [;] \\ "x" $x ${x} @x@ \303\244 */\n\nint b;\n' >"$work/a/one.c"
printf '#define TWO 2\n' >"$work/a/two.h"
printf 'one.c\ntwo.h\n' >"$work/list"

digest() { # of the sources in a folder
  cmake "-DROOT=$1" "-DLIST=$work/list" "-DOUT=$work/out.c" -P "$source/cmake/sources_digest.cmake"
  grep -oE '0x[0-9a-f]{2}' "$work/out.c" | tr -d '\n'
}
different() { # WHAT FOLDER
  [ "$(digest "$2")" != "$first" ] || { echo "the same digest in spite of $1"; exit 1; }
}
source=$1
first=$(digest "$work/a")
[ ${#first} = 64 ]
touch -d 2001-01-01 "$work/out.c"
[ "$(digest "$work/a")" = "$first" ]
[ "$(date -r "$work/out.c" +%Y)" = 2001 ] || { echo "written anew without a change"; exit 1; }
sed 's/$/\r/' "$work/a/one.c" >"$work/b/one.c"
cp "$work/a/two.h" "$work/b"
[ "$(digest "$work/b")" = "$first" ] || { echo "ends of lines count"; exit 1; }
for from in 'int a' '\[' ';' '\\' '"x"' '\${x}' '@x@' 'b;'; do
  sed "0,/$from/s//Z/" "$work/a/one.c" >"$work/b/one.c"
  different "a change of $from" "$work/b"
done
mv "$work/a/one.c" "$work/a/three.c"
printf 'three.c\ntwo.h\n' >"$work/list"
different "another name" "$work/a"
printf 'two.h\n' >"$work/list"
different "a file less" "$work/a"

# Every source of the directories that matter is in the build's list.
for directory in include/sparseflow ir passes backends/cpu jit; do
  (cd "$source" && ls "$directory"/*.[ch] "$directory"/*.def 2>/dev/null || true)
done | sort >"$work/wanted"
sort "$2/sources_digest.txt" | diff "$work/wanted" -
echo passed
