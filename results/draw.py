"""Draw results/runs.json: validation nats after each epoch of the long runs (python results/draw.py)."""

import json
from pathlib import Path

from matplotlib import pyplot as plt

from nicelib.plotting import GREY, use_style

folder = Path(__file__).parent
use_style()
figure, ax = plt.subplots(figsize=(7, 3.8))
for run in json.loads((folder / "runs.json").read_text()):
    if run.get("validation_by_epoch"):
        curve = run["validation_by_epoch"]
        ax.plot(range(1, len(curve) + 1), curve, "o-", ms=3, label=run["what"])
ax.axhline(1980.50, color=GREY, ls="--", lw=1, label="the paper, MNIST test: 1980.50")
ax.set(xlabel="epoch", ylabel="validation log-likelihood (nats)", title="What keeps the model from overfitting")
ax.legend(fontsize=8)
figure.savefig(folder / "runs.png", dpi=100)
