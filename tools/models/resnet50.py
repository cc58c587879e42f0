"""ResNet-50, one image of 224x224: the true architecture with random weights, so for speed only. sf-convert prunes it by
magnitude, layer by layer, the first convolution excepted, its batch norms folded into the convolutions before."""
import copy
import functools

import numpy
import torch

import networks
import race
from measure import WORK

NOTE = ("ResNet-50 at 224x224, batch 1: the true architecture, random weights, pruned by magnitude in each layer but the first. For speed "
        "only: such weights recognise nothing.")


@functools.cache
def dense():
    """The module, its image, and our model of it."""
    net, onnx = networks.random_resnet50(), WORK / "resnet50.onnx"
    image = numpy.random.default_rng(1).standard_normal((1, 3, 224, 224), dtype=numpy.float32)
    numpy.savez(WORK / "resnet50_image.npz", image=image)
    race.export(net, (torch.from_numpy(image),), onnx, ["image"], ["scores"])
    race.convert(onnx, onnx.with_suffix(".sft"))
    return net, onnx.with_suffix(".sft")


def variant(zeros):
    net, whole = dense()
    base = WORK / f"resnet50_{round(100 * zeros)}"
    graph, onnx = race.pruned(whole, base, "--prune", str(zeros), "--layer", "conv1.weight=dense")
    own, state = copy.deepcopy(net), base.with_suffix(".pt")
    race.take_weights(own, whole, graph)
    torch.save(own.state_dict(), state)
    job = {"onnx": str(onnx), "inputs": str(WORK / "resnet50_image.npz"), "network": "resnet50", "state": str(state),
           "torch_inputs": ["image"], "output_names": ["scores"]}
    return race.Variant(zeros, graph, job)


if __name__ == "__main__":
    options = race.arguments(__doc__)
    race.race("resnet50", NOTE, {f"{round(100 * z)} %": functools.partial(variant, z) for z in (0, .8, .9)}, options)
