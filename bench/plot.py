#!/usr/bin/env python3
"""Speed-up over the best dense peer against zeros, of ours and of every sparse peer, beside the ideal 1/(1 - zeros).

    build/peers/venv/bin/python bench/plot.py RESULT.json    writes RESULT.png

One panel for each layout and number of columns that was measured at three densities or more; points are geometric means over matrices.
"""
import json
import math
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the choice of back end)

STYLE = {"ours": dict(color="#c0392b", linewidth=2.6, marker="o", zorder=5)}


def mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def dense_of(row):
    return row["peers"].get(row["best_dense"]) if row["best_dense"] else None


def curves(rows, sparse):
    """{engine: {zeros: [speed-ups]}}"""
    out = {}
    for row in rows:
        dense = dense_of(row)
        if not dense or not row["zeros"]:
            continue
        times = {name: us for name, us in row["peers"].items() if name in sparse and (row["peer_error"][name] or 1) < 1e-3}
        if row["median_us"] and row["max_rel_error"] is not None:
            times["ours"] = row["median_us"]
        for name, us in times.items():
            out.setdefault(name, {}).setdefault(round(row["zeros"], 3), []).append(dense / us)
    return out


def main():
    path = pathlib.Path(sys.argv[1])
    report = json.loads(path.read_text())
    sparse = {name for name, text in report["peers"].items() if not text.startswith("dense")}
    groups = {}
    for row in report["rows"]:
        if row.get("kind") == "spmm" and row["pattern"] == "unstructured" and row["threads"] == 1:
            groups.setdefault((row["layout"], row["columns"]), []).append(row)
    panels = {key: rows for key, rows in sorted(groups.items()) if len({round(r["zeros"], 2) for r in rows}) >= 3}
    if not panels:
        sys.exit("plot.py: no rows with three densities")
    across = min(3, len(panels))
    down = (len(panels) + across - 1) // across
    figure, axes = plt.subplots(down, across, figsize=(5.2 * across, 4.2 * down), squeeze=False)
    names = sorted({name for rows in panels.values() for name in curves(rows, sparse)} - {"ours"})
    colours = {name: plt.cm.tab10(i % 10) for i, name in enumerate(names)}
    for axis in axes.ravel()[len(panels):]:
        axis.axis("off")
    for axis, ((layout, columns), rows) in zip(axes.ravel(), panels.items()):
        zeros = [z / 100 for z in range(45, 99)]
        axis.plot([100 * z for z in zeros], [1 / (1 - z) for z in zeros], "k--", linewidth=1, label="ideal 1/(1 - zeros)")
        axis.axhline(1, color="grey", linewidth=1)
        for name, points in sorted(curves(rows, sparse).items()):
            xs = sorted(points)
            style = STYLE.get(name, dict(color=colours.get(name), linewidth=1.2, marker="."))
            axis.plot([100 * x for x in xs], [mean(points[x]) for x in xs], label=name, **style)
        axis.set_yscale("log", base=2)
        axis.set_title(f"{columns} columns, {layout}")
        axis.set_xlabel("zeros, %")
        axis.set_ylabel("speed-up over the best dense library")
        axis.grid(alpha=0.3)
    axes.ravel()[0].legend(fontsize=8)
    machine = report["machine"]
    figure.suptitle(f"{machine['cpu']}, one thread, {report['date']}, {report['commit']}")
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=110)
    print(path.with_suffix(".png"))


if __name__ == "__main__":
    main()
