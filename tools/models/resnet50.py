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
    onnx, state, image = base.with_suffix(".onnx"), base.with_suffix(".pt"), WORK / "resnet50_image.npy"
    torch.save(net.state_dict(), state)
    numpy.save(image, numpy.random.default_rng(1).standard_normal((1, 3, 224, 224), dtype=numpy.float32))
    numpy.savez(image.with_suffix(".npz"), image=numpy.load(image))
    race.export(net, (torch.from_numpy(numpy.load(image)),), onnx, ["image"], ["scores"])
    job = {"onnx": str(onnx), "inputs": str(image.with_suffix(".npz")), "network": "resnet50", "state": str(state),
           "output_names": ["scores"], "npy": {"image": str(image)}}
    return race.Variant(zeros, race.convert(onnx), 1, job)


if __name__ == "__main__":
    options = race.arguments(__doc__)
    race.race("resnet50", NOTE, {f"{round(100 * z)} %": functools.partial(variant, z) for z in (0, .8, .9)}, options)
