// Put behind the script of a profile's page, with the trace of the same runs as JSON in #trace and what sf-jit printed in #printed: does
// the page show what they say? Leaves its verdict in the body's data-check: "passed", or what is wrong.
"use strict";
const wrong = [...window.problems];
const check = (condition, ...what) => { if (!condition) wrong.push(what.join(" ")); };
const near = (a, b, tolerance) => Math.abs(a - b) <= tolerance;
const middle = values => values.sort((a, b) => a - b)[values.length >> 1];
try {
  const page = JSON.parse(document.getElementById("data").textContent), shown = page.profile.kernels;
  const trace = JSON.parse(document.getElementById("trace").textContent), printed = JSON.parse(document.getElementById("printed").textContent);
  check(document.body.dataset.drawn === "yes", "the page's script did not reach its end");
  check(JSON.stringify(page.profile) === JSON.stringify(printed), "the page's data are not what was printed");
  check(page.profile.runs > 2 && shown.length > 3, "a profile of nothing");

  // Medians, anew from the trace.
  const runs = trace.filter(e => e.cat === "run"), chunks = trace.filter(e => e.cat === "kernel");
  check(runs.length === page.profile.runs, "runs in the trace:", runs.length);
  check(near(middle(runs.map(e => e.dur)), page.profile.run_us, .002), "run_us", page.profile.run_us);
  shown.forEach((kernel, k) => {
    const walls = runs.map(run => {
      const own = chunks.filter(e => e.args.run === run.args.run && e.args.kernel === k);
      check(own.length === kernel.chunks, kernel.name, "chunks of a run:", own.length);
      for (const e of own) check(e.name === kernel.name && e.args.flops === kernel.flops && e.args.bytes === kernel.bytes, kernel.name, "in the trace");
      return Math.max(...own.map(e => e.ts + e.dur)) - Math.min(...own.map(e => e.ts));
    });
    check(near(middle(walls), kernel.us, .003), kernel.name, "takes", kernel.us, "by the trace", middle(walls));
  });

  // The table, cell by cell.
  const heads = [...document.querySelectorAll("#kernels th")].map(e => e.textContent), rows = [...document.querySelectorAll("#kernels tbody tr")];
  check(rows.length === printed.kernels.length, "rows of the table:", rows.length);
  printed.kernels.forEach((kernel, k) => {
    const cell = name => rows[k].cells[heads.indexOf(name)].textContent;
    check(cell("kernel") === kernel.name && cell("emitter") === kernel.emitter && cell("weight") === (kernel.weight || ""), "names in row", k);
    check(near(parseFloat(cell("us")), kernel.us, .006), kernel.name, "us", cell("us"));
    check(near(parseFloat(cell("share")), 100 * kernel.us / printed.run_us, .06), kernel.name, "share", cell("share"));
    check(near(parseFloat(cell("GFLOP/s")), kernel.flops / kernel.us / 1e3, .06), kernel.name, "GFLOP/s", cell("GFLOP/s"));
    check(near(parseFloat(cell("GB/s")), kernel.bytes / kernel.us / 1e3, .06), kernel.name, "GB/s", cell("GB/s"));
    check(near(parseFloat(cell("reached")), 100 * kernel.bound_us / kernel.us, .06), kernel.name, "reached", cell("reached"));
    if (kernel.weight) check(near(parseFloat(cell("zeros")), 100 * (1 - kernel.density), .06), kernel.name, "zeros", cell("zeros"));
  });

  // The timeline: the chunks of the typical run, as wide as they are long. Several runs may have taken as long: one of them is drawn.
  // Chunks of one kernel stand in any order, as several threads have them: they are compared by length.
  const width = rect => +rect.getAttribute("width"), kernelOf = rect => +rect.dataset.kernel;
  const rects = [...document.querySelectorAll("#timeline rect.span")].sort((a, b) => kernelOf(a) - kernelOf(b) || width(a) - width(b));
  const chunksOf = run => chunks.filter(e => e.args.run === run).sort((a, b) => a.args.kernel - b.args.kernel || a.dur - b.dur);
  const scaleOf = of => Math.max(...rects.map(width)) / Math.max(...of.map(e => e.dur));
  const asWide = (of, i) => near(width(rects[i]), of[i].dur * scaleOf(of), .51);
  const typical = runs.filter(e => near(e.dur, page.profile.run_us, .002)).map(e => chunksOf(e.args.run));
  const of = typical.find(of => of.length === rects.length && of.every((e, i) => asWide(of, i))) || typical[0];
  check(rects.length === of.length, "rectangles", rects.length, "chunks", of.length);
  of.forEach((e, i) => {
    check(kernelOf(rects[i]) === e.args.kernel, "rectangle", i, "is of kernel", kernelOf(rects[i]));
    check(asWide(of, i), "width of rectangle", i);
    check(rects[i].getBoundingClientRect().width > 0, "rectangle", i, "is not on the screen");
  });

  // The roofline: where a dot is, against the lines of the grid (the first ones upright, then level, at powers of ten).
  const chart = document.getElementById("roofline"), dots = [...chart.querySelectorAll("circle.dot")];
  const labels = [...chart.querySelectorAll("text")], ticks = anchor => labels.filter(e => e.getAttribute("text-anchor") === anchor && isFinite(+e.textContent));
  const place = (marks, at, value) => { // the position of `value` by two marks of a logarithmic axis
    const [a, b] = [marks[0], marks[marks.length - 1]], [p, q] = [a, b].map(e => +e.getAttribute(at)), [u, v] = [a, b].map(e => Math.log10(+e.textContent));
    return p + (Math.log10(value) - u) / (v - u) * (q - p);
  };
  check(dots.length === printed.kernels.length, "dots", dots.length);
  for (const dot of dots) {
    const kernel = printed.kernels[dot.dataset.kernel];
    check(dot.querySelector("title").textContent.startsWith(kernel.name + "\n"), "title of the dot of", kernel.name);
    if (kernel.flops === 0) continue;
    check(near(dot.getAttribute("cx"), place(ticks("middle"), "x", kernel.flops / kernel.bytes), .5), kernel.name, "FLOP/byte on the roofline");
    check(near(dot.getAttribute("cy"), place(ticks("end"), "y", kernel.flops / kernel.us / 1e3) - 4, .5), kernel.name, "GFLOP/s on the roofline");
  }
  check(chart.querySelectorAll(".roof").length === 5, "roofs");

  // The pictures: as dark on the whole as the weight is full.
  const canvases = [...document.querySelectorAll("#weights canvas")];
  check(canvases.length === page.weights.length && canvases.length > 0, "pictures", canvases.length);
  page.weights.forEach((w, i) => {
    const pixels = canvases[i].getContext("2d").getImageData(0, 0, w.width, w.height).data;
    let sum = 0;
    for (let p = 3; p < pixels.length; p += 4) sum += pixels[p] / 255;
    check(near(sum / (w.width * w.height), w.nonzeros / (w.rows * w.columns), .02), w.name, "is", sum / (w.width * w.height), "full in its picture");
    const zeros = parseFloat(/([0-9.]+) % zeros/.exec(canvases[i].parentNode.textContent)[1]);
    check(near(zeros, 100 - 100 * w.nonzeros / (w.rows * w.columns), .06), w.name, "zeros", zeros);
  });
} catch (e) {
  wrong.push(String(e));
}
document.body.dataset.check = wrong.length ? wrong.slice(0, 5).join("; ") : "passed";
