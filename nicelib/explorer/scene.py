"""Pictures as data: panels of images, maps and curves. The page draws them; so does matplotlib, for a page without widgets."""

import html
import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.colors import Colormap, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from nicelib.data import quantise
from nicelib.plotting import ORANGE, RED

Panel = dict[str, Any]
Row = tuple[float, list[Panel]]  # its share of the picture's height, and its panels from left to right


def images(title: str, x: Tensor, columns: int = 0, captions: Sequence[str] = ()) -> Panel:
    """Square images (N, D), uint8 or floats on [0, 1), in rows; each can be clicked and handed to another tab."""
    pixels = (quantise(x) if x.is_floating_point() else x).cpu()
    count, columns = len(pixels), columns or len(pixels)
    panel = {"kind": "images", "title": title, "side": math.isqrt(pixels.shape[1]), "count": count, "columns": columns}
    return panel | {"data": pixels.numpy().tobytes(), "captions": [*captions], "width": columns / -(-count // columns)}


#: less is blue, more is orange, and nothing is clear, on a white page and on a dark one
CHANGE = ListedColormap(
    [(*to_rgb(ORANGE if v > 0 else "#3A9BE0"), abs(v) ** 0.7) for v in np.linspace(-1, 1, 511).tolist()]
)


def field(title: str, values: Tensor, norm: Any, colours: Colormap, unit: str, *marks: float) -> Panel:
    """One number a pixel (D,), as colours; ``marks``: what is named at the scale, beside its ends."""
    values, side = values.float().cpu(), math.isqrt(values.numel())
    rgba, scale = (colours(v, bytes=True) for v in (norm(values.numpy()), np.linspace(0, 1, 33)))
    panel = {"kind": "field", "title": title, "side": side, "width": 1.0, "data": rgba.tobytes(), "unit": unit}
    below = "≤ " * (values.min().item() < norm.vmin)
    named = [(float(norm(v)), f"{below * (v == norm.vmin)}{round(v, 2):,g}") for v in (norm.vmin, *marks, norm.vmax)]
    return panel | {"marks": named, "values": values.numpy().tobytes(), "scale": scale.tolist()}


def line(x: Any, y: Any, colour: str, label: str = "", **look: bool) -> dict[str, Any]:
    """A curve; ``look``: fill (to the bottom), dash, dots, follow (a dot goes with a player's time), ghost (its last place stays)."""
    x, y = (np.asarray(v.cpu() if isinstance(v, Tensor) else v, float) for v in (x, y))
    return {"x": x.tolist(), "y": np.nan_to_num(y).tolist(), "colour": colour, "label": label, **look}


def chart(title: str, lines: list[dict[str, Any]], xlabel: str, x: Any = None, y: Any = None, **axes: Any) -> Panel:
    """Curves; x, y: the axes' ends (y = 0: from 0, no numbers); log="xy": powers of 10; ticks, xticks: [(place, name)]."""
    panel: Panel = {"kind": "chart", "title": title, "xlabel": xlabel, "width": 1.8, "lines": [dict(c) for c in lines]}
    for axis in axes.get("log", ""):
        for curve in panel["lines"]:
            curve[axis] = [math.log10(max(v, 1e-12)) for v in curve[axis]]
    panel["axes"] = axes | {"x": x, "y": y}
    _scale([panel])
    return panel


def share_axes(drawings: Sequence[tuple[list[Row], str]]) -> None:
    """Charts of one title get one scale, that of all their curves, unless something of their own is written at it."""
    alike: dict[str, list[Panel]] = {}
    for chart in (p for rows, _ in drawings for _, row in rows for panel in row for p in (panel, panel.get("chart"))):
        if chart and chart["kind"] == "chart":
            alike.setdefault(f"{chart['title']} {chart['axes'] | {'x': 0, 'y': 0}}", []).append(chart)
    for charts in alike.values():
        _scale(charts)


def _scale(panels: list[Panel]) -> None:
    axes = panels[0]["axes"]
    for axis in "xy":
        log, ends, each = axis in axes.get("log", ""), axes[axis], [panel["axes"][axis] for panel in panels]
        every = [v for panel in panels for curve in panel["lines"] for v in curve[axis]]
        ends = (min(low for low, _ in each), max(high for _, high in each)) if ends else ends
        low, high = map(math.log10, ends) if ends and log else ends or (min(every) * (ends != 0), max(every))
        room = max(0.06 * (high - low), 0.5 * (ends is None and not log)) * (axis == "y" and not ends)
        low, high = low - room * (ends is None), max(high + room, low + 1e-6)
        at = [float(t) for t in MaxNLocator(4).tick_values(low, high)]
        if log:
            at = [e + m for e in range(-9, 9) for m in ((0, 0.477) if high - low < 2.5 else (0,))]
        named = [(t, f"{round(10**t, 1 - math.floor(t)):,g}" if log else f"{t:,.6g}") for t in at]
        named = axes.get("ticks" if axis == "y" else "xticks", named)
        named = [] if ends == 0 else [n for n in named if low <= n[0] <= high]
        for panel in panels:
            panel |= {axis: [low, high], f"{axis}ticks": named}


def histogram(values: Tensor, bins: Any, colour: str, label: str, area: bool = False) -> dict[str, Any]:
    """How often values fall into bins, the commonest 1, or the area; those outside are counted in the bins at the ends."""
    edges = np.asarray(bins, float)
    counts, _ = np.histogram(values.double().cpu().clamp(edges[0], edges[-1]).numpy(), edges)
    scale = len(values) * (edges[1] - edges[0]) if area else max(counts.max(), 1)
    return line(edges.repeat(2)[1:-1], (counts / scale).repeat(2), colour, label, fill=True)


def upright(at: float, colour: str, label: str, low: float, high: float, top: float = 1.05) -> dict[str, Any]:
    """A vertical line, at an end if it lies outside low to high."""
    inside = min(max(at, low), high)
    return line([inside] * 2, [0, top], colour, label if inside == at else f"{label}, far outside", ghost=True)


def play(tracks: dict[str, Tensor], curves: Panel, names: Sequence[str] = ()) -> Panel:
    """Tracks of frames, each (frames, D), that the page plays by itself: the tab's value t goes from 0 to 1."""
    frames = torch.stack([quantise(x).cpu() for x in tracks.values()])
    panel = {"kind": "play", "title": "", "tracks": list(tracks), "frames": frames.shape[1], "chart": curves}
    panel |= {"side": math.isqrt(frames.shape[2]), "names": list(names)}
    return panel | {"width": len(tracks) + 2, "data": frames.numpy().tobytes()}


def plain(scene: dict[str, Any]) -> str:
    """The line of numbers below a picture, without its HTML."""
    return html.unescape(re.sub("<.*?>", "", scene["text"]))


def as_figure(scenes: list[dict[str, Any]], t: float = 0.0) -> Figure:
    """The same picture by matplotlib: one scene, or several side by side."""
    grids = [_rows(scene, t, len(scenes) > 1) for scene in scenes]
    height = max(sum(share for share, _ in rows) for rows in grids)
    figure = Figure(figsize=(9, 4.6 * height + 0.4), dpi=80, layout="constrained")
    for part, scene, rows in zip(figure.subfigures(1, len(scenes), squeeze=False)[0], scenes, grids, strict=True):
        if len(scenes) > 1:
            part.suptitle(scene["name"], fontweight="bold")
        part.supxlabel(textwrap.fill(plain(scene), 106 // len(scenes)), fontsize=10)
        grid = part.add_gridspec(len(rows), 1, height_ratios=[share for share, _ in rows])
        for place, (_, panels) in zip(grid, rows, strict=True):
            places = place.subgridspec(1, len(panels), width_ratios=[panel["width"] for panel in panels])
            for at, panel in zip(places, panels, strict=True):
                ax = part.add_subplot(at)
                ax.set_title(panel["title"], fontsize=10)
                more = {"xticks": panel.get("xticks", [])[:: min(len(scenes), 2)], "room": 60 // len(scenes)}
                (_draw_chart if panel["kind"] == "chart" else _draw_image)(ax, panel | more)
    return figure


def _rows(scene: dict[str, Any], t: float, narrow: bool) -> list[Row]:
    """The rows as they stand at time t; if narrow, curves come below their images, and long rows below each other."""
    rows = [(share, [p for panel in panels for p in _stills(panel, t)]) for share, panels in scene["rows"]]
    parts = [(s, [p for p in row if (p["kind"] == "chart") == curves], curves) for s, row in rows for curves in (0, 1)]
    lines = [(min(share, 0.42) if curves else share, row) for share, row, curves in parts if row]
    cut = [(s, [row] if sum(p["width"] for p in row) < 8 else [[p] for p in row]) for s, row in lines]  # two strips
    return [(share, row) for share, parts in cut for row in parts] if narrow else rows


def _stills(panel: Panel, t: float) -> list[Panel]:
    """A player as it stands at time t; any other panel as it is."""
    if panel["kind"] != "play":
        return [panel]
    at, size, last = t * (panel["frames"] - 1), panel["side"] ** 2, panel["frames"] - 1
    frames = torch.frombuffer(bytearray(panel["data"]), dtype=torch.uint8).view(-1, panel["frames"], size).float()
    between = frames[:, int(at)].lerp(frames[:, min(int(at) + 1, last)], at % 1).round().byte()
    stills = [images(title, x[None]) for title, x in zip(panel["tracks"], between, strict=True)]
    moving = [curve for curve in panel["chart"]["lines"] if curve.get("follow")]
    there = lambda c: {v: [float(np.interp(at, range(last + 1), c[v]))] for v in "xy"}  # noqa: E731
    dots = [c | there(c) | {"dots": True, "label": ""} for c in moving]
    return [*stills, panel["chart"] | {"lines": [*panel["chart"]["lines"], *dots]}]


def _draw_image(ax: Any, panel: Panel) -> None:
    side, data, gap = panel["side"], np.frombuffer(panel["data"], np.uint8), 11 if panel.get("captions") else 2
    ax.set_axis_off()
    if panel["kind"] == "field":
        ax.imshow(data.reshape(side, side, 4))
        for at in panel.get("ring", []):
            ax.plot(at % side, at // side, "o", mfc="none", mec=RED, ms=14, clip_on=False)
        (bar := ax.inset_axes((0, -0.1, 1, 0.05), yticks=[])).imshow([panel["scale"]], aspect="auto")
        bar.set_xticks(*zip(*[(33 * at - 0.5, name) for at, name in panel["marks"]], strict=True), fontsize=8)
        return
    columns = panel["columns"]
    sheet = np.full((-(-panel["count"] // columns) * (side + gap), columns * (side + 2)), 255, np.uint8)
    for i, image in enumerate(data.reshape(-1, side, side)):
        top, left = i // columns * (side + gap), i % columns * (side + 2)
        sheet[top : top + side, left : left + side] = image
        for caption in panel["captions"][i : i + 1]:
            ax.text(left + side / 2, top + side, caption, ha="center", va="top", fontsize=6 if columns > 6 else 8)
        ax.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, ec="0.6", lw=0.5, clip_on=False))
    ax.imshow(sheet, cmap="gray", vmin=0, vmax=255)


def _draw_chart(ax: Any, panel: Panel) -> None:
    for curve in panel["lines"]:
        x, y, label, colour = curve["x"], curve["y"], curve["label"] or None, curve["colour"]
        if curve.get("fill"):
            ax.fill_between(x, y, panel["y"][0], color=colour, alpha=0.4, lw=0, label=label)
        else:
            style = "o" if curve.get("dots") else "--" if curve.get("dash") else "-"
            ax.plot(x, y, style, color=colour, lw=1.5, ms=5, label=label, clip_on=style != "o")
    ax.set(xlim=panel["x"], ylim=panel["y"], xlabel=panel["xlabel"])
    for axis in ("x", "y"):
        places, names = zip(*panel[f"{axis}ticks"], strict=True) if panel[f"{axis}ticks"] else ((), ())
        ax.set(**{f"{axis}ticks": places, f"{axis}ticklabels": names})
    if names := ax.get_legend_handles_labels()[1]:  # above the curves, as on the page
        columns = max(1, round(panel["room"] / max(map(len, names))))
        ax.legend(fontsize=7, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, columnspacing=1)
        ax.set_title(panel["title"], fontsize=10, pad=4 + 11 * math.ceil(len(names) / columns))
