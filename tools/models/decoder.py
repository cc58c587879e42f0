"""A decoder of GPT-2 small's size and structure with random weights, so for speed only: one token a step, behind 128 others whose keys and
values are kept. Ours writes the new ones into the host's memory (`append`), so the model is written in our text form; PyTorch does the same
with tensors; ONNX has no such operation, so ONNX Runtime and OpenVINO put them behind copies, as exported decoders do. sf-convert prunes."""
import copy
import functools

import numpy
import torch
from safetensors.numpy import save_file

import engines
import networks
import race
from measure import WORK

NOTE = ("A decoder of GPT-2 small's size (12 layers of 768, 12 heads, 50257 words): random weights, pruned by magnitude in each matrix, the "
        "output's among them. For speed only. One token behind 128 others, room for 256.")
BEFORE, ROOM = 128, 256
NET = networks.Decoder
NAMES = [f"{kind}{i}" for i in range(NET.LAYERS) for kind in "kv"]


def write_graph(net, file):
    """The net in our text form: caches as inputs [1, ROOM, SIZE], each with an output that may stand in its place."""
    tensors, body, caches = {}, [], []

    def weight(name, tensor):
        tensors[name] = numpy.ascontiguousarray(tensor.detach().numpy())
        body.append(f'%{name} = weight "{name}" f32[{", ".join(map(str, tensor.shape))}]')

    def linear(out, x, name, module):
        weight(f"{name}.w", module.weight)
        body.append(f"%{out}{'.m' if module.bias is not None else ''} = matmul %{x}, %{name}.w transpose_b=1")
        if module.bias is not None:
            weight(f"{name}.b", module.bias)
            body.append(f"%{out} = add %{out}.m, %{name}.b")

    def norm(out, x, name, module):
        weight(f"{name}.scale", module.weight)
        weight(f"{name}.bias", module.bias)
        body.append(f"%{out} = layer_norm %{x}, %{name}.scale, %{name}.bias eps={module.eps}")

    weight("words", net.words.weight)
    weight("positions", net.positions.weight)
    body += ["%word = gather %words, %token axis=0", "%place = gather %positions, %position axis=0", "%x0 = add %word, %place"]
    for i, layer in enumerate(net.layers):
        n = f"l{i}."
        norm(n + "y1", f"x{i}", n + "ln1", layer.ln_1)
        for out, module in (("q", layer.query), ("nk", layer.key), ("nv", layer.value)):
            linear(n + out, n + "y1", n + out + "m", module)
        for kind in "kv":
            body.append(f"%{n}{kind} = append %{kind}{i}, %{n}n{kind}, %position axis=1")
            caches.append(f'output %{n}{kind} "new_{kind}{i}"')
        body.append(f"%{n}a = attention %{n}q, %{n}k, %{n}v, %position heads={layer.heads} scale={layer.each ** -.5} causal=1")
        linear(n + "o", n + "a", n + "om", layer.out)
        body.append(f"%{n}x = add %x{i}, %{n}o")
        norm(n + "y2", n + "x", n + "ln2", layer.ln_2)
        linear(n + "u", n + "y2", n + "um", layer.up)
        body.append(f"%{n}g = gelu_tanh %{n}u")
        linear(n + "d", n + "g", n + "dm", layer.down)
        body.append(f"%x{i + 1} = add %{n}x, %{n}d")
    norm("y", f"x{len(net.layers)}", "ln", net.ln)
    linear("logits", "y", "head", net.head)
    head = ["graph decoder", f'weights "{file.stem}.safetensors"', "%token = input i64[1, 1]", "%position = input i64[1]"]
    head += [f"%{name} = input f32[1, {ROOM}, {net.SIZE}]" for name in NAMES]
    file.write_text("\n".join(head + body + ["output %logits"] + caches) + "\n")
    save_file(tensors, file.with_suffix(".safetensors"))


def make_inputs():
    """The same keys and values in each engine's layout: ours rows of all heads, PyTorch's heads of rows, ONNX's without room."""
    random, size, heads = numpy.random.default_rng(3), NET.SIZE, NET.HEADS
    inputs = {"token": numpy.array([[4711]]), "position": numpy.array([BEFORE])}
    for name in NAMES:
        kept = random.standard_normal((1, BEFORE, size), dtype=numpy.float32)
        inputs[name] = numpy.zeros((1, ROOM, size), numpy.float32)
        inputs[name][:, :BEFORE] = kept
        inputs["torch_" + name] = numpy.ascontiguousarray(inputs[name].reshape(1, ROOM, heads, size // heads).transpose(0, 2, 1, 3))
        inputs["past_" + name] = numpy.ascontiguousarray(kept.reshape(1, BEFORE, heads, size // heads).transpose(0, 2, 1, 3))
    return inputs


def generate(net, job, steps=16):
    """How many of `steps` words, each the likeliest behind those before, ours and PyTorch choose alike, from an empty cache."""
    ours, inputs = engines.Sparseflow(job, dict(make_inputs())), [torch.zeros(1, NET.HEADS, ROOM, NET.SIZE // NET.HEADS) for _ in NAMES]
    token, position = ours.arrays_by_name["token"], ours.arrays_by_name["position"]
    word, same = 1, 0
    for step in range(steps):
        token[...], position[...] = word, step
        ours.run()
        with torch.inference_mode():
            wanted = int(net(torch.tensor([[word]]), torch.tensor([step]), *inputs).argmax())
        same += int(ours.outputs["logits"].argmax()) == wanted
        word = wanted
    return f"{same} of {steps} words generated from an empty cache as PyTorch does"


@functools.cache
def dense():
    """The module and our model of it."""
    net, graph = networks.random_decoder(), WORK / "decoder.sft"
    write_graph(net, graph)
    return net, graph


def export(net, inputs, onnx):
    """With copies of the caches; what PyTorch computes about shapes is folded by sf-convert on the way."""
    past, whole = ["past_" + n for n in NAMES], onnx.with_suffix(".torch.onnx")
    race.export(networks.Copying(net), tuple(torch.from_numpy(inputs[n]) for n in ["token", "position"] + past), whole,
                ["token", "position"] + past, ["logits"] + ["grown_" + n for n in NAMES], {n: {2: "before"} for n in past})
    race.convert(whole, onnx)
    whole.unlink()


def variant(zeros, options):
    net, whole = dense()
    base = WORK / f"decoder_{round(100 * zeros)}"
    onnx, state, graph = base.with_suffix(".onnx"), base.with_suffix(".pt"), base.with_suffix(".sft")
    race.convert(whole, graph, "--prune", str(zeros))
    own = copy.deepcopy(net)
    race.take_weights(own, whole, graph)
    torch.save(own.state_dict(), state)
    inputs = make_inputs()
    numpy.savez(WORK / "decoder.npz", **inputs)
    export(own, inputs, onnx)
    job = {"onnx": str(onnx), "inputs": str(WORK / "decoder.npz"), "network": "decoder", "state": str(state),
           "torch_inputs": ["token", "position"] + ["torch_" + n for n in NAMES], "output_names": ["logits"],
           "in_place": {"new_" + n: n for n in NAMES}}
    remark = generate(own, dict(job, graph=str(graph), library=str(race.BUILD / "jit" / "libsparseflow.so"), threads=options.threads))
    return race.Variant(zeros, graph, job, remark)


if __name__ == "__main__":
    asked = race.arguments(__doc__)
    race.race("decoder", NOTE, {f"{round(100 * z)} %": functools.partial(variant, z, asked) for z in (0, .8, .9)}, asked)
