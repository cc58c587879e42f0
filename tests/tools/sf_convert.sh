#!/bin/bash
# sf-convert: there and back again, pruning with its report, what is refused, exit codes, and the operators in the documentation.
# sf_convert.sh TOOLS SOURCE
set -u
convert=$1/sf-convert jit=$1/sf-jit source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
fail() {
  echo "FAILED: $1" >&2
  [ -s out ] && cat out >&2
  exit 1
}
# expect CODE COMMAND...: runs it, output to ./out
expect() {
  local code=$1
  shift
  "$@" >out 2>&1
  local got=$?
  [ $got -eq "$code" ] || fail "exit $got, not $code: $*"
}
has() { grep -qF -- "$1" out || fail "no \"$1\" in the output"; }

if ! "$convert" --list-operators >operators 2>/dev/null; then
  cp "$source/tests/fuzz/corpus/onnx/Gemm_1" model.onnx
  expect 1 "$convert" model.onnx model.sft
  has "built without nanopb"
  exit 0
fi
# The documentation has this build's operators, row by row.
grep -E '^\| [A-Z][A-Za-z0-9]* \|' "$source/docs/onnx.md" | diff - operators >out || fail "docs/onnx.md and --list-operators differ"

corpus=$source/tests/fuzz/corpus/onnx
for name in Conv_0 Gemm_1 Shape_split_heads_0 Slice_positions_0 Expand_attention_mask_0 LayerNormalization_0; do
  cp "$corpus/$name" model.onnx
  expect 0 "$convert" model.onnx model.sft
  expect 0 "$convert" model.sft again.onnx
  expect 0 "$convert" again.onnx again.sft
  [ ! -x "$jit" ] || expect 0 "$jit" --isa reference --cache-dir "" run again.sft symbol=3
done
expect 0 "$convert" --list-unsupported model.onnx
has "0 refused"

# The two bounds of a Clip are one node again, but not where what lies between them is a result too.
head='%%x = input f32[2, 5]\n%%0 = constant f32[] -0.5\n%%a = max %%0, %%x\n%%1 = constant f32[] 6\n%%b = min %%a, %%1\noutput %%b\n'
for between in "" "output %%a\n"; do
  printf "$head$between" >clip.sft
  expect 0 "$convert" clip.sft clip.onnx
  if [ -z "$between" ]; then grep -q Clip clip.onnx; else ! grep -q Clip clip.onnx; fi || fail "a Clip where there should be none, or none where one should be"
  expect 0 "$convert" clip.onnx again.sft
done

# Pruning: a hundred weights with the numbers 1 to 100, so that it is known which ones go.
python3 - <<'PYTHON' || fail "no weights"
import json, struct
numbers = [float(n) for n in range(1, 101)]
header = json.dumps({"w": {"dtype": "F32", "shape": [10, 10], "data_offsets": [0, 400]}}).encode()
open("m.safetensors", "wb").write(struct.pack("<Q", len(header)) + header + struct.pack("<100f", *numbers))
PYTHON
printf 'weights "m.safetensors"\n%%x = input f32[2, 10]\n%%w = weight "w" f32[10, 10]\n%%y = matmul %%x, %%w transpose_b=1\noutput %%y\n' >m.sft
for row in "0.9 90.00" "global:0.5 50.00" "2:5 60.00" "2:5:out 60.00" "5x2:0.6 60.00" "0 0.00" "1 100.00"; do
  read -r pattern zeros <<<"$row"
  expect 0 "$convert" --prune "$pattern" m.sft p.sft
  has "| 0.00 % | $zeros % |"
done
expect 0 "$convert" --prune 0.9 m.sft p.sft
python3 - <<'PYTHON' || fail "not the smallest went"
import struct
raw = open("p.safetensors", "rb").read()
length, = struct.unpack("<Q", raw[:8])
kept = struct.unpack("<100f", raw[8 + length:])
assert kept == tuple(0.0 if n <= 90 else float(n) for n in range(1, 101)), kept
header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 10), }"
header += " " * (-(10 + len(header) + 1) % 64) + "\n"
open("x.npy", "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + struct.pack("<20f", *[1.0] * 20))
PYTHON
# On ones each result is the sum of a row: 91 + ... + 100 stays, 1 + ... + 10 goes, so 0 to 55 and 805 at most go.
expect 0 "$convert" --prune 0.9 --input x=x.npy m.sft p.sft
has "| w | 855 |"
# A weight that one operation takes twice and that is a result as well is pruned everywhere.
sed -e 's/^output %y$/%s = matmul %w, %w\noutput %s\noutput %w/' m.sft >twice.sft
expect 0 "$convert" --prune 0.9 --input x=x.npy twice.sft p.sft
python3 - <<'PYTHON' || fail "not everything that takes the weight had the pruned one"
w = [[10.0 * r + c + 1 for c in range(10)] for r in range(10)]
kept = [[x if x > 90 else 0.0 for x in row] for row in w]
square = lambda m: [sum(a * b for a, b in zip(row, column)) for row in m for column in zip(*m)]
ends = lambda m: square(m) + sum(m, [])
right, got = ends(w), ends(kept)
most = max(abs(a - b) for a, b in zip(right, got))
relative = (sum((a - b) ** 2 for a, b in zip(right, got)) / sum(a * a for a in right)) ** 0.5
row = next(line for line in open("out") if line.startswith("| w | 855 |"))
assert row.count(" %.3g | %.3g | " % (most, relative)) == 2, row
PYTHON

# What is refused, and how.
printf 'rubbish' >bad.onnx
expect 1 "$convert" bad.onnx bad.sft
has "bad.onnx"
head -c 100 "$corpus/Conv_0" >cut.onnx
expect 1 "$convert" cut.onnx cut.sft
[ ! -e cut.sft ] || fail "a refused model was written"
expect 1 "$convert" none.onnx none.sft
has "no such file"
expect 1 "$convert" --prune 0.9 --layer '*=dense' m.sft p.sft
expect 1 "$convert" m.sft no/such/folder/m.sft
expect 1 "$convert" --prune 0.9 --layer 'encoder*=2:4' m.sft p.sft
has 'no layer is called "encoder*"'
expect 2 "$convert" m.sft
has "two files, FROM and TO"
expect 2 "$convert" --prune 1.5 m.sft p.sft
has "no pattern such as 0.9"
expect 2 "$convert" --prune 5:4 m.sft p.sft
expect 2 "$convert" --dim batch m.sft p.sft
expect 2 "$convert" --input x=x.npy m.sft p.sft
expect 0 "$convert" --help
expect 0 "$convert" --version
