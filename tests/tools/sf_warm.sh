#!/bin/bash
# sf-warm at the command line: every option, bad manifests, unknown models and targets, --check, pruning, two at once.
# Usage: sf_warm.sh TOOLS-FOLDER SOURCE-FOLDER
set -u
bin=$1/sf-warm
digits=$2/examples/digits
work=$(mktemp -d)
trap 'chmod -R u+rwx "$work"; rm -rf "$work"' EXIT
cd "$work" || exit 1
cp "$digits"/*.sft "$digits"/*.safetensors .
failures=0

# expect NAME CODE [GREP-PATTERN]...: runs sf-warm on "${a[@]}"; every pattern must be in the output (both streams), "!PATTERN" must not.
expect() {
  local name=$1 code=$2 got pattern
  shift 2
  "$bin" "${a[@]}" >out 2>err </dev/null
  got=$?
  if [ $got -ne "$code" ]; then
    echo "FAIL $name: exit $got, not $code"
    cat out err
    failures=$((failures + 1))
  fi
  for pattern; do
    if [ "${pattern#!}" != "$pattern" ]; then
      ! grep -qE -e "${pattern#!}" out err || { echo "FAIL $name: has ${pattern#!}"; cat out err; failures=$((failures + 1)); }
    else
      grep -qE -e "$pattern" out err || { echo "FAIL $name: lacks $pattern"; cat out err; failures=$((failures + 1)); }
    fi
  done
}
# The number of column $1 in the report's line that starts with $2.
column() { awk -v line="$2" -v column="$1" '$1 == line { print $column }' out; }
check() {
  if ! eval "$2"; then
    echo "FAIL $1: $2"
    cat out err
    failures=$((failures + 1))
  fi
}

# Without LLVM only the reference back end is there: nothing compiles, everything else holds.
a=(--cache-dir probe --check pruned.sft)
"$bin" "${a[@]}" >out 2>err </dev/null
if [ $? -eq 3 ]; then llvm=1; else llvm=0; fi

a=(--help); expect help 0 'usage: sf-warm' '--check' 'Exit status'
a=(--version); expect version 0 '^sf-warm [0-9]+\.[0-9]+\.[0-9]+$'
a=(); expect nothing 2 'no model is named' 'see sf-warm --help'
a=(--bogus x.sft); expect 'unknown option' 2 'bogus'
a=(-t avx9 pruned.sft); expect 'unknown target' 2 'avx9'
a=(-t avx2,avx2 pruned.sft); expect 'target twice' 2 'avx2,avx2'
a=(-t '' pruned.sft); expect 'no target' 2 'target'
a=(-b 16,1 pruned.sft); expect 'descending batch' 2 '16,1'
a=(-b one pruned.sft); expect 'batch in words' 2 'one'
a=(-j 0 pruned.sft); expect 'no threads' 2 'threads 0'
a=(--max-size 1X pruned.sft); expect 'bad size' 2 '1X'
a=(--max-size 0 pruned.sft); expect 'no size' 2 'max-size 0'
a=(--cache-dir '' pruned.sft); expect 'empty cache-dir' 2 'cache-dir'
a=(--check --prune pruned.sft); expect 'check and prune' 2 'does not go with'
a=(-m a.yaml -m b.yaml); : >a.yaml
expect 'empty manifest' 2 '^sf-warm: a.yaml:1:1: an empty manifest'
a=(-m missing.yaml); expect 'missing manifest' 2 '^sf-warm: missing.yaml: cannot open'
printf 'targets: [avx2]\nmodels:\n  - path: pruned.sft\n    turgets: [avx2]\n' >bad.yaml
a=(-m bad.yaml); expect 'unknown key' 2 '^sf-warm: bad.yaml:4:5: unknown key "turgets" in a model'
printf 'targets: [sse9]\nmodels: [pruned.sft]\n' >bad.yaml
a=(-m bad.yaml); expect 'unknown target in manifest' 2 '^sf-warm: bad.yaml:1:11: target "sse9"'
printf 'models: [pruned.sft\n' >bad.yaml
a=(-m bad.yaml); expect 'broken YAML' 2 '^sf-warm: bad.yaml:2:1: '
head -c 2000000 /dev/zero | tr '\0' '#' >bad.yaml
a=(-m bad.yaml); expect 'huge manifest' 2 'longer than 1048576 bytes'

a=(--cache-dir cache missing.sft pruned.sft)
expect 'missing model, the other done' 1 'missing.sft' '^pruned.sft +native +[0-9]' '^missing.sft +native +not found'
printf 'graph g\n%%x = input f32[2]\n%%y = frob %%x\noutput %%y\n' >frob.sft
a=(--cache-dir cache frob.sft); expect 'unknown operation' 1 'frob.sft:3:'

printf 'targets: [native]\nbatch: [1, 16]\nmodels:\n  - dense.sft\n  - {path: pruned.sft, batch: [1]}\n' >m.yaml
a=(--cache-dir warm -m m.yaml); expect cold 0 '^\[1/2\] dense.sft native$' '^\[2/2\] pruned.sft native$' '^total' '^cache .*warm: '
a=(--cache-dir warm -m m.yaml -q); expect again 0 '!^\[1/2\]'
check 'a second run compiles nothing' '[ "$(column 4 total)" = 0 ]'
check 'nothing is timed unasked' '[ "$(column 6 total)" = 0 ]'
check 'a second run packs nothing' '[ "$(column 5 total)" = 0 ]'
[ $llvm = 0 ] || check 'a second run finds everything' '[ "$(column 2 total)" = "$(column 3 total)" ]'
a=(--cache-dir warm --check -m m.yaml); expect 'check of a warm cache' 0 '!would compile'
a=(--cache-dir warm --json -m m.yaml); expect json 0 '"misses": 0' '"target": "native"'
if command -v python3 >/dev/null; then
  check 'the report is JSON' 'python3 -c "import json; r = json.load(open(\"out\")); assert len(r[\"jobs\"]) == 2 and r[\"total\"][\"misses\"] == 0"'
fi

if [ $llvm = 1 ]; then
  a=(--cache-dir empty --check -m m.yaml); expect 'check of an empty cache' 3 '^would compile: dense.sft native: .*: missing' '^would compile: pruned.sft'
  a=(--cache-dir empty --check --json pruned.sft); expect 'check compiled nothing' 3 '"hits": 0' '"state": "missing"'
  # Every target compiles on any machine, and stands beside the others.
  a=(--cache-dir all -t avx2,avx512,neon pruned.sft); expect 'all targets' 0 '^pruned.sft +avx2 ' '^pruned.sft +avx512 ' '^pruned.sft +neon '
  check 'all targets compiled' '[ "$(column 4 total)" -gt 0 ]'
  a=(--cache-dir all -t avx2,avx512,neon --check pruned.sft); expect 'check of all targets' 0 '!would compile'
  a=(--cache-dir class -b 64 pruned.sft); expect 'one batch class' 0
  a=(--cache-dir class -b 1,64 --check pruned.sft); expect 'another batch class' 3 'would compile: pruned.sft native'
  # A corrupt entry is a miss that is compiled again, not an error.
  for file in $(find warm -type f -size +1k | head -n 3); do printf '\377' | dd of="$file" bs=1 seek=900 conv=notrunc status=none; done
  a=(--cache-dir warm --check -m m.yaml); expect 'corrupt entries' 3
  a=(--cache-dir warm -m m.yaml); expect 'corrupt entries made again' 0
  a=(--cache-dir warm --check -m m.yaml); expect 'healed' 0
  # Two at once on one empty directory.
  "$bin" --cache-dir both -q -m m.yaml >out1 2>err1 &
  "$bin" --cache-dir both -q -m m.yaml >out2 2>err2
  second=$?
  wait $!
  first=$?
  check 'two at once' "[ $first = 0 ] && [ $second = 0 ] && [ ! -s err1 ] && [ ! -s err2 ]"
  a=(--cache-dir both --check -m m.yaml); expect 'two at once, then check' 0
  # A directory that takes nothing defeats the purpose.
  : >file
  a=(--cache-dir file/cache pruned.sft); expect 'no cache directory' 1 'sf-warm: '
fi

a=(--cache-dir warm --max-size 1K --prune); expect prune 0 '^cache .*, [0-9]+ removed' '!^total'
[ $llvm = 0 ] || check 'something was pruned' 'grep -qE "[1-9][0-9]* removed" out'
check 'pruned to the cap' '[ "$(find warm -type f -size +1k | wc -l)" = 0 ]'
a=(--cache-dir warm --max-size 256M --prune -m m.yaml); expect 'warm and prune' 0 'of 256.0 MiB, 0 removed'
a=(--cache-dir warm -v -j 1 -m m.yaml); expect 'one thread, verbose' 0

# A terminal gets a bar that is gone at the end.
if command -v script >/dev/null; then
  script -qec "'$bin' --cache-dir warm -m m.yaml" /dev/null </dev/null >terminal
  check 'a bar on a terminal' 'grep -q "\[\.*\] 1/2 dense.sft native" terminal && grep -q "\[####*\.*\] 2/2 pruned.sft" terminal'
fi

[ $failures -eq 0 ] && echo "all passed"
exit $((failures > 0))
