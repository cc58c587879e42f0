"""One engine in a process of its own, at the other end of a pipe: what measure.py lets run in turns.

    python engines.py ENGINE JOB.json      ENGINE: sparseflow, onnxruntime, openvino, pytorch

JOB names the model in each engine's form, the inputs (.npz) and the number of threads. Lines on standard input, answers as lines of JSON:
`run N` gives the microseconds of N runs behind one that is not timed, `outputs FILE.npz` runs once into arrays full of NaN and keeps them, `profile N`
(ours alone) gives our kernels with their times.
"""
import ctypes
import json
import os
import sys
import time

import numpy

DTYPES = {"float32": 0, "float64": 1, "int32": 6, "int64": 7}  # as in dtypes.def


class Options(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("allocator", ctypes.c_void_p), ("log", ctypes.c_void_p),
                ("log_user", ctypes.c_void_p), ("log_level", ctypes.c_int), ("parallel_for", ctypes.c_void_p),
                ("parallel_for_user", ctypes.c_void_p), ("threads", ctypes.c_int32), ("isa", ctypes.c_int),
                ("cache_dir", ctypes.c_char_p), ("cache_max_bytes", ctypes.c_uint64)]


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int), ("rank", ctypes.c_int32), ("dims", ctypes.c_int64 * 6)]


class Info(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("dtype", ctypes.c_int), ("rank", ctypes.c_int32), ("dims", ctypes.c_int64 * 6)]


class Stats(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t)] + [(n, ctypes.c_int32) for n in (
        "kernels", "compiled", "disk_hits", "memory_hits", "weights_scanned", "weights_packed")] + [
        (n, ctypes.c_uint64) for n in ("code_bytes", "packed_bytes", "arena_bytes")] + [("milliseconds", ctypes.c_double)]


class Kernel(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("name", ctypes.c_char_p), ("emitter", ctypes.c_char_p), ("weight", ctypes.c_char_p),
                ("density", ctypes.c_double), ("chunks", ctypes.c_int32), ("flops", ctypes.c_double), ("dense_flops", ctypes.c_double),
                ("bytes", ctypes.c_double), ("bound", ctypes.c_int), ("bound_us", ctypes.c_double), ("predicted_us", ctypes.c_double)]


class Span(ctypes.Structure):
    _fields_ = [("kernel", ctypes.c_int32), ("thread", ctypes.c_uint64), ("begin_ns", ctypes.c_int64), ("end_ns", ctypes.c_int64)]


class Profile(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("spans", ctypes.POINTER(Span)), ("capacity", ctypes.c_int32), ("count", ctypes.c_int32),
                ("begin_ns", ctypes.c_int64), ("end_ns", ctypes.c_int64)]


class Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("line", ctypes.c_int32), ("column", ctypes.c_int32), ("file", ctypes.c_char * 256),
                ("op", ctypes.c_char * 64), ("message", ctypes.c_char * 512)]


class Sparseflow:
    """The public API by ctypes."""

    def __init__(self, job, inputs):
        begin, stats = time.perf_counter(), Stats(struct_size=ctypes.sizeof(Stats))
        self.sf = ctypes.CDLL(job["library"])
        self.context, graph, self.program = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        cache = job.get("cache_dir")
        options = Options(struct_size=ctypes.sizeof(Options), threads=job["threads"], log_level=1,
                          cache_dir=cache.encode() if cache is not None else None)
        self.check(self.sf.sf_context_create(ctypes.byref(options), ctypes.byref(self.context)))
        if job["graph"].endswith(".onnx"):
            self.check(self.sf.sf_graph_from_onnx_file(self.context, job["graph"].encode(), None, ctypes.byref(graph)))
        else:
            self.check(self.sf.sf_graph_parse_file(self.context, job["graph"].encode(), ctypes.byref(graph)))
        self.check(self.sf.sf_compile(self.context, graph, None, ctypes.byref(self.program), ctypes.byref(stats)))
        self.sf.sf_graph_release(graph)
        self.about = {n: getattr(stats, n) for n in ("kernels", "compiled", "code_bytes", "packed_bytes", "arena_bytes")}
        info = Info()
        self.inputs, self.outputs, self.arrays, self.arrays_by_name = [], {}, [], {}
        self.symbol = 1
        for i in range(self.sf.sf_program_input_count(self.program)):
            self.sf.sf_program_input_info(self.program, i, ctypes.byref(info))
            array = numpy.ascontiguousarray(inputs[info.name.decode()])
            self.symbol = next((n for n, d in zip(array.shape, info.dims) if d < 0), self.symbol)
            self.arrays_by_name[info.name.decode()] = array
            self.inputs.append(self.tensor(array))
        outputs = []
        for i in range(self.sf.sf_program_output_count(self.program)):
            self.check(self.sf.sf_program_output_shape(self.program, i, ctypes.c_int64(self.symbol), ctypes.byref(info)))
            name = info.name.decode()
            if name in job.get("in_place", {}):  # a cache that stands in the memory of its input
                array = self.arrays_by_name[job["in_place"][name]]
            else:
                array = self.outputs[name] = numpy.full(tuple(info.dims[:info.rank]), numpy.nan, numpy.float32)
            outputs.append(self.tensor(array))
        self.inputs, self.out = (Tensor * len(self.inputs))(*self.inputs), (Tensor * len(outputs))(*outputs)
        self.run()
        self.open_ms = (time.perf_counter() - begin) * 1e3

    def check(self, status):
        if status:
            error = Error()
            self.sf.sf_context_take_error(self.context, ctypes.byref(error))
            raise RuntimeError(f"sparseflow: {error.file.decode()}:{error.line}: {error.op.decode()}: {error.message.decode()}")

    def tensor(self, array):
        self.arrays.append(array)
        return Tensor(array.ctypes.data, DTYPES[str(array.dtype)], array.ndim, (ctypes.c_int64 * 6)(*array.shape))

    def run(self):
        self.check(self.sf.sf_run(self.program, len(self.inputs), self.inputs, len(self.out), self.out))

    def results(self):
        for array in self.outputs.values():
            array.fill(numpy.nan)
        self.run()
        return self.outputs


    def profile(self, runs):
        """Kernels with their median times over profiled runs."""
        symbol = ctypes.c_int64(self.symbol)
        capacity = self.sf.sf_program_span_count(self.program, symbol)
        spans, kernels = (Span * capacity)(), []
        for k in range(self.sf.sf_program_kernel_count(self.program, symbol)):
            kernels.append(Kernel(struct_size=ctypes.sizeof(Kernel)))
            self.check(self.sf.sf_program_kernel_info(self.program, symbol, k, ctypes.byref(kernels[k])))
        times = numpy.zeros((runs, len(kernels)))
        for times_of_run in times:
            profile = Profile(struct_size=ctypes.sizeof(Profile), spans=spans, capacity=capacity)
            self.check(self.sf.sf_run_profiled(self.program, len(self.inputs), self.inputs, len(self.out), self.out, ctypes.byref(profile)))
            at = 0
            for k, kernel in enumerate(kernels):
                own = spans[at:at + kernel.chunks]
                times_of_run[k] = (max(s.end_ns for s in own) - min(s.begin_ns for s in own)) / 1e3
                at += kernel.chunks
        return [{"name": k.name.decode(), "emitter": k.emitter.decode(), "us": us, "bound_us": k.bound_us, "flops": k.flops,
                 "bytes": k.bytes} for k, us in zip(kernels, numpy.median(times, 0))]


class OnnxRuntime:
    def __init__(self, job, inputs):
        import onnxruntime
        begin = time.perf_counter()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = job["threads"], 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(job["onnx"], options, providers=["CPUExecutionProvider"])
        self.inputs = {i.name: inputs[i.name] for i in self.session.get_inputs()}
        self.run()
        self.open_ms = (time.perf_counter() - begin) * 1e3

    def run(self):
        self.last = self.session.run(None, self.inputs)

    def results(self):
        self.run()
        return dict(zip((o.name for o in self.session.get_outputs()), self.last))


class OpenVino:
    def __init__(self, job, inputs):
        import openvino
        begin = time.perf_counter()
        core = openvino.Core()
        model = core.read_model(job["onnx"])
        model.reshape({i.any_name: inputs[i.any_name].shape for i in model.inputs})
        compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": job["threads"], "PERFORMANCE_HINT": "LATENCY",
                                                     "INFERENCE_PRECISION_HINT": "f32"})
        self.request = compiled.create_infer_request()
        self.names = [o.any_name for o in compiled.outputs]
        for i in compiled.inputs:
            self.request.set_tensor(i, openvino.Tensor(inputs[i.any_name], shared_memory=True))
        self.run()
        self.open_ms = (time.perf_counter() - begin) * 1e3

    def run(self):
        self.request.infer()

    def results(self):
        self.run()
        return {name: self.request.get_output_tensor(i).data.copy() for i, name in enumerate(self.names)}


class PyTorch:
    """The module itself, in eval mode and without gradients."""

    def __init__(self, job, inputs):
        import torch
        import networks
        begin = time.perf_counter()
        torch.set_num_threads(job["threads"])
        self.torch = torch
        self.module = networks.load(job["network"], job["state"])
        self.inputs = [torch.from_numpy(inputs[n]) for n in job["torch_inputs"]]
        self.names = job["output_names"]
        self.run()
        self.open_ms = (time.perf_counter() - begin) * 1e3

    def run(self):
        with self.torch.inference_mode():
            self.last = self.module(*self.inputs)

    def results(self):
        self.run()
        last = self.last if isinstance(self.last, tuple) else (self.last,)
        return {n: t.numpy() for n, t in zip(self.names, last)}


def memory(field):
    """MB of this process, "VmRSS" now or "VmHWM" at most since forget_peak()."""
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(field))


def forget_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def version(name):
    from importlib import metadata
    return "this tree" if name == "sparseflow" else metadata.version({"pytorch": "torch"}.get(name, name))


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no answer
    name, job = sys.argv[1], json.load(open(sys.argv[2]))
    inputs = dict(numpy.load(job["inputs"]))

    def answer(what):
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    forget_peak()
    before = memory("VmRSS")
    try:
        engine = {"sparseflow": Sparseflow, "onnxruntime": OnnxRuntime, "openvino": OpenVino, "pytorch": PyTorch}[name](job, inputs)
    except Exception as e:
        return answer({"error": f"{type(e).__name__}: {e}"})
    answer({"version": version(name), "open_ms": engine.open_ms, "peak_mb": memory("VmHWM") - before, **getattr(engine, "about", {})})
    for line in sys.stdin:
        word, rest = line.split(maxsplit=1)
        if word == "outputs":
            numpy.savez(rest.strip(), **engine.results())
            answer({})
        elif word == "profile":
            answer({"kernels": engine.profile(int(rest))})
        else:
            engine.run()
            times = []
            for _ in range(int(rest)):
                begin = time.perf_counter_ns()
                engine.run()
                times.append((time.perf_counter_ns() - begin) / 1e3)
            answer({"us": times})


if __name__ == "__main__":
    main()
