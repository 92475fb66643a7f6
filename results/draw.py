"""Draw results/runs.json: the long runs epoch by epoch, and three epochs with one thing changed (python results/draw.py)."""

import json
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from nicelib.plotting import BLUE, GREY, ORANGE, PURPLE, use_style

PAPER = 1980.50
SHORT = {"sprint": ORANGE, "sprint changed": BLUE, "earlier sprint changed": PURPLE}

folder = Path(__file__).parent
runs = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
use_style()
figure, (curves, dots) = plt.subplots(1, 2, figsize=(12, 4.8), width_ratios=(1, 1.1))
for run in runs:
    if run["group"] == "long":
        nats = run["validation_by_epoch"]
        curves.plot(range(1, len(nats) + 1), nats, "o-", ms=3, label=run["what"])
curves.axhline(PAPER, color=GREY, ls="--", lw=1, label="the paper, MNIST test: 1980.50")
curves.set(xlabel="epoch", ylabel="validation log-likelihood (nats)", title="The long runs")
curves.legend(fontsize=8)

short = sorted((run for run in runs if run["group"] in SHORT), key=lambda run: run["validation"])
for run in short:
    dots.plot(run["validation"], run["what"], "o", color=SHORT[run["group"]])
    dots.annotate(
        f"{run['validation']:.1f}", (run["validation"], run["what"]), (6, -3), textcoords="offset points", fontsize=8
    )
dots.axvline(PAPER, color=GREY, ls="--", lw=1)
dots.set(xlim=(1830, 2005), xlabel="validation log-likelihood after three epochs (nats)", title="Three epochs")
dots.tick_params(axis="y", labelsize=8)
marks = [Line2D([], [], ls="", marker="o", color=colour) for colour in SHORT.values()]
dots.legend(marks, SHORT, fontsize=8, loc="center left")
figure.savefig(folder / "runs.png", dpi=100)
