"""The recogniser of PP-OCRv4 (a convolutional network with two attention blocks) with its trained weights, from the Python package
rapidocr-onnxruntime, on a line of text that is drawn here."""
import functools

import numpy
import onnx
from PIL import Image, ImageDraw, ImageFont

import race
from measure import WORK

PACKAGE, MEMBER = "rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
LEAST = 1024
TEXT = "sparse graphs run 4x faster"
NOTE = (f"PP-OCRv4 recogniser with its trained weights ({PACKAGE}), a line of 48x320 pixels that says \"{TEXT}\"; pruned by magnitude in "
        "each layer without training after it, so the pruned ones are for speed only.")


def draw():
    """The line as the network's own preprocessing gives it: 48 pixels high, BGR, -1 to 1, on the right padded with 0."""
    font = ImageFont.load_default(size=30)
    image = Image.new("RGB", (int(font.getlength(TEXT)) + 16, 48), "white")
    ImageDraw.Draw(image).text((8, 4), TEXT, "black", font)
    width = min(320, image.width)
    pixels = numpy.asarray(image.resize((width, 48)), numpy.float32)[:, :, ::-1].transpose(2, 0, 1) / 127.5 - 1
    return numpy.pad(pixels, ((0, 0), (0, 0), (0, 320 - width)))[None].copy()


def read(scores, characters):
    """The best path: repetitions once, blanks (0) left out."""
    best = scores[0].argmax(-1)
    return "".join(characters[i - 1] for n, i in enumerate(best) if i and (n == 0 or best[n - 1] != i))


def kept(model):
    """Weights that stay dense, because they are small and dear to lose: those of grouped convolutions and those of less than LEAST elements."""
    sizes = {t.name: numpy.prod(t.dims) for t in model.graph.initializer}
    sizes |= {n.output[0]: numpy.prod(n.attribute[0].t.dims) for n in model.graph.node if n.op_type == "Constant"}
    users = [n for n in model.graph.node if n.op_type in ("Conv", "MatMul") and n.input[1] in sizes]
    return sorted({n.input[1] for n in users if sizes[n.input[1]] < LEAST or any(a.name == "group" and a.i > 1 for a in n.attribute)})


def variant(model, zeros, image):
    dense, base = WORK / "cnn.sft", WORK / f"cnn_{round(100 * zeros)}"
    onnx.save(model, dense.with_suffix(".onnx"))
    race.convert(dense.with_suffix(".onnx"), dense)
    graph, exported = race.pruned(dense, base, "--prune", str(zeros), *(f"--layer={name}=dense" for name in kept(model)))
    characters = next(p.value for p in model.metadata_props if p.key == "character").split("\n") + [" "]
    text = read(race.reference(exported, {"x": image})[0], characters)
    numpy.savez(WORK / "cnn_image.npz", x=image)
    job = {"onnx": str(exported), "inputs": str(WORK / "cnn_image.npz")}
    return race.Variant(zeros, graph, job, f"reads \"{text}\"")


if __name__ == "__main__":
    options = race.arguments(__doc__, engines=("sparseflow", "onnxruntime", "openvino"))
    recogniser = race.at_opset_17(onnx.load(race.fetch(PACKAGE, MEMBER)), {"x": (1, 3, 48, 320)})
    line = draw()
    race.race("cnn", NOTE, {f"{round(100 * z)} %": functools.partial(variant, recogniser, z, line) for z in (0, .5, .8)}, options)
