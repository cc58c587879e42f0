"""A small Llama with random weights, so for speed only: 128 tokens at once, and one token behind the keys and values of 128 others. All engines get
what PyTorch exports, where the new keys and values are put behind copies of the old ones; sf-convert prunes."""
import copy
import functools

import numpy
import torch

import networks
import race
from measure import WORK

NET, TOKENS = networks.Llama, 128
NOTE = (f"A Llama of {NET.LAYERS} layers of {NET.SIZE}, {NET.HEADS} heads that share {NET.SHARED} of keys and values, SwiGLU of {NET.WIDE}, {NET.WORDS} words: "
        f"random weights, pruned by magnitude in each matrix, the output's among them. For speed only. {TOKENS} tokens at once, or one behind {TOKENS}.")
KEPT = [f"{kind}{i}" for i in range(NET.LAYERS) for kind in "kv"]


@functools.cache
def net():
    return networks.random_decoder(NET)


def make_inputs(step):
    random = numpy.random.default_rng(3)
    if not step:
        return {"tokens": random.integers(0, NET.WORDS, (1, TOKENS)), "places": numpy.arange(TOKENS)[None]}
    past = {name: random.standard_normal((1, NET.SHARED, TOKENS, NET.SIZE // NET.HEADS), dtype=numpy.float32) for name in KEPT}
    return {"tokens": numpy.array([[4711]]), "places": numpy.array([[TOKENS]]), **past}


@functools.cache
def dense(step):
    """Our model of the dense net: any number of tokens, or one behind any number of them."""
    inputs, onnx = make_inputs(step), WORK / f"llama{'_step' if step else ''}.onnx"
    axes = {n: {2: "before"} for n in KEPT} if step else {n: {1: "n"} for n in inputs}
    race.export(net(), tuple(torch.from_numpy(a) for a in inputs.values()), onnx, list(inputs), ["logits"] + ["new_" + n for n in KEPT], axes)
    race.convert(onnx, onnx.with_suffix(".sft"))
    return onnx.with_suffix(".sft")


def variant(zeros, step):
    base = WORK / f"llama_{'step_' if step else ''}{round(100 * zeros)}"
    graph, onnx = race.pruned(dense(step), base, "--prune", str(zeros))
    own, state, inputs = copy.deepcopy(net()), base.with_suffix(".pt"), make_inputs(step)
    race.take_weights(own, dense(step), graph)
    torch.save(own.state_dict(), state)
    numpy.savez(base.with_suffix(".npz"), **inputs)
    return race.Variant(zeros, graph, {"onnx": str(onnx), "inputs": str(base.with_suffix(".npz")), "network": "llama", "state": str(state),
                                       "torch_inputs": list(inputs), "output_names": ["logits"] + ["new_" + n for n in KEPT]})


if __name__ == "__main__":
    race.race("llama", NOTE, {f"{what}, {round(100 * z)} %": functools.partial(variant, z, step)
                              for step, what in ((False, f"{TOKENS} tokens"), (True, "one token")) for z in (0, .8, .9)}, race.arguments(__doc__))
