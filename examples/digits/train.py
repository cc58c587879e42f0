#!/usr/bin/env python3
"""Trains and prunes the digits network, and writes the files of this directory.

  train.py            train on all 1297 training images, prune, write the model files, then --check
  train.py --select   compare the pruning candidates on a validation part of the training images; writes nothing
  train.py --check    evaluate the committed files by plain NumPy, without torch or scikit-learn

The held-out images take no part in any choice: --select never sees them, and training ends at a fixed epoch.
"""
import argparse
import json
import pathlib
import struct
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
SEED = 20
HELD_OUT = 500
BATCH = 64
DENSE_EPOCHS = 30
PRUNE_EPOCHS = 40  # zeros grow over the first three quarters, the rest repairs

# Share of zeros at the end, by layer. conv1 has 288 weights and carries every pixel: it is pruned least.
CANDIDATES = {
    "light": {"conv1": 0.30, "conv2": 0.80, "fc1": 0.90, "fc2": 0.60},
    "middle": {"conv1": 0.40, "conv2": 0.88, "fc1": 0.95, "fc2": 0.75},
    "strong": {"conv1": 0.50, "conv2": 0.93, "fc1": 0.97, "fc2": 0.85},
}
CHOSEN = "middle"

GRAPH = """\
; Handwritten digits, 8x8 grey values in [0, 1]: two convolutions, two linear layers. Written by train.py.
graph digits_{name}
weights "{name}.safetensors"
%x = input f32[batch, 1, 8, 8]
%w1 = weight "conv1.weight" f32[32, 1, 3, 3]
%b1 = weight "conv1.bias" f32[32]
%w2 = weight "conv2.weight" f32[64, 32, 3, 3]
%b2 = weight "conv2.bias" f32[64]
%w3 = weight "fc1.weight" f32[256, 1024]
%b3 = weight "fc1.bias" f32[256]
%w4 = weight "fc2.weight" f32[10, 256]
%b4 = weight "fc2.bias" f32[10]
%c1 = conv2d %x, %w1, %b1 pad=[1,1,1,1]
%r1 = relu %c1
%c2 = conv2d %r1, %w2, %b2 pad=[1,1,1,1]
%r2 = relu %c2
%p = max_pool %r2 kernel=[2,2] stride=[2,2]
%f = reshape %p shape=[0,-1]
%m1 = matmul %f, %w3 transpose_b=1
%h = add %m1, %b3
%r3 = relu %h
%m2 = matmul %r3, %w4 transpose_b=1
%logits = add %m2, %b4
%y = softmax %logits axis=-1
output %y
"""


# ---- training --------------------------------------------------------------------------------------------------------


def split():
    """Fixed and stratified: (training images, labels), (held-out images, labels); images f32[n, 1, 8, 8] in [0, 1]."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    a, b, la, lb = train_test_split(images, labels, test_size=HELD_OUT, stratify=labels, random_state=SEED)
    return (a, la), (b, lb)


def make_network():
    import torch

    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in one order: the same weights each time on one machine
    torch.use_deterministic_algorithms(True)
    nn = torch.nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
            self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
            self.fc1 = nn.Linear(1024, 256)
            self.fc2 = nn.Linear(256, 10)

        def forward(self, x):
            x = self.conv1(x).relu()
            x = nn.functional.max_pool2d(self.conv2(x).relu(), 2)
            return self.fc2(self.fc1(x.flatten(1)).relu())

    return Network()


def train(network, data, epochs, rate, zeros=None):
    """Adam under cross entropy. With `zeros` (the final share by layer) the smallest weights of each layer are dropped along
    a cubic schedule, at the end of each step, and may return while the schedule lasts if their gradient revives them."""
    import torch

    images, labels = (torch.from_numpy(a) for a in data)
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    masks, step = {}, 0
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
            step += 1
            if zeros is None:
                continue
            progress = step / (0.75 * steps)
            for layer, share in zeros.items():
                weight = getattr(network, layer).weight.data
                if progress <= 1 or layer not in masks:
                    count = round(share * (1 - (1 - min(progress, 1)) ** 3) * weight.numel())
                    mask = torch.ones(weight.numel())
                    mask[weight.abs().flatten().argsort(stable=True)[:count]] = 0
                    masks[layer] = mask.view_as(weight)
                weight *= masks[layer]


def accuracy(network, data):
    import torch

    with torch.no_grad():
        return (network(torch.from_numpy(data[0])).argmax(1).numpy() == data[1]).mean()


def tensors_of(network):
    return {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}


def share_of_zeros(tensors):
    weights = [t for name, t in tensors.items() if name.endswith(".weight")]
    return sum((t == 0).sum() for t in weights) / sum(t.size for t in weights)


def select():
    from sklearn.model_selection import train_test_split

    (images, labels), _ = split()
    a, b, la, lb = train_test_split(images, labels, test_size=300, stratify=labels, random_state=SEED)
    dense = make_network()
    train(dense, (a, la), DENSE_EPOCHS, 1e-3)
    print(f"dense    validation {accuracy(dense, (b, lb)):.4f}")
    for name, zeros in CANDIDATES.items():
        pruned = make_network()
        pruned.load_state_dict(dense.state_dict())
        train(pruned, (a, la), PRUNE_EPOCHS, 1e-3, zeros)
        print(f"{name:8} validation {accuracy(pruned, (b, lb)):.4f}  zeros {share_of_zeros(tensors_of(pruned)):.4f}")


# ---- files -----------------------------------------------------------------------------------------------------------


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, t in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [offset, offset + t.nbytes]}
        offset += t.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            file.write(np.ascontiguousarray(t, "<f4").tobytes())


def read_safetensors(path):
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    tensors = {}
    for name, entry in json.loads(raw[8 : 8 + length]).items():
        begin, end = entry["data_offsets"]
        assert entry["dtype"] == "F32", name
        tensors[name] = np.frombuffer(raw[8 + length + begin : 8 + length + end], "<f4").reshape(entry["shape"])
    return tensors


# ---- check: the graph text evaluated line by line in fp64 --------------------------------------------------------------


def conv2d(x, w, bias, pad):
    x = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[2]), (pad[1], pad[3])))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,mcij->nmhw", windows, w, optimize=True) + bias[:, None, None]


def max_pool(x, kernel, stride):
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))
    return windows[:, :, :: stride[0], :: stride[1]].max(axis=(4, 5))


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def evaluate(path, images):
    """Output of the graph file for `images`, and its weights."""
    values, weights = {}, {}
    operations = {
        "conv2d": lambda a, x, w, b: conv2d(x, w, b, a["pad"]),
        "relu": lambda a, x: np.maximum(x, 0),
        "max_pool": lambda a, x: max_pool(x, a["kernel"], a["stride"]),
        "reshape": lambda a, x: x.reshape([n or x.shape[i] for i, n in enumerate(a["shape"])]),
        "matmul": lambda a, x, y: x @ (y.T if a["transpose_b"] else y),
        "add": lambda a, x, y: x + y,
        "softmax": lambda a, x: softmax(x, a["axis"]),
    }
    for line in path.read_text().splitlines():
        words = line.split(";")[0].replace(", ", ",").split()
        if not words or words[0] == "graph":
            continue
        if words[0] == "weights":
            weights = read_safetensors(path.parent / words[1].strip('"'))
        elif words[0] == "output":
            return values[words[1]], weights
        elif words[2] == "input":
            values[words[0]] = images.astype(np.float64)
        elif words[2] == "weight":
            tensor = weights[words[3].strip('"')]
            assert words[4] == f"f32{json.dumps(list(tensor.shape), separators=(',', ':'))}", line
            values[words[0]] = tensor.astype(np.float64)
        else:
            attributes = {k: json.loads(v) for k, v in (w.split("=") for w in words[4:])}
            values[words[0]] = operations[words[2]](attributes, *(values[v] for v in words[3].split(",")))
    raise ValueError(f"{path}: no output")


def check():
    images, labels = np.load(HERE / "images.npy"), np.load(HERE / "labels.npy")
    assert images.shape == (HELD_OUT, 1, 8, 8) and images.dtype == np.float32 and labels.shape == (HELD_OUT,)
    assert 0 <= images.min() and images.max() == 1
    found = {}
    for name in ("dense", "pruned"):
        y, weights = evaluate(HERE / f"{name}.sft", images)
        found[name] = (y.argmax(axis=1) == labels).mean()
        zeros = " ".join(f"{n.split('.')[0]} {(t == 0).mean():.3f}" for n, t in weights.items() if n.endswith(".weight"))
        print(f"{name:6} held-out accuracy {found[name]:.4f}  zeros {share_of_zeros(weights):.4f}  ({zeros})")
    if found["pruned"] < found["dense"] - 0.01:
        sys.exit("pruned is more than one point below dense")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--select", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        return check()
    if options.select:
        return select()
    training, (images, labels) = split()
    network = make_network()
    train(network, training, DENSE_EPOCHS, 1e-3)
    write_safetensors(HERE / "dense.safetensors", tensors_of(network))
    train(network, training, PRUNE_EPOCHS, 1e-3, CANDIDATES[CHOSEN])
    write_safetensors(HERE / "pruned.safetensors", tensors_of(network))
    for name in ("dense", "pruned"):
        (HERE / f"{name}.sft").write_text(GRAPH.format(name=name))
    np.save(HERE / "images.npy", images)
    np.save(HERE / "labels.npy", labels)
    check()


if __name__ == "__main__":
    main()
