#!/bin/bash
# sf-jit at the command line: subcommands and options, scripts and pipes with the places of their errors, statements over several lines,
# every :command, .npy in and out, and a session at a terminal (under expect, where that is installed).
# Usage: sf_jit.sh TOOLS-FOLDER SOURCE-FOLDER. Skipped (77) where sf-jit was not built.
set -u
bin=$1/sf-jit
[ -x "$bin" ] || { echo "skipped: no sf-jit (needs libedit)"; exit 77; }
digits=$2/examples/digits
work=$(mktemp -d)
trap 'chmod -R u+rwx "$work"; rm -rf "$work"' EXIT
cd "$work" || exit 1
export LC_ALL=C HOME=$work XDG_STATE_HOME=$work/state XDG_CACHE_HOME=$work/cache
cp "$digits"/*.sft "$digits"/*.safetensors .
failures=0

fail() {
  echo "FAIL $*"
  head -n 40 out err
  failures=$((failures + 1))
}
# try NAME CODE [PATTERN]...: runs sf-jit on "${a[@]}" with the file `in` as its input; every pattern must be in the output (both
# streams), "!PATTERN" must not.
: >in
try() {
  local name=$1 code=$2 got pattern
  shift 2
  "$bin" "${a[@]}" >out 2>err <in
  got=$?
  [ $got -eq "$code" ] || fail "$name: exit $got, not $code"
  for pattern; do
    if [ "${pattern#!}" != "$pattern" ]; then
      ! grep -qE -e "${pattern#!}" out err || fail "$name: has ${pattern#!}"
    else
      grep -qE -e "$pattern" out err || fail "$name: lacks $pattern"
    fi
  done
}
# script NAME CODE [PATTERN]... <<LINES: the lines as a script s.sj; patterns as above.
script() {
  cat >s.sj
  a=(s.sj)
  try "$@"
}
# npy SHAPE BYTES: a file of little-endian floats on stdout, BYTES as printf escapes.
npy() {
  printf '\223NUMPY\001\000v\000%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': $1, }"
  printf "$2"
}
one='\000\000\200\077' two='\000\000\000\100' minus='\000\000\200\277' zero='\000\000\000\000'

# ---- command line

a=(--help); try help 0 '^usage: sf-jit' 'emit STAGE MODEL' 'Exit: 0 done'
a=(--version); try version 0 '^sf-jit [0-9]+\.[0-9]+\.[0-9]+$'
a=(--bogus); try 'unknown option' 2 'bogus' 'see sf-jit --help'
a=(--isa); try 'no value' 2 'isa'
a=(--isa avx9 run pruned.sft); try 'unknown isa' 2 'avx9' 'native, reference'
a=(--threads 0 run pruned.sft); try 'no threads' 2 '--threads "0"'
a=(--threads 1,2 run pruned.sft); try 'list of threads' 2 'for bench'
a=(--symbol x bench pruned.sft); try 'symbol in words' 2 '--symbol "x"'
a=(--symbol '' bench pruned.sft); try 'no symbol' 2 '--symbol ""'
a=(--runs 0 bench pruned.sft); try 'no runs' 2 '--runs "0"'
a=(--format xml bench pruned.sft); try 'unknown format' 2 'md, csv or json'
a=(--classes 4,2 run pruned.sft); try 'descending classes' 2 '--classes "4,2"'
a=(-O 3 run pruned.sft); try 'level 3' 2 '-O "3"'
a=(run); try 'run nothing' 2 'a MODEL'
a=(time); try 'time nothing' 2 'a MODEL'
a=(bench); try 'bench nothing' 2 'bench MODEL'
a=(explain); try 'explain nothing' 2 'a MODEL'
a=(explain a.sft b.sft); try 'explain two' 2 'at most 0 words'
a=(profile); try 'profile nothing' 2 'a MODEL'
a=(zeros); try 'zeros of nothing' 2 'a MODEL'
a=(zeros a.sft w v); try 'zeros of two' 2 'at most 1 words'
a=(emit asm); try 'emit nothing' 2 'emit STAGE MODEL'
a=(emit asm a.sft k l); try 'emit too much' 2 'emit STAGE MODEL'
a=(frobnicate pruned.sft); try 'unknown subcommand' 2 '"frobnicate" is no subcommand'
a=(missing.sj); try 'missing script' 1 '^sf-jit: missing.sj: No such file'
a=(run missing.sft); try 'missing model' 1 '^sf-jit: missing.sft: there is no such file$'
a=(--emitter no-such-emitter run pruned.sft)
"$bin" --isa reference emit llvm pruned.sft >out 2>err && fail 'the reference has no code'
grep -q 'no generated code' err || fail 'the reference says so'
"$bin" emit asm pruned.sft >out 2>err && llvm=1 || llvm=0
[ $llvm -eq 0 ] || try 'unknown emitter' 1 'no-such-emitter'

printf 'graph g\n%%x = input f32[2]\n%%y = add %%x\noutput %%y\n' >bad.sft
a=(run bad.sft); try 'bad model' 1 '^sf-jit: bad.sft:3:6: add: 1 operands, not 2$'
a=(explain bad.sft); try 'bad model explained' 1 '^sf-jit: bad.sft:3:6: '
head -c 1000 pruned.safetensors >short.safetensors
sed 's/pruned.safe/short.safe/' pruned.sft >short.sft
a=(run short.sft); try 'truncated weights' 1 '^sf-jit: short.sft:3:9: .*conv1.weight'

# ---- run, time, bench

a=(run pruned.sft symbol=3); try run 0 '^y: \[3, 10\]$' '^  +[0-9]'
cp out first
a=(--isa reference run pruned.sft symbol=3); try 'run by the reference' 0 '^y: \[3, 10\]$'
a=(run pruned.sft symbol=-1); try 'negative symbol' 1 '"symbol=-1"'
a=(run pruned.sft symbol=0); try 'symbol 0' 0 '^y: \[0, 10\]$'
a=(run pruned.sft z=z.npy); try 'unknown input' 1 '"z=z.npy" names no input or output'
a=(run pruned.sft x=none.npy); try 'missing input file' 1 'none.npy: cannot open'
words=(); for i in $(seq 300); do words+=("x=$i.npy"); done
a=(run pruned.sft "${words[@]}"); try 'too many words' 2 'at most 256 words'
for level in 0 1 2; do
  a=(-O $level --threads 2 --classes 1,2,8 run pruned.sft symbol=3); try "run at -O $level" 0 '^y: \[3, 10\]$'
done

printf '%%x = input f32[batch, 2]\n%%y = relu %%x\noutput %%y\n' >relu.sft
npy '(3, 2)' "$one$minus$two$zero$minus$one" >x.npy
npy '(3, 2)' "$one$zero$two$zero$zero$one" >want.npy
a=(run relu.sft x=x.npy y=y.npy); try 'npy in and out' 0 '^y: \[3, 2\]$' '^ +1 +0$' '^ +2 +0$' '^ +0 +1$'
[ "$(tail -c 24 y.npy | od -An -tx1)" = "$(tail -c 24 want.npy | od -An -tx1)" ] || fail 'values written'
head -c 6 y.npy | grep -qa NUMPY || fail 'magic written'
a=(run relu.sft x=y.npy y=y.npy); try 'output over its input' 0 '^y: \[3, 2\]$'
a=(run relu.sft x=x.npy symbol=4); try 'symbol against the input' 1 '^sf-jit: x: extent 0 is 3, but the symbolic dimension is 4$'
npy '(2, 3)' "$one$minus$two$zero$minus$one" >wide.npy
a=(run relu.sft x=wide.npy); try 'wrong extents' 1 "'x'" 'extent 1 is 3, must be 2'
npy '(6,)' "$one$minus$two$zero$minus$one" >flat.npy
a=(run relu.sft x=flat.npy); try 'wrong rank' 1 "'x'" 'rank 1, must be 2'
head -c 100 x.npy >cut.npy
a=(run relu.sft x=cut.npy); try 'truncated npy' 1 'cut.npy: '
a=(run relu.sft x=x.npy y=none/y.npy); try 'output nowhere' 1 'none/y.npy: '

a=(time pruned.sft symbol=2 runs=5); try time 0 '^median [0-9.]+ us, mean [0-9.]+ \+- [0-9.]+ us, best [0-9.]+ us, 5 runs$'
a=(time relu.sft x=x.npy); try 'time on an input' 0 '50 runs'
a=(time pruned.sft runs=0); try 'time no runs' 1 '"runs=0"'
a=(--runs 3 --symbol 1,4 --threads 1,2 bench pruned.sft dense.sft)
try bench 0 '^\| model \| symbol' '^\| pruned.sft \| 1 \| 1 \|' '^\| pruned.sft \| 4 \| 2 \|' '^\| dense.sft \| 4 \| 1 \|'
[ "$(grep -c 'sft' out)" -eq 8 ] || fail 'rows of bench'
a=(--runs 3 --format csv bench relu.sft); try 'bench csv' 0 '^model,symbol,threads,' '^relu.sft,1,0,[0-9.]+,[0-9.]+,[0-9.]+,[0-9.]+,3$'
a=(--runs 3 --format json bench relu.sft); try 'bench json' 0 '^\{"model":"relu.sft","symbol":1,.*"median_us":[0-9.]+,.*"runs":3,.*\}$'
a=(bench missing.sft relu.sft); try 'bench the rest' 1 'missing.sft' '^\| relu.sft'

# ---- explain, emit, zeros

a=(explain pruned.sft); try explain 0 'conv2d' 'matmul'
[ $llvm -eq 0 ] || try 'explained times' 0 ', predicted [0-9.e+-]+ us, measured [0-9.e+-]+ us$' '^ +bound: (FMA|loads|L2|L3|memory) [0-9.e+-]+ us, [0-9]+ % reached(;|$)'
a=(--format json explain pruned.sft); try 'explain json' 0 '^\{"program":' '"classes":\[\{"symbol_min":1,"symbol_max":1,"priced_at":1,"kernels":\['
if command -v python3 >/dev/null; then
  python3 -c 'import json, sys
kernels = [k for c in json.load(open("out"))["classes"] for k in c["kernels"]]
compiled = [k for k in kernels if k["emitter"] != "reference"]
assert len(compiled) == (len(kernels) if int(sys.argv[1]) else 0)
for k in compiled:
    assert k["measured_us"] > 0 and k["predicted_us"] > 0 and k["bound_us"] == max(k["floors_us"].values()), k
    assert k["floors_us"][k["bound"]] == k["bound_us"] and abs(k["reached"] - k["bound_us"] / k["measured_us"]) < 1e-9, k' $llvm || fail 'the explanation is JSON'
fi
a=(--format csv explain pruned.sft); try 'explain csv' 1 'md .text. or json, not csv'
a=(emit graph pruned.sft); try 'emit graph' 0 '^%y = softmax' '^weights "pruned.safetensors"'
cp out printed.sft
a=(emit graph printed.sft); try 'emit is read back' 0
cmp -s out printed.sft || fail 'the printed graph is a fixpoint'
a=(emit canonical pruned.sft); try 'emit canonical' 0 '= softmax '
a=(emit facts pruned.sft); try 'emit facts' 0 '^fc1.weight[^ ]*: .*pattern [0-9a-f]{32}$'
a=(emit kernels pruned.sft); try 'emit kernels' 0 '^k0\.'
a=(emit fuse pruned.sft); [ $llvm -eq 0 ] || try 'emit a pass' 0 '^; before fuse, ' '^; after fuse, '
a=(emit simplify pruned.sft); try 'emit a graph pass' 0 '^; before simplify' '^; after simplify'
a=(emit frob pruned.sft); try 'emit no stage' 1 "no pass 'frob'; there are: eliminate-dead"
a=(emit kernels pruned.sft k99.nothing); try 'emit no kernel' 1 "no kernel 'k99.nothing'"
a=(emit graph pruned.sft k0); try 'emit a kernel of the graph' 1 "kernel 'k0'"
if [ $llvm -eq 1 ]; then
  a=(emit llvm pruned.sft); try 'emit llvm' 0 'define void @sf_kernel'
  a=(emit asm pruned.sft); try 'emit asm' 0 '^sf_kernel:'
  kernel=$(sed -n 's/^; \(k1\.[^,]*\),.*/\1/p' out | head -n 1)
  a=(emit asm pruned.sft "$kernel"); try 'emit one kernel' 0 '^sf_kernel:' '!^; k2'
  a=(--isa neon emit asm pruned.sft); try 'emit for another machine' 0 'fmla'
  a=(--isa neon run pruned.sft); try 'run for another machine' 1 'cannot run target "neon"'
  a=(--emitter gemm-dense --classes 64 explain pruned.sft); try 'one emitter' 0 'gemm-dense' '!refused: .*gemm-dense'
fi
a=(zeros pruned.sft); try zeros 0 '^weight +rows x columns' '^fc1.weight +256 x 1024 +[0-9.]+%'
a=(zeros pruned.sft fc1.weight); try picture 0 '^fc1.weight: 256 x 1024, [0-9]+ nonzeros' '^dead: ' '^  \|[ .+x#]{64}\|$'
[ "$(grep -c '^  |' out)" -eq 20 ] || fail 'rows of the picture'
a=(zeros pruned.sft %w1); try 'picture by value' 0 '^%w1: 32 x 9'
a=(zeros pruned.sft nothing); try 'picture of nothing' 1 'no value or weight is named "nothing"'
a=(zeros pruned.sft %c1); try 'picture of no weight' 1 '^sf-jit: '
if locale -a 2>/dev/null | grep -qi '^C.utf'; then
  LC_ALL=C.UTF-8 "$bin" zeros pruned.sft fc1.weight >out 2>err
  grep -qF '░' out || grep -qF '▒' out || grep -qF '█' out || fail 'picture in blocks'
fi

# ---- tuning: reached once, then read

a=(--tune sometimes run pruned.sft); try 'unknown level' 2 '--tune "sometimes": off, fast or full'
a=(--cache-dir tuned --tune fast -v run pruned.sft); try tune 0
[ $llvm -eq 0 ] || grep -q ' by timing, ' err || fail 'something is timed'
try 'tuned again' 0 ' 0 compiled' '! by timing, '
a=(--cache-dir tuned --calibrate -v run pruned.sft); try calibrate 0
[ $llvm -eq 0 ] || grep -q 'machine measured in ' err || fail 'the machine is measured'
try 'calibrated again' 0 '!machine measured'

# ---- profile (what is in the page: profile_page.sh)

a=(--threads 2 profile pruned.sft symbol=3 runs=4 trace=t.json page=p.html)
try profile 0 '^\| kernel \| emitter \| weight ' '^\| k0\.[a-z0-9_+]+ \| [a-z-]+ \| ' \
  '^[0-9]+ kernels take [0-9.]+ us of a run of [0-9.]+ us \(medians of 4 runs, [a-z0-9]+, 2 threads\); their bounds are [0-9.]+ us$'
kernels=$(grep -c '^| k[0-9]' out)
[ "$(grep -c '"cat":"run"' t.json)" -eq 4 ] || fail 'runs in the trace'
[ "$(grep '"cat":"kernel"' t.json | grep -o '"run":3,"kernel":[0-9]*' | sort -u | wc -l)" -eq "$kernels" ] || fail 'kernels of a run in the trace'
number='[0-9]+\.[0-9]+'
sed '1d;$d' t.json | grep -vqE '^\{"ph":"(M"|X","name":"[^"]+",.*"ts":'$number',"dur":'$number',"cat":).*\},?$' && fail 'a line of the trace'
grep -q '^</html>$' p.html && ! grep -qE '(src|href)=' p.html || fail 'the page is whole and alone'
a=(--format csv profile pruned.sft runs=2); try 'profile csv' 0 '^kernel,emitter,weight,' '^k0\.[^,]+,[^,]+,'
a=(--format json profile pruned.sft runs=2); try 'profile json' 0 '^\{"model":"pruned.sft","symbol":1,"runs":2,"run_us":' '^\{"name":"k0\.[^"]*","emitter":'
a=(profile pruned.sft runs=0); try 'profile no runs' 1 '"runs=0": a whole number'
a=(profile pruned.sft what=3); try 'profile an unknown word' 1 '"what=3" names no input'
a=(profile pruned.sft runs=1 trace=none/t.json); try 'a trace where nothing can be' 1 'none/t.json: No such file'
a=(profile pruned.sft runs=1 page=none/p.html); try 'a page where nothing can be' 1 'none/p.html: No such file'
a=(profile pruned.sft runs=1 trace=/dev/full); [ ! -e /dev/full ] || try 'a trace on a full disk' 1 'trace cannot be written|/dev/full'
a=(profile pruned.sft runs=1 page=/dev/full); [ ! -e /dev/full ] || try 'a page on a full disk' 1 '/dev/full: No space'

# ---- cache and log

a=(--cache-dir own -v run relu.sft); try 'own cache' 0 'kernels, '
[ $llvm -eq 0 ] || [ -n "$(find own -type f)" ] || fail 'own cache is filled'
[ $llvm -eq 0 ] || try 'own cache again' 0 ' 0 compiled'
rm -rf cache
a=(--cache-dir '' run relu.sft); try 'no cache' 0
[ ! -e cache ] || fail 'no cache is made'
a=(run relu.sft); try quiet 0 '!kernels, '

# ---- scripts

script 'a graph line by line' 0 '^y: \[2, 3\]$' '^%y = relu %m$' <<'LINES'
; lines of the text form and commands
%x = input f32[batch, 4]
%w = constant f32[3, 4] [1, 0, 2, 0,   ; a comment [ inside
   ; another
   0, 3, 0, 4,
   5, 0, 0, 6]
%m = matmul %x, \
   %w transpose_b=1
%y = relu %m
output %y
:run symbol=2
:show
LINES
script 'errors with their places' 1 \
  '^sf-jit: s.sj:2:6: unknown operation .frob.' '^sf-jit: s.sj:3:8: add: unknown value .%zz.$|^sf-jit: s.sj:3:[0-9]+: .*unknown value' \
  '^sf-jit: s.sj:5:21: c: expected' '^sf-jit: s.sj:7: :nothing: no such command; :help lists them$' '^sf-jit: s.sj:8: usage: :load FILE.sft$' \
  '^sf-jit: s.sj:9: usage: :show$' '^sf-jit: s.sj:10: no.sft: there is no such file$' '^sf-jit: s.sj:11: bad.sft:3:6: add: 1 operands, not 2$' \
  '^sf-jit: s.sj:12:9: "no.safetensors": there is no such file$' '^sf-jit: s.sj:13: usage: :emit STAGE' '^sf-jit: s.sj:14: usage: :quit$' \
  '^y: \[1, 2\]$' <<'LINES'
%x = input f32[batch, 2]
%a = frob %x
%b = add %x, %zz
%y = relu %x
%c = constant f32[2]

:nothing
:load
:show me
:load no.sft
:load bad.sft
weights "no.safetensors"
:emit
:quit now
output %y
:run
LINES
script 'an error over several lines' 1 '^sf-jit: s.sj:2: ' '!s.sj:2:[0-9]' <<'LINES'
; the statement begins in line 2
%c = constant f32[2] [1,
  2,
  3]
LINES
script 'end inside brackets' 1 '^sf-jit: s.sj:2: the input ends inside a statement$' <<'LINES'
%x = input f32[2]
%c = constant f32[2] [1,
LINES
script 'an empty line ends a statement' 1 '^sf-jit: s.sj:2:?' '^y: \[2\]$' <<'LINES'
%x = input f32[2]
%c = constant f32[2] [1,

%y = relu %x
output %y
:run
LINES
script 'brackets in strings and commands' 1 's.sj:1:9: "a\[1.safetensors": there is no such file' 's.sj:2: \[b.sft: there is no such file' '^sf-jit: s.sj:3: ' <<'LINES'
weights "a[1.safetensors"
:load [b.sft
:load c;d.sft
LINES
printf '%%x = input f32[2]\r\n%%y = relu %%x\r\noutput %%y\r\n:run\r\n:quit\r\n:nothing\r\n' >crlf.sj
a=(crlf.sj); try 'lines that end in CR LF, :quit' 0 '^y: \[2\]$' '!nothing'
printf '%%x = input f32[2]\n%%y = relu %%x\noutput %%y\n:run' >in
a=(); try 'a pipe without a last newline' 0 '^y: \[2\]$'
a=(-); try 'a pipe by name' 0 '^y: \[2\]$'
printf ':frob\n' >in
a=(); try 'an error in a pipe' 1 '^sf-jit: stdin:1: :frob: no such command'
: >in
a=(); try 'an empty pipe' 0
script 'every command' 0 '^%y = softmax' '^y: \[3, 10\]$' '^median .* 4 runs$' '^weight +rows' '^fc1.weight: 256 x 1024' '^k0\.' \
  '^; before simplify' '^  :load FILE.sft ' '^  :quit ' '^z: \[2, 2\]$' <<'LINES'
:load pruned.sft
:show
:run symbol=3
:time symbol=2 runs=4
:zeros
:zeros fc1.weight
:profile runs=2
:explain
:emit kernels
:emit simplify
:save copy.sft
:save
:help
:reset
%x = input f32[batch, 2]
%z = relu %x
output %z "z"
:run x=x.npy z=z.npy
:reset
%x = input f32[2, 2]
%z = relu %x
output %z
:run
LINES
"$bin" emit graph copy.sft >out 2>err && cmp -s out printed.sft || fail 'what :save wrote'
cmp -s <(tail -c 24 z.npy) <(tail -c 24 want.npy) || fail 'what :run wrote'
[ $llvm -eq 0 ] || script ':asm' 0 '^sf_kernel:' <<'LINES'
%x = input f32[4]
%y = exp %x
output %y
:asm
LINES
script ':save where nothing can be' 1 '^sf-jit: s.sj:1: none/x.sft: No such file' <<'LINES'
:save none/x.sft
LINES
script 'a model and its weights in another folder' 0 '^y: \[1, 10\]$' <<LINES
:load $digits/pruned.sft
:run
LINES

# ---- a terminal

if command -v expect >/dev/null; then
  cat >terminal.exp <<'LINES'
set timeout 20
proc see {what} {
  expect {
    -ex $what {}
    timeout { puts "\nFAIL waited for: $what"; exit 1 }
    eof { puts "\nFAIL ended before: $what"; exit 1 }
  }
}
# The end of the session, exit code 0. The prompt stands before the terminal is ready for single keys: `keys`,
# which empty the line first, may be lost: again.
proc finish {keys} {
  set timeout 2
  for {set i 0} {$i < 10} {incr i} {
    send $keys
    expect {
      eof {
        lassign [wait] pid spawned os code
        if {$code != 0} { puts "\nFAIL exit $code"; exit 1 }
        return
      }
      timeout {}
    }
  }
  puts "\nFAIL does not end"
  exit 1
}
proc start {} {
  global spawn_id
  spawn -noecho $::env(SF_JIT)
  see ":help lists the commands"
  see "sf> "
}
start
send "%first = input f32\[2,\r"
see "..> "
send "3\]\r"
see "sf> "
# one candidate is completed: an operation, a value, a command
# one candidate is completed: an operation, a value
send "%second = rel\t %fi\t\r"
see "sf> "
# several are shown
send "%third = reduce_\t"
see "reduce_sum  reduce_mean  reduce_max"
see "sf> %third = reduce_"
send "me\t %second axe\t\[0\]\r"
see "sf> "
send "output %third\r"
see "sf> "
send ":sh\t\r"
see "%second = relu %first"
see "%third = reduce_mean %second axes=\[0\]"
see "sf> "
send ":ru\t\r"
see "third: \[3\]"
see "sf> "
# a mistake is told without a place, and the session goes on
send "%x = frob %first\r"
see "sf-jit: unknown operation 'frob'"
see "sf> "
# history: the last but one line again
send "\033\[A\033\[A\r"
see "third: \[3\]"
see "sf> "
finish "\025:quit\r"
# the history is kept; the end of the input ends the session
start
send "\033\[A\033\[A\r"
see "graph 'graph' has no output"
see "sf> "
finish "\025\004"
LINES
  SF_JIT=$bin TERM=vt100 timeout 120 expect terminal.exp >out 2>err </dev/null || fail 'a session at a terminal'
  grep -q '^:quit$' state/sparseflow/history || fail 'the history is kept'
  [ "$(stat -c %a state/sparseflow)" = 700 ] || fail "the history's folder is private"
else
  echo 'no expect: the terminal is not tested'
fi

[ $failures -eq 0 ] && echo "sf_jit: all passed"
exit $((failures > 0))
