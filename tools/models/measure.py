"""Engines in turns on one model: checked against each other, then timed; every other one stands still meanwhile.

Each engine is a process (engines.py) that is stopped while another one runs, so that no library's idle threads spin beside another's.
Rounds A B C A B C ... of a few runs each; the median over all runs counts, the spread is (90th - 10th percentile) / median.
"""
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys

import numpy

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "models"
# Largest difference over the largest value of the output, of fp32 sums in another order through a whole network.
TOLERANCE = 1e-3


class Engine:
    def __init__(self, name, job_file):
        # One thread for numpy, which only carries arrays: its others spin beside an engine that opens.
        environment = dict(os.environ, OMP_NUM_THREADS=str(json.loads(job_file.read_text())["threads"]), OMP_PROC_BIND="true",
                           OPENBLAS_NUM_THREADS="1")
        self.name = name
        self.process = subprocess.Popen([sys.executable, HERE / "engines.py", name, job_file], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=open(WORK / f"{name}.log", "w"), text=True, env=environment)
        self.times = []
        self.about = self.read()
        if "error" not in self.about:
            self.stop()

    def read(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"ended with {self.process.wait()}; see {WORK}/{self.name}.log"}

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def ask(self, line):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.read()
        self.stop()
        return answer

    def end(self):
        self.process.kill()
        self.process.wait()


def compare(ours, theirs):
    """The largest difference over the largest value, of the worst output that both have."""
    worst = 0.0 if ours.keys() & theirs.keys() else float("inf")
    for name in ours.keys() & theirs.keys():
        got, want = ours[name], theirs[name]
        if got.shape != want.shape or not numpy.isfinite(got).all():
            return float("inf")
        worst = max(worst, float(numpy.abs(got - want).max() / max(numpy.abs(want).max(), 1e-30)))
    return worst


def spread(times):
    low, high = numpy.percentile(times, [10, 90])
    return (high - low) / numpy.median(times)


def measure(job, names, seconds=4.0):
    """Times of the engines `names` on `job` (see engines.py), ours first; {engine: {...}}."""
    job_file = WORK / "job.json"
    job_file.write_text(json.dumps(job))
    engines, result = [], {}
    for name in names:
        engine = Engine(name, job_file)
        result[name] = engine.about
        if "error" in engine.about:
            print(f"  {name}: {engine.about['error']}", file=sys.stderr)
            engine.end()
        else:
            engines.append(engine)
    try:
        outputs = {}
        for engine in engines:
            file = WORK / f"outputs-{engine.name}.npz"
            engine.ask(f"outputs {file}")
            outputs[engine.name] = dict(numpy.load(file))
        if "sparseflow" in outputs:
            for engine in engines:
                if engine.name != "sparseflow":
                    result[engine.name]["difference"] = compare(outputs["sparseflow"], outputs[engine.name])
        first = {e.name: numpy.median(e.ask("run 3")["us"]) for e in engines}
        # At least 30 runs each, about `seconds` for all.
        rounds = 10
        for _ in range(rounds):
            for e in engines:
                runs = max(3, min(500, int(seconds * 1e6 / len(engines) / rounds / first[e.name])))
                e.times += e.ask(f"run {runs}")["us"]
        if engines and engines[0].name == "sparseflow":
            result["sparseflow"]["profile"] = engines[0].ask("profile 20")["kernels"]
        for e in engines:
            result[e.name].update(us=float(numpy.median(e.times)), spread=float(spread(e.times)), runs=len(e.times))
    finally:
        for e in engines:
            e.end()
    return result


def machine():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def commit():
    return subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
