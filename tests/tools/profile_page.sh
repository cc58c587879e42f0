#!/bin/bash
# A profile's page in headless Chromium: it is drawn without a script error, and shows what the trace and the printed JSON of the same runs
# say (profile_page_check.js). Then with one number changed, which must be found. A trace whose writer was killed is read as well.
# Usage: profile_page.sh TOOLS-FOLDER SOURCE-FOLDER. Skipped (77) where there is no Chromium or no sf-jit.
set -u
bin=$1/sf-jit
[ -x "$bin" ] || { echo "skipped: no sf-jit (needs libedit)"; exit 77; }
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || { echo "skipped: no Chromium"; exit 77; }
source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export LC_ALL=C HOME=$work XDG_CACHE_HOME=$work/cache
failures=0
fail() {
  echo "FAIL $*"
  failures=$((failures + 1))
}

# verdict PAGE TRACE JSON: what the check says of the page, on one line.
verdict() {
  {
    sed '/^<meta charset/a <script>window.problems = []; addEventListener("error", e => problems.push(String(e.message)));</script>' "$1" |
      sed '/^<\/body>/,$d'
    echo '<script type="application/json" id="trace">' && cat "$2" && echo '</script>'
    echo '<script type="application/json" id="printed">' && cat "$3" && echo '</script>'
    echo '<script>' && cat "$source/tests/tools/profile_page_check.js" && echo '</script></body></html>'
  } >looked.html
  timeout 120 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$work/browser" \
    --window-size=1200,1600 --dump-dom "file://$work/looked.html" 2>err | grep -oE '<body[^>]*data-check="[^"]*"' | sed 's/.*data-check=//'
}

cp "$source"/examples/digits/pruned.* .
for network in 'pruned.sft symbol=64' 'pruned.sft symbol=1'; do
  # shellcheck disable=SC2086 # two words
  "$bin" --threads 2 --format json profile $network runs=9 trace=trace.json page=page.html >printed.json 2>err || { fail "$network"; cat err; }
  got=$(verdict page.html trace.json printed.json)
  [ "$got" = '"passed"' ] || { fail "$network: $got"; tail -n 5 err; }
done

# What the check must find: another time in the page's data, a script that does not run, a picture that is too dark.
sed '0,/"us":[0-9.]*/s//"us":12345.678/' page.html >changed.html
cmp -s page.html changed.html && fail 'nothing was changed'
verdict changed.html trace.json printed.json | grep -q 'not what was printed.*takes 12345.678' || fail 'a changed time is not found'
sed 's/^drawTimeline();/nothing();/' page.html >changed.html
verdict changed.html trace.json printed.json | grep -q 'nothing is not defined.*did not reach its end' || fail 'a script error is not found'
sed 's/"nonzeros":[0-9]*/"nonzeros":1/' page.html >changed.html
verdict changed.html trace.json printed.json | grep -q 'full in its picture' || fail 'a wrong picture is not found'

# Killed while it writes: with a bracket behind it the trace is whole up to its last run.
"$bin" --threads 2 profile pruned.sft symbol=16 runs=10000 trace=cut.json >out 2>err &
writer=$!
for ((i = 0; i < 600; i++)); do
  [ "$(grep -c '"cat":"run"' cut.json 2>/dev/null)" -gt 20 ] 2>/dev/null && break
  sleep 0.05
done
kill -9 $writer && wait $writer 2>/dev/null
grep -q '^\]$' cut.json && fail 'the writer was not killed in time'
{ sed '$d' cut.json | sed '$s/,$//' && echo ']'; } >mended.json # without the last line, which may be cut
cat >read.html <<END
<!doctype html><body><script type="application/json" id="trace">$(cat mended.json)</script>
<script>const runs = JSON.parse(document.getElementById("trace").textContent).filter(e => e.cat === "run").length;
document.body.dataset.check = runs > 20 ? "passed" : "runs: " + runs;</script></body>
END
timeout 120 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$work/browser" --dump-dom \
  "file://$work/read.html" 2>err | grep -q 'data-check="passed"' || fail 'the trace of a killed writer cannot be read'

[ $failures -eq 0 ] && echo passed
[ $failures -eq 0 ]
