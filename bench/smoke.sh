#!/bin/bash
# sf-bench on tiny problems: smoke.sh SF-BENCH SOURCE-FOLDER. Lines must be JSON, results right, bad command lines refused. No times.
set -eu
bench=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAILED: $1" >&2
  exit 1
}

# check NAME ARGUMENT...: ours and both plain loops right on every line.
check() {
  local name=$1
  shift
  "$bench" "$@" --runs 2 --json >"$work/out" || fail "$name: exit $?"
  python3 - "$work/out" "$name" <<'END' || fail "$name: $(cat "$work/out")"
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
assert lines
for line in lines:
    assert 0 <= line["max_rel_error"] < 1e-4 and line["median_us"] > 0, line
    if line["kind"] == "model":
        continue
    assert line["kernel"] and line["peers"], line
    for name, error in line["peer_error"].items():
        assert error is not None and error < 1e-4, (name, line)
    assert abs(line["zeros"] - (1 - line["nnz"] / (line["rows"] * line["cols"]))) < 1e-4, line
END
}

made="--rows 40 --cols 72 --peers plain,plain-packed"
"$bench" --list | grep -q '^tuned' && made="$made,tuned" # else there is nothing to choose from
for layout in row tokens; do
  # shellcheck disable=SC2086 # a list of words
  check "$layout" spmm $made --zeros 80 --columns 1,4,16,37,70,128 --layout $layout
done
for pattern in coin 2:4 1:4x8 2:4v 16x1 1x16 4x4 dead; do
  # shellcheck disable=SC2086
  check "$pattern" spmm $made --zeros 75 --pattern $pattern --columns 20
done
# shellcheck disable=SC2086
check gemm gemm $made --columns 33 --threads 2
for geometry in "1 1 0" "3 1 1" "3 2 1" "1 2 0"; do
  read -r kernel stride pad <<<"$geometry"
  check "conv $geometry" conv --rows 24 --channels 10 --kernel "$kernel" --stride "$stride" --pad "$pad" --image 9x11 --zeros 60 \
    --batch 2 --peers plain --threads 2
done
if "$bench" --list | grep -q '^spmm-'; then # else there is no kernel to time alone
  # shellcheck disable=SC2086
  check panel spmm $made --zeros 90 --columns 1,70 --layout panel --threads 2
  check "conv panel" conv --rows 24 --channels 10 --kernel 3 --pad 1 --image 9x11 --zeros 60 --peers plain --layout panel
fi
check model model --model "$source/examples/digits/pruned.sft" --symbol 5

printf '2, 3, 3\n0 1 3\n2 0 1\n' >"$work/a.smtx"
printf '%%%%MatrixMarket matrix coordinate real general\n%% a comment\n2 3 2\n1 1 0.5\n2 3 -4\n' >"$work/a.mtx"
check smtx spmm --matrix "$work/a.smtx" --columns 3 --peers plain
check mtx spmm --matrix "$work/a.mtx" --columns 3 --peers plain
check safetensors spmm --matrix "$source/examples/digits/pruned.safetensors:$(python3 - "$source/examples/digits/pruned.safetensors" <<'END'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
header = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
print(next(n for n, t in header.items() if n != "__metadata__" and len(t["shape"]) == 2))
END
)" --columns 3 --peers plain

# refuse EXIT TEXT ARGUMENT...
refuse() {
  local exit=$1 text=$2 code=0
  shift 2
  "$bench" "$@" >"$work/out" 2>"$work/error" || code=$?
  [ "$code" = "$exit" ] || fail "$*: exit $code, not $exit"
  grep -qF -- "$text" "$work/error" || fail "$*: $(cat "$work/error")"
}
printf '2, 3, 3\n0 1 3\n2 0 3\n' >"$work/b.smtx"
printf '2, 3, 3\n0 2 1\n2 0 1\n' >"$work/c.smtx"
refuse 1 "b.smtx:3: expected the index of a column" spmm --matrix "$work/b.smtx"
refuse 1 "c.smtx:2: expected the next start of a row" spmm --matrix "$work/c.smtx"
refuse 1 "none.npy" spmm --matrix "$work/none.npy"
refuse 2 "neither .smtx" spmm --matrix "$work/none.txt"
refuse 2 "no peer \"nobody\"" spmm --rows 4 --cols 4 --peers nobody
refuse 2 "not a pattern" spmm --rows 4 --cols 4 --pattern stripes
refuse 2 "--columns 0" spmm --rows 4 --cols 4 --columns 0
refuse 2 "needs --matrix, or a size" spmm
refuse 2 "needs --image" conv --rows 4 --channels 4 --kernel 3
echo ok
