"""Draw results/runs.json (python results/draw.py): the long runs, three epochs with one thing changed, the reproduction, the faults."""

import json
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from nicelib.plotting import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, use_style

PAPER = 1980.50
SHORT = {"sprint": ORANGE, "sprint changed": BLUE, "earlier sprint changed": PURPLE}
FOLDER = Path(__file__).parent
SMALL = {"textcoords": "offset points", "fontsize": 8}


def held_out_by_epoch(run: dict[str, Any]) -> list[float]:
    return run.get("validation_by_epoch") or run["test_by_epoch"]


def curve(ax: plt.Axes, run: dict[str, Any], **style: Any) -> None:
    nats = held_out_by_epoch(run)
    ax.plot(range(1, len(nats) + 1), nats, **style)


def draw_runs(runs: list[dict[str, Any]]) -> None:
    """runs.png: the long runs epoch by epoch, and three epochs with one thing changed."""
    figure, (curves, dots) = plt.subplots(1, 2, figsize=(12, 4.8), width_ratios=(1, 1.1))
    chosen = [run for run in runs if run["group"] in ("long", "further") and "stopped" not in run]
    for run in chosen:
        curve(curves, run, lw=1.2, label=f"{run['what']}: {run['validation']:.0f}")
    curves.axhline(PAPER, color=GREY, ls="--", lw=1, label="the paper, MNIST test: 1980.50")
    curves.set(xscale="log", ylim=(1750, None), xlabel="epoch", ylabel="validation log-likelihood (nats)")
    curves.set_title("The long runs")
    curves.legend(fontsize=8, loc="upper left")
    short = sorted((run for run in runs if run["group"] in SHORT), key=lambda run: run["validation"])
    for run in short:
        dots.plot(run["validation"], run["what"], "o", color=SHORT[run["group"]])
        dots.annotate(f"{run['validation']:.1f}", (run["validation"], run["what"]), (6, -3), **SMALL)
    dots.axvline(PAPER, color=GREY, ls="--", lw=1)
    dots.set(xlim=(1830, 2005), xlabel="validation log-likelihood after three epochs (nats)", title="Three epochs")
    dots.tick_params(axis="y", labelsize=8)
    marks = [Line2D([], [], ls="", marker="o", color=colour) for colour in SHORT.values()]
    dots.legend(marks, SHORT, fontsize=8, loc="center left")
    figure.savefig(FOLDER / "runs.png", dpi=100)


def draw_reproduction(runs: list[dict[str, Any]]) -> None:
    """reproduction.png: the paper's recipe and the notes' programs, every seed."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.4), sharey=True)
    chosen = [run for run in runs if run["group"] == "reproduction"]
    for ax, word, title in zip(axes, ("paper", "notes"), ("The paper's recipe", "The notes' programs"), strict=True):
        names = list(dict.fromkeys(run["what"] for run in chosen if run["what"].startswith(word)))
        for run in chosen:
            if run["what"] in names:
                first = run is next(other for other in chosen if other["what"] == run["what"])
                colour = (BLUE, ORANGE, GREEN, RED, PURPLE)[names.index(run["what"])]
                curve(ax, run, lw=1.2, color=colour, label=run["what"] if first else None)
        ax.axhline(PAPER, color=GREY, ls="--", lw=1, label="the paper, MNIST test: 1980.50")
        ax.set(title=title, xlabel="epoch", ylim=(1700, 2050))
        ax.legend(fontsize=8, loc="lower right")
    axes[0].set_ylabel("held-out log-likelihood (nats)")
    figure.savefig(FOLDER / "reproduction.png", dpi=100)


def draw_faults(runs: list[dict[str, Any]]) -> None:
    """faults.png: what each fault reports and what is right, against the sound sprint; every seed a dot."""
    faults = [run for run in runs if run["group"] == "fault"]
    sound = mean(run["validation"] for run in faults if run["name"] == "sprint")
    right: dict[str, list[float]] = {}
    for run in faults:
        right.setdefault(run["what"], []).append(run["validation"] - sound)
    order = sorted(right, key=lambda what: -mean(right[what]))
    figure, ax = plt.subplots(figsize=(10, 6))
    ax.axvline(0, color=GREY, ls="--", lw=1)
    for run in faults:
        row = order.index(run["what"])
        ax.plot(run["reported"] - sound, row - 0.15, "o", ms=5, color=ORANGE)
        ax.plot(run["validation"] - sound, row + 0.15, "o", ms=5, color=BLUE)
    for row, what in enumerate(order):
        ax.annotate(f"{mean(right[what]):,.1f}", (mean(right[what]), row + 0.15), (0, -12), ha="center", **SMALL)
    ax.set_xscale("symlog", linthresh=10)
    ax.set_yticks(range(len(order)), order)
    ax.set(ylim=(len(order) - 0.3, -0.7), title="One fault at a time, three epochs of MNIST")
    ax.set_xlabel(
        "held-out nats more or less than the sound sprint (linear within 10, then a mark for each factor of 10)"
    )
    marks = [Line2D([], [], ls="", marker="o", color=colour) for colour in (ORANGE, BLUE)]
    ax.legend(marks, ("reported", "right, with its mean"), loc="upper left")
    figure.savefig(FOLDER / "faults.png", dpi=100)


if __name__ == "__main__":
    use_style()
    recorded = json.loads((FOLDER / "runs.json").read_text(encoding="utf-8"))
    draw_runs(recorded)
    draw_reproduction(recorded)
    draw_faults(recorded)
