"""ResNet-50, one image of 224x224: the true architecture with random weights, so for speed only. Pruned by magnitude, layer by layer,
the first convolution excepted; batch norm, biases and activations are as they are."""
import functools

import numpy
import torch

import networks
import race
from measure import WORK

NOTE = ("ResNet-50 at 224x224, batch 1: the true architecture, random weights, pruned by magnitude in each layer but the first. For speed "
        "only: such weights recognise nothing.")


def variant(zeros):
    net = networks.prune(networks.random_resnet50(), zeros, keep=("conv1",))
    base = WORK / f"resnet50_{round(100 * zeros)}"
    onnx, state = base.with_suffix(".onnx"), base.with_suffix(".pt")
    image = numpy.random.default_rng(1).standard_normal((1, 3, 224, 224), dtype=numpy.float32)
    torch.save(net.state_dict(), state)
    numpy.savez(WORK / "resnet50_image.npz", image=image)
    race.export(net, (torch.from_numpy(image),), onnx, ["image"], ["scores"])
    job = {"onnx": str(onnx), "inputs": str(WORK / "resnet50_image.npz"), "network": "resnet50", "state": str(state),
           "torch_inputs": ["image"], "output_names": ["scores"]}
    return race.Variant(zeros, race.convert(onnx), job)


if __name__ == "__main__":
    options = race.arguments(__doc__)
    race.race("resnet50", NOTE, {f"{round(100 * z)} %": functools.partial(variant, z) for z in (0, .8, .9)}, options)
