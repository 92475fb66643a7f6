"""The explorer without a browser: set a control as a hand would, look at what the page is sent."""

import base64
import io
import re
import threading
import time
import zlib

import numpy as np
import pytest
import torch
from conftest import randomise
from matplotlib.figure import Figure
from PIL import Image

from nicelib import NICE, InputError, data, load_pretrained, plotting, pretrained
from nicelib.analysis import disturb, keep_widest, walks, widest_first
from nicelib.data import quantise
from nicelib.explorer import SampleExplorer
from nicelib.explorer import scene as scene_module
from nicelib.explorer import tab as tab_module
from nicelib.explorer.code_space import STEPS
from nicelib.explorer.controls import pixels_of, text_of
from nicelib.explorer.scene import plain
from nicelib.inpainting import PARTS, inpaint


def make_model(seed=0, **options):
    return randomise(NICE(dim=64, mid_dim=16, hidden=2, **options), seed)


def make_explorer(dtype=torch.float32, **options):
    """An open explorer draws in a thread of its own: its model has its dtype before it opens."""
    digits = torch.randint(0, 256, (30, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return SampleExplorer(make_model(**options).to(dtype), digits)


@pytest.fixture(scope="module")
def explorer():
    return make_explorer()


@pytest.fixture(autouse=True)
def start_afresh(request):
    """Each test finds the controls as they are at first."""
    yield
    if "explorer" in request.fixturenames:
        explorer = request.getfixturevalue("explorer")
        explorer.inpainting.stop()
        explorer.page.set_trait("values", {name: defaults(tab) for name, tab in explorer.tabs.items()})
        explorer.page.tab, explorer.page.chosen = "sample", list(explorer.models)[:1]
        explorer.settle()


def defaults(tab):
    return {name: control["value"] for name, control in tab.controls.items()}


def drawn(tab):
    """What the page shows once everything is drawn: one scene."""
    tab.explorer.settle()
    assert tab.error is None, tab.error
    picture = getattr(tab.explorer.page, tab.name)
    assert not picture["said"]
    return picture["scenes"][0]


def panels(scene):
    return {panel["title"]: panel for _, row in scene["rows"] for panel in row}


def pixels(panel):
    return torch.frombuffer(bytearray(panel["data"]), dtype=torch.uint8).view(panel["count"], -1)


def click(explorer, action):
    """What the page sends when a button is pressed."""
    explorer.page._handle_custom_msg({"do": action}, [])


@pytest.mark.parametrize("options", [{}, {"coup_type": "affine", "latent": "normal"}], ids=["additive", "affine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_tab_draws_a_picture(options, dtype):
    explorer = make_explorer(dtype, **options)
    for name, tab in explorer.tabs.items():
        explorer.page.tab = name
        scene = drawn(tab)
        assert scene["text"].count("<b") >= 1
        for panel in panels(scene).values():
            if panel["kind"] != "chart":
                assert len(set(panel["data"])) > 5, panel["title"]
        file = io.BytesIO()
        tab.figure().savefig(file)
        still = Image.open(file).convert("L")
        assert still.width == 720 and len(set(still.tobytes())) > 10


def test_every_control_and_button_explains_itself(explorer):
    for tab in explorer.page.tabs:
        assert tab["look_for"] and tab["title"] and (not tab["takes"] or tab["takes"] in tab["controls"])
        for control in tab["controls"].values():
            assert len(control["tip"].split()) > 2 and control["label"]
        for label, tip, action in tab["actions"]:
            assert label and len(tip.split()) > 2
            assert isinstance(action, str) or set(action) <= set(tab["controls"])


CHANGES = [
    *[("sample", name, value) for name, value in {"seed": 5, "number": 9, "temperature": 0.4}.items()],
    *[("code_space", name, value) for name, value in {"chain": [7, 8, 9]}.items()],
    *[("layers", name, value) for name, value in {"image": 3, "seed": 4}.items()],
    *[("spectrum", name, value) for name, value in {"k": 3, "image": 4, "rank": 20, "value": -3.0}.items()],
    *[("likelihood", name, value) for name, value in {"right": 1, "down": -1, "turn": 45, "noise": 0.1}.items()],
    ("likelihood", "image", text_of(torch.zeros(64, dtype=torch.uint8))),
    *[("inpainting", name, value) for name, value in {"image": 9, "part": "left", "seed": 3}.items()],
    ("inpainting", "part", text_of(torch.arange(64) % 3 == 0)),
]


@pytest.mark.parametrize(("tab", "control", "value"), CHANGES)
def test_a_control_changes_the_picture(explorer, tab, control, value):
    explorer.page.tab = tab
    tab = explorer.tabs[tab]
    before = drawn(tab)
    assert tab.values[control] != value
    tab.set(**{control: value})
    assert drawn(tab)["rows"] != before["rows"]


def test_time_costs_no_picture(explorer):
    explorer.page.tab = "code_space"
    drawn(explorer.code_space)
    count = explorer.code_space.drawn
    explorer.code_space.set(t=0.25)
    drawn(explorer.code_space)
    assert explorer.code_space.drawn == count and explorer.code_space.values["t"] == 0.25


def test_a_tab_is_drawn_when_it_is_looked_at_and_not_twice(explorer):
    explorer.spectrum.set(k=5)
    explorer.settle()
    explorer.page.tab = "spectrum"
    scene, count = drawn(explorer.spectrum), explorer.spectrum.drawn
    assert "what 5 of 64 dimensions explain" in panels(scene)
    for tab in ("sample", "spectrum"):
        explorer.page.tab = tab
    explorer.settle()
    assert explorer.spectrum.drawn == count


def test_only_the_newest_value_is_drawn(explorer):
    tab = explorer.sample
    free, count = threading.Event(), tab.drawn
    explorer.worker.submit("something slow", free.wait)
    for temperature in torch.linspace(0, 0.95, 20).tolist():
        tab.set(temperature=temperature)
    free.set()
    newest = drawn(tab)
    assert tab.drawn == count + 1
    tab.request()
    assert newest == drawn(tab)


def test_an_error_is_shown_and_does_not_stop_the_explorer(explorer, monkeypatch):
    tab = explorer.sample
    before = drawn(tab)
    monkeypatch.setattr(explorer.model, "inverse", lambda *_: 1 / 0)
    tab.request()
    explorer.settle()
    assert "ZeroDivisionError" in explorer.page.sample["said"] and explorer.page.sample["scenes"] == [before]
    with pytest.raises(ZeroDivisionError):
        tab.figure()
    monkeypatch.undo()
    tab.request()
    assert drawn(tab) == before


@pytest.mark.parametrize(
    ("tab", "values", "message"),
    [
        ("sample", {"heat": 1}, "'heat' is no control of this tab; expected one of seed, number, temperature"),
        ("sample", {"temperature": 2}, "temperature = 2; expected a number from 0 to 1.5"),
        ("sample", {"number": "9"}, "number = '9'; expected a whole number from 1 to 100"),
        ("sample", {"seed": True}, "seed = True; expected a whole number"),
        ("sample", {"models": ["mine"]}, r"models = \['mine'\]; expected some of this model"),
        ("code_space", {"chain": [3]}, r"chain = \[3\]; expected a list of two images to eight"),
        ("code_space", {"chain": [*range(9)]}, r"chain = \[0, 1, 2, 3, .*\]; expected a list of two images to eight"),
        ("code_space", {"chain": [3, 30]}, "chain = 30; expected the number of a digit, 0 to 29, or pixels"),
        ("likelihood", {"image": "abc"}, "'abc' is no image; expected a digit's number, or pixels in base64"),
        ("inpainting", {"part": "nothing"}, "part = 'nothing'; expected one of top, bottom"),
        ("likelihood", {"image": "abcd"}, "an image of 3 pixels; expected 64"),
        (
            "likelihood",
            {"image": 64 * [-1]},
            "image = 64 numbers from -1 to -1; expected a digit's number, or 64 pixels: whole",
        ),
        ("likelihood", {"image": 64 * [256]}, "image = 64 numbers from 256 to 256; expected"),
        ("likelihood", {"image": 63 * [0.5] + [float("nan")]}, "image = 64 numbers from nan to nan; expected"),
        ("likelihood", {"image": 63 * [7.0] + [7.5]}, "image = 64 numbers from 7 to 7.5; expected"),
        ("likelihood", {"image": torch.zeros(63).byte()}, "image = 63 numbers from 0 to 0; expected .* 64 pixels"),
        ("likelihood", {"image": []}, r"image = \[\]; expected a digit's number, or 64 pixels"),
        ("likelihood", {"image": {"a": 1}}, r"image = \{'a': 1\}; expected a digit's number, or 64 pixels"),
        ("likelihood", {"image": True}, "image = 1 numbers from 1 to 1; expected a digit's number"),
        ("inpainting", {"rule": "mine"}, "rule = 'mine'; expected one of preconditioned, paper"),
        ("inpainting", {"part": 24 * "A"}, "an image of 18 pixels; expected 64"),
    ],
)
def test_bad_values_are_named(explorer, tab, values, message):
    for act in (explorer.tabs[tab].figure, explorer.tabs[tab].set):
        if "models" in values and act.__name__ == "set":
            continue
        with pytest.raises(InputError, match=message):
            act(**values)


def test_an_image_may_be_a_list_an_array_or_x(explorer):
    greys = torch.arange(64).byte()
    for given in (
        greys.tolist(),
        greys.numpy(),
        greys.float(),
        greys.view(8, 8),
        (greys + 0.5) / 256,
        greys.double() / 256,
    ):
        explorer.likelihood.set(image=given)
        assert explorer.likelihood.values["image"] == text_of(greys), type(given)
    explorer.likelihood.set(image=torch.full((64,), 1.3))  # a sample's x may lie beyond 1
    assert explorer.likelihood.values["image"] == text_of(greys * 0 + 255)


def test_a_picture_without_a_page_moves_nothing(explorer, monkeypatch):
    explorer.settle()
    before, count, shown = dict(explorer.page.values), explorer.sample.drawn, []
    monkeypatch.setattr(plotting, "show", lambda figure, alt: shown.append(alt))
    explorer.sample.show(temperature=0.5, number=4)
    explorer.likelihood.show(image=torch.zeros(64, dtype=torch.uint8))
    explorer.settle()
    assert explorer.page.values == before and explorer.sample.drawn == count
    assert "The tab Sample (4 samples, code length |z|)." in shown[0] and "<b>" not in shown[0]
    assert "mean log-likelihood of these 4" in shown[0] and "likelier than" in shown[1]


def test_sample_is_the_models(explorer):
    explorer.sample.set(seed=3, number=7, temperature=0.5)
    scene = drawn(explorer.sample)
    x = explorer.model.sample(7, 0.5, torch.Generator().manual_seed(3))
    nats = explorer.model.log_prob(x)
    assert f"{nats.mean():,.0f} nats" in scene["text"]
    panel = panels(scene)["7 samples"]
    assert torch.equal(pixels(panel), quantise(x)) and panel["captions"] == [f"{v:,.0f}" for v in nats.tolist()]
    with torch.no_grad():
        assert f"|z| = {explorer.model(x)[0].norm(dim=1).mean():.1f}" in scene["text"]


def test_save_as_png(explorer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "nice_sample_2.png"
    kept.write_bytes(b"mine")
    for number in (1, 3):  # nothing is written over
        click(explorer, "save")
        explorer.settle()
        path = tmp_path / f"nice_sample_{number}.png"
        assert explorer.page.sample["said"] == f"saved {path.name} beside the notebook, in {tmp_path}"
        with Image.open(path) as picture:
            assert picture.width == 1440
    assert kept.read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 3


def test_a_saved_walk_is_saved_as_it_stands(explorer, tmp_path, monkeypatch):
    """The page moves t without a word to the kernel; a PNG has its images, its dots and its numbers."""
    monkeypatch.chdir(tmp_path)
    explorer.page.tab, seen = "code_space", []
    explorer.settle()
    monkeypatch.setattr(tab_module, "as_figure", lambda scenes, t: seen.append((scenes[0]["text"], t)) or Figure())
    explorer.page.values = explorer.page.values | {"code_space": explorer.code_space.values | {"t": 0.8}}
    click(explorer, "save")
    explorer.settle()
    ((text, t),) = seen
    assert t == 0.8 and '<b class="now">0.80</b>' in text, (text, t)


@torch.no_grad()
def test_one_is_no_plural(explorer):
    texts = [explorer.sample.draw(explorer.model, 0, n, 1.0) for n in (1, 2)]
    assert [row[0][1][0]["title"] for row, _ in texts] == ["1 sample", "2 samples"]
    assert "its log-likelihood" in texts[0][1] and "from" not in texts[0][1] and "of these 2" in texts[1][1]
    values, said = defaults(explorer.spectrum), set()
    for value in torch.linspace(-10, 10, 401).tolist():  # near its own z a single pixel moves
        said.add(
            explorer.spectrum.draw(explorer.model, **values | {"value": value})[1].split("<b>")[1].split("</b>")[0]
        )
    assert {"1 pixel", "2 pixels"} <= said and "1 pixels" not in said


def test_only_a_tabs_own_buttons_do_anything(explorer):
    for action in ("close", "request", "__init__", None):
        click(explorer, action)
    count = explorer.sample.drawn
    explorer.settle()
    assert not explorer.worker.closed and explorer.sample.drawn == count


def test_a_chain_is_walked_leg_by_leg(explorer):
    explorer.page.tab, chain, model = "code_space", [2, 11, 5], explorer.model
    one = lambda i: explorer.noisy(explorer.digits[[i]])  # noqa: E731
    with torch.no_grad():
        walk = explorer.code_space.walk(model, chain)
        legs = [walks(model, torch.cat((one(a), one(b))), STEPS + 1) for a, b in ((2, 11), (11, 5))]
        own = torch.cat([model.log_prob(one(i)) for i in chain])
    for name, values in walk.items():  # the legs meet at one frame
        assert torch.equal(values, torch.cat((legs[0][name], legs[1][name][1:]))), name
    for path in ("code", "pixels"):
        assert (walk[f"{path}_nats"][::STEPS] - own).abs().max() < 0.01, "not the likelihood of the chosen images"
    explorer.code_space.set(chain=chain)
    (player,) = [panel for _, row in drawn(explorer.code_space)["rows"] for panel in row if panel["kind"] == "play"]
    frames = torch.frombuffer(bytearray(player["data"]), dtype=torch.uint8).view(2, player["frames"], 64)
    assert torch.equal(frames[0], quantise(walk["code"])) and torch.equal(frames[1], quantise(walk["pixels"]))
    straight, dots, *paths = player["chart"]["lines"]  # what a path sags below, and the images' own places on it
    assert straight["dash"] and dots["dots"] and len(paths) == 2
    assert [c.get("follow", False) for c in (straight, dots, *paths)] == [False, False, True, True]
    assert straight["x"] == dots["x"] == [0, 0.5, 1] and np.allclose(straight["y"], own, atol=0.01)
    assert straight["y"] == dots["y"] and straight["label"] and not dots["label"]


@pytest.mark.parametrize(("length", "count"), [(2, 11), (3, 11), (4, 13), (5, 13), (8, 15), (13, 13)])
def test_the_strip_shows_every_chosen_image(explorer, length, count):
    chain = [3 * i % 30 for i in range(length)]
    (*_, (_, [codes]), (_, [blends])), _ = explorer.code_space.draw(explorer.model, chain, 0.0)
    assert codes["count"] == blends["count"] == count and "given" not in blends
    shown = pixels(blends)[:: (count - 1) // (length - 1)]
    assert len(shown) == length and torch.equal(shown, explorer.digits[chain])


def test_the_axis_names_the_chosen_images(explorer):
    drawing = torch.zeros(64, dtype=torch.uint8)
    labels = torch.tensor([3, 8, 1]).repeat(10)
    for one, names in (
        (explorer, ["a digit"] * 2),
        (SampleExplorer(make_model(), explorer.digits, labels), ["a 3", "an 8"]),
    ):
        rows, _ = one.code_space.draw(one.model, [0, 1, text_of(drawing)], 0.0)
        assert rows[0][1][0]["chart"]["xticks"] == [*zip((0, 0.5), names, strict=True), (1, "an image")]


def test_layers_show_every_state_there_and_back(explorer):
    explorer.page.tab = "layers"
    (player,) = [panel for _, row in drawn(explorer.layers)["rows"] for panel in row if panel["kind"] == "play"]
    frames = torch.frombuffer(bytearray(player["data"]), dtype=torch.uint8).view(2, 6, 64).double()
    assert player["names"] == ["x", *(f"layer {i}" for i in (1, 2, 3, 4)), "z, scaled"]
    with torch.no_grad():
        state = explorer.noisy(explorer.digits[explorer.layers.values["image"]][None])
        z = explorer.model.prior.sample((1, 64), torch.Generator().manual_seed(0))
        back = explorer.model.inverse(z)
        for i, layer in enumerate([None, *explorer.model.layers]):
            state, back = (state, back) if layer is None else (layer(state)[0], layer(back)[0])
            for track, values, at in ((0, state, i), (1, back, 5 - i)):
                shade = 256 * (0.5 + values[0] / (12 if i == 5 else 2)).clamp(0, 0.9999)
                assert (frames[track, at] - shade.floor()).abs().max() <= 1, (track, i)
                came = i if track == 0 else i + 1  # forwards through that layer, backwards through the next
                shifts = ~explorer.model.layers[came - 1].mask if 1 <= came <= 4 else torch.zeros(64).bool()
                tint = torch.frombuffer(bytearray(player["moved"]), dtype=torch.bool).view(2, 6, 64)[track, at]
                assert torch.equal(tint, shifts), (
                    f"track {track}, state {i}: other columns are tinted than were shifted"
                )
                curve = player["chart"]["lines"][track]  # a dot goes along with the frames
                assert curve["x"][at] == i and curve["follow"]
                assert abs(10 ** curve["y"][at] - values.square().mean().sqrt()) < 1e-3 * 10 ** curve["y"][at]


@pytest.mark.parametrize("rank", [0, 20, 63])
def test_spectrum_turns_the_dimension_of_that_rank(explorer, rank):
    explorer.page.tab = "spectrum"
    explorer.spectrum.set(image=4, rank=rank, value=9.0, k=10)
    scene = drawn(explorer.spectrum)
    with torch.no_grad():
        z, _ = explorer.model(explorer.noisy(torch.cat((explorer.digits[4:5], explorer.spectrum.some))))
        d = explorer.model.scaling.log_scale.argsort()[rank]
        turned = z.clone()
        turned[0, d] = 9.0
        change = (explorer.model.inverse(turned) - explorer.model.inverse(z))[0].abs()
        kept = explorer.model.inverse(keep_widest(explorer.model, z, 10))
    assert f"its place is row {d // 8}, column {d % 8};" in scene["text"]
    assert (
        f"<b>{(change > 0.02).sum()} pixels</b>" in scene["text"] and f"farthest by {change.max():.2f}" in scene["text"]
    )
    shown = pixels(panels(scene)["what 10 of 64 dimensions explain"]).int()
    assert (shown - quantise(kept).int()).abs().max() <= 1


def test_likelihood_says_what_the_model_sees_and_what_was_done_to_it(explorer):
    explorer.page.tab = "likelihood"
    tab, square = explorer.likelihood, explorer.digits[3].view(8, 8)

    def seen(**values):
        tab.set(**defaults(tab) | {"image": 3} | values)
        scene = drawn(tab)
        return pixels(panels(scene)["what it sees"]).view(8, 8), scene["text"]

    image, text = seen()
    x = explorer.noisy(explorer.digits[3:4])
    own, nats = explorer.model.log_prob(x).item(), explorer.held_out(explorer.model)[0]
    assert torch.equal(image, square) and "applied" not in text
    log_det = explorer.model(x)[1].item()
    assert f"<b>{own:,.0f} nats</b> = prior {round(own) - round(log_det):,} + log-det {log_det:,.0f}: likelier" in text
    assert f"<b>{(nats < own).sum()} of 30</b> held-out digits" in text
    where = r"<span class='least'>; the least likely pixel, row \d, column \d, gives -?[\d.,]+ nats</span>"
    assert re.search(where, text), "the page takes it away while a question asks for it"
    assert "; the least likely pixel, row" in plain(drawn(tab)) and "<" not in plain(drawn(tab))
    image, text = seen(right=2, down=-1)
    assert torch.equal(image[:-1, 2:], square[1:, :-2]) and not image[-1].any() and not image[:, :2].any()
    assert "applied: shift right 2, shift down -1" in text
    image, text = seen(turn=90)
    assert torch.equal(image, square.rot90()) and "applied: turn 90" in text
    assert not torch.equal(seen(noise=0.1)[0], square)
    field = panels(drawn(tab))["nats a pixel gives"]
    assert abs(np.frombuffer(field["values"], np.float32).sum() - float(text_nats(drawn(tab)["text"]))) < 0.51


def test_the_map_tells_a_bad_pixel_from_the_worst():
    """Of the least likely 6: one with -30 nats and one with -1,200 are not of one colour; nor are 0, -6 and -30."""
    explorer = SampleExplorer()
    with torch.no_grad():
        rows, _ = explorer.likelihood.draw(explorer.model, **defaults(explorer.likelihood) | {"image": 337})
    field = rows[0][1][1]
    values, colours = np.frombuffer(field["values"], np.float32), np.frombuffer(field["data"], np.uint8).reshape(-1, 4)
    light = [colours[np.abs(values - nats).argmin()].astype(int) for nats in (5, 0, -6, -30, -1200)]
    apart = [np.abs(a - b).max() for a, b in zip(light[:-1], light[1:], strict=True)]
    assert min(apart) > 25, f"colours of 5, 0, -6, -30 and -1,200 nats differ by {apart} of 255"
    assert [name for _, name in field["marks"]] == ["≤ -1,000", "-6", "6"] and field["marks"][-1][0] == 1


def text_nats(text):
    return text.split("<b>")[1].split(" nats")[0].replace(",", "")


def test_the_gauge_tells_where_a_code_lies(explorer):
    explorer.page.tab = "likelihood"
    explorer.likelihood.set(image=3)
    gauge = panels(drawn(explorer.likelihood))["code length |z|"]
    with torch.no_grad():
        length = explorer.model(explorer.noisy(explorer.digits[3:4]))[0].norm().item()
    (mark,) = [line for line in gauge["lines"] if line["label"].startswith("this image")]
    assert abs(10 ** mark["x"][0] - length) < 1e-3 * length
    draws = next(line for line in gauge["lines"] if line["label"] == "the prior's draws")
    commonest = 10 ** draws["x"][draws["y"].index(max(draws["y"]))]
    assert 0.8 < commonest / (64 * explorer.model.prior.variance) ** 0.5 < 1.2  # where nearly all codes are
    (low, least), _, (at, mean), *_, (high, most) = gauge["xticks"]  # nothing of a log axis is 0: its ends say so
    assert [low, high] == gauge["x"] and least == f"≤ {10**low:.0f}" and most == f"≥ {10**high:,.0f}"
    assert mean == f"{10**at:.0f}" and 0.6 < 10**at / (64 * explorer.model.prior.variance) ** 0.5 < 1.6
    assert [len(name.split()[-1].strip("0.,")) for _, name in gauge["xticks"]] == [1] * 7  # round numbers, of one digit


def caption(figure):
    return " ".join(figure.subfigs[0]._supxlabel.get_text().split())


@pytest.mark.parametrize("part", PARTS)
def test_every_mask_hides_what_it_shows_on_the_pad(explorer, part):
    explorer.page.tab = "inpainting"
    explorer.inpainting.set(part=part)
    visible = pixels(panels(drawn(explorer.inpainting))["visible"])[0]
    mask = explorer.inpainting.controls["part"]["brush"][part]
    hidden = explorer.inpainting.hidden(mask)
    assert torch.equal(hidden, explorer.inpainting.hidden(part)) and 0 < hidden.sum() < 64
    assert (visible[hidden] == 128).all() and torch.equal(visible[~hidden], explorer.digits[20][~hidden])


def test_inpainting_runs_to_its_end(explorer):
    explorer.page.tab, tab = "inpainting", explorer.inpainting
    tab.set(steps=50)
    click(explorer, "start")
    scene = drawn(tab)
    assert len(tab.nats["this model"]) == 51 and "step 50 of 50" in scene["text"]
    assert not tab.running and not explorer.page.inpainting["running"]
    nats = tab.nats["this model"]
    assert (nats[-1] > nats[0]).all()
    tries = pixels(panels(scene)["4 tries, after 50 steps"])
    hidden = tab.hidden("top")
    assert torch.equal(tries[:, ~hidden], explorer.digits[20][~hidden].expand(4, -1))
    figure = tab.figure(rule="paper", steps=400)
    steps = figure.axes[3].lines[0].get_xdata().tolist()
    assert steps == [
        *range(0, 391, 10),
        391,
    ]  # its leaps would hide all: each span's highest and lowest, the last whole
    bounds = np.array([curve.get_ydata() for curve in figure.axes[3].lines[:8]])
    names = figure.axes[3].get_legend_handles_labels()[1]
    assert (bounds[:4] > bounds[4:]).all() and "highest of every 10 steps" in names
    x, runs = explorer.noisy(explorer.digits[20:21]).expand(4, -1), torch.Generator().manual_seed(0)
    nats = torch.stack([now for _, now in inpaint(explorer.model, x, hidden, "paper", 400, runs)])
    top = max(explorer.model.log_prob(x[:1]).item(), nats.max().item()) + 500
    for side, end in ((bounds[:4], torch.amax), (bounds[4:], torch.amin)):
        for i in (0, 10, 391):
            expected = -(top - end(nats[i : i + 10], 0)).clamp_min(10).log10()
            assert np.allclose(side[:, steps.index(i)], expected, atol=1e-4), f"steps {i} to {i + 9}"
    lines = tab.figure(steps=400).axes[3].lines
    assert len(lines) == 5 and lines[0].get_xdata().tolist() == [*range(401)], (
        "the other rule climbs: all steps are drawn"
    )
    assert figure.axes[2].get_title() == "4 tries, after 400 steps"
    for rule, count in (("paper", 1), ("preconditioned", 2)):  # the paper's never comes within 1,000 nats
        titles = [ax.get_title() for ax in tab.figure(rule=rule, steps=50).axes[3:]]
        assert len(titles) == count and titles[0] == "log p, squeezed below", titles


def test_inpainting_stops_when_told_and_when_told_twice(explorer):
    explorer.page.tab, tab = "inpainting", explorer.inpainting
    drawn(tab)
    click(explorer, "stop")  # nothing is running
    tab.set(steps=3000)
    click(explorer, "start")
    assert tab.running
    click(explorer, "start")  # begins afresh
    assert tab.running
    end = time.monotonic() + 60
    while not explorer.page.inpainting["running"]:
        assert time.monotonic() < end, "no picture of the run in 60 s"
    click(explorer, "stop")
    click(explorer, "stop")
    assert not tab.running
    drawn(tab)
    assert len(tab.nats["this model"]) < 3000 and not explorer.page.inpainting["running"]
    click(explorer, "start")
    tab.set(part="right")  # a control stops it too
    assert not tab.running
    assert "step 0 of" in drawn(tab)["text"]
    tab.set(steps=50)
    click(explorer, "start")
    assert "step 50 of 50" in drawn(tab)["text"]


def test_a_walk_stands_between_two_frames_too(explorer):
    """The copied line and the PNG have the numbers of the page, which goes on smoothly from frame to frame."""
    rows, _ = explorer.code_space.draw(explorer.model, [0, 1], 0.0)
    (player,), t = rows[0][1], 3.4 / STEPS
    nats = [np.interp(3.4, range(STEPS + 1), c["y"]) for c in player["chart"]["lines"] if c.get("follow")]
    frames = np.frombuffer(player["data"], np.uint8).reshape(2, STEPS + 1, -1).astype(float)
    drawn = scene_module._stills(player, t)
    for still, track in zip(drawn, frames, strict=False):
        apart = np.abs(np.frombuffer(still["data"], np.uint8) - (0.6 * track[3] + 0.4 * track[4])).max()
        assert apart <= 0.51, f"{still['title']}: {apart} of 255"
    dots = [c["y"][0] for c in drawn[2]["lines"] if c.get("dots") and c.get("follow")]
    assert dots == pytest.approx(nats)
    text = plain({"text": explorer.code_space.draw(explorer.model, [0, 1], t)[1]})
    assert all(f"{value:,.0f} nats" in text for value in nats), (text, nats)


def test_with_nothing_hidden_no_run_begins(explorer):
    tab = explorer.inpainting
    explorer.page.tab = "inpainting"
    tab.set(part=text_of(torch.zeros(64, dtype=torch.uint8)))
    assert "nothing is hidden" in drawn(tab)["text"]
    before = tab.drawn
    tab.start()
    assert "nothing is hidden" in drawn(tab)["text"]
    assert not tab.running and tab.drawn == before, "a run of steps that change nothing"


def test_a_run_that_no_longer_fits_the_controls_says_so(explorer):
    explorer.page.tab, tab = "inpainting", explorer.inpainting
    tab.kept.clear()
    tab.set(steps=50)
    start = drawn(tab)["text"]
    assert start.endswith("; <b>press Start</b>") and "the real image has" in start
    click(explorer, "start")
    assert "step 50 of 50" in drawn(tab)["text"] and "press Start" not in drawn(tab)["text"]
    tab.set(image=torch.zeros(64, dtype=torch.uint8))
    assert drawn(tab)["text"].endswith("changed: press Start anew</b>") and "your image has" in drawn(tab)["text"]
    click(explorer, "start")
    assert "press Start" not in drawn(tab)["text"]


def at_step(explorer, step, act):
    """Calls act() once, from the worker's thread, when a picture of that step is shown."""
    seen = []

    def look(change):
        if not seen and any(f"step {step} of" in scene["text"] for scene in change["new"].get("scenes", [])):
            seen.append(act())

    explorer.page.observe(look, "inpainting")
    return seen


def test_a_run_that_was_stopped_says_so_and_goes_on_as_if_it_had_not_been(explorer, monkeypatch):
    explorer.page.tab, tab = "inpainting", explorer.inpainting
    monkeypatch.setattr(tab, "seconds_a_picture", 0)
    tab.set(steps=50)
    click(explorer, "start")
    drawn(tab)
    whole = torch.stack(tab.nats["this model"])
    at_step(explorer, 20, tab.stop)
    click(explorer, "start")
    text = drawn(tab)["text"]
    assert "step 20 of 50" in text and text.endswith("; <b>press Start anew, or Go on</b>"), text
    assert not tab.running and not explorer.page.inpainting["running"] and len(tab.nats["this model"]) == 21
    click(explorer, "go_on")
    assert "step 50 of 50" in (text := drawn(tab)["text"]) and "press" not in text
    assert torch.equal(torch.stack(tab.nats["this model"]), whole), "it did not go on from where it stood"
    at_step(explorer, 20, tab.stop)
    click(explorer, "start")
    drawn(tab)
    tab.set(seed=3)  # nothing to go on with
    assert drawn(tab)["text"].endswith("; <b>changed: press Start anew</b>")
    tab.set(seed=0)
    assert drawn(tab)["text"].endswith("; <b>press Start anew</b>")
    click(explorer, "go_on")
    assert "step 50 of 50" in drawn(tab)["text"] and len(tab.nats["this model"]) == 51


def test_models_may_come_and_go_beside_a_run(monkeypatch):
    explorer = SampleExplorer({"one": make_model(), "two": make_model(seed=1)}, make_explorer().digits)
    explorer.page.tab, tab = "inpainting", explorer.inpainting
    monkeypatch.setattr(tab, "seconds_a_picture", 0)
    tab.set(steps=50)
    choose = lambda *names: lambda: setattr(explorer.page, "chosen", [*names]) or True  # noqa: E731

    def texts():
        explorer.settle()
        page = explorer.page.inpainting
        assert not tab.running and not page["running"] and page["of"][1] == explorer.page.chosen
        return {scene["name"]: scene["text"] for scene in page["scenes"]}

    choose("one", "two")()
    assert at_step(explorer, 20, choose("one")) is not None
    click(explorer, "start")
    assert [*texts()] == ["one"] and "step 50 of 50" in texts()["one"], "switching one off stopped the other"
    choose("one", "two")()
    assert "step 50 of 50;" not in (two := texts()["two"]) and two.endswith("press Start anew, or Go on</b>"), two
    click(explorer, "go_on")
    assert all("step 50 of 50" in text for text in texts().values())
    choose("one")()
    explorer.settle()
    at_step(explorer, 10, choose("one", "two"))
    click(explorer, "start")
    assert [*texts()] == ["one", "two"] and all("step 50 of 50" in text for text in texts().values())


def test_the_last_nats_are_never_drawn_where_they_are_not(explorer):
    """Models side by side share an axis, which may reach lower than one model's own."""
    tab = explorer.inpainting
    low, x = torch.full((2, 4), -9000.0), torch.rand(4, explorer.model.dim)
    curves = tab._rows({"real": x[:1]}, x, low, goal=0.0, steps=50, every=1)[1][1]
    assert curves[1]["lines"][0]["y"] == [-9000, -9000], "drawn at the edge of one model's axis"
    values = defaults(tab) | {"steps": 50}
    drawn = next(tab._pictures([], explorer.model, **values | {"image": text_of(explorer.digits[0])}))[0]
    assert drawn[0][1][0]["title"] == "yours" and drawn[1][1][0]["lines"][-1]["label"] == "the image itself"


def test_a_still_picture_does_not_depend_on_the_page(explorer):
    """Else a copied line, or a cell of the notebook, would draw what was played with last."""
    tab = explorer.likelihood
    first = [axes.get_title() for axes in tab.figure().axes], tab._still({})[0][0]["text"]
    tab.set(turn=90, noise=0.2)
    explorer.page.chosen = list(explorer.models)[-1:]
    assert ([axes.get_title() for axes in tab.figure().axes], tab._still({})[0][0]["text"]) == first


@torch.no_grad()
def test_a_change_too_small_to_see_leaves_the_map_blank(explorer):
    rows, text = explorer.spectrum.draw(explorer.model, **defaults(explorer.spectrum) | {"rank": 0, "value": 6.0})
    high = [float(rows[-1][1][-1]["marks"][-1][1])]
    z = explorer.model(explorer.noisy(explorer.digits[:1]))[0]
    values = defaults(explorer.spectrum) | {"image": 0, "rank": explorer.model.dim - 1}
    own = z[0, widest_first(explorer.model)[-1]].item()
    rows, text = explorer.spectrum.draw(explorer.model, **values | {"value": own})  # as it is: nothing moves
    high.append(float(rows[-1][1][-1]["marks"][-1][1]))
    assert "moves <b>0 pixels</b>" in text and high[0] > high[1] == 0.5, f"the map's scale ends at {high}"


def test_the_tour_leaves_no_run_behind(explorer):
    """Nor does it show one before its question is answered; a run from before it comes back."""
    explorer.page.tab, tab = "inpainting", explorer.inpainting
    tab.set(steps=50, seed=1)
    click(explorer, "start")
    mine = drawn(tab)["text"]
    for stop in (11, 4, 11):
        explorer.page.stop = stop
        assert "step 0 of 50" in drawn(tab)["text"] and "changed" not in drawn(tab)["text"]
        click(explorer, "start")
        assert drawn(tab)["text"] == mine
    tab.set(seed=0, steps=3000)
    click(explorer, "start")
    explorer.page.stop = -1  # in the midst of a run
    assert "step 0 of 3000" in drawn(tab)["text"] and not tab.running
    tab.set(steps=50, seed=1)
    assert drawn(tab)["text"] == mine


def test_a_control_moved_between_two_pictures_of_a_run_counts(explorer, monkeypatch):
    explorer.page.tab, tab, submit = "inpainting", explorer.inpainting, explorer.worker.submit
    tab.set(steps=3000)
    drawn(tab)
    main, moved = threading.current_thread(), []

    def move_then_submit(key, job):
        if threading.current_thread() is not main and not moved:
            moved.append(True)
            tab.set(seed=tab.values["seed"] + 1)
        submit(key, job)

    monkeypatch.setattr(explorer.worker, "submit", move_then_submit)
    tab.start()
    scene = drawn(tab)
    assert moved and not tab.running and "step 0 of" in scene["text"]


def test_other_tabs_answer_while_inpainting_runs(explorer):
    explorer.page.tab, tab = "inpainting", explorer.inpainting
    tab.set(steps=3000)
    drawn(tab)
    click(explorer, "start")
    count, answered = explorer.sample.drawn, threading.Event()
    explorer.page.observe(lambda _: answered.set(), "sample")
    explorer.page.tab = "sample"
    explorer.sample.set(seed=8)
    explorer.page.tab = "inpainting"  # nor does a look at another tab stop it
    assert answered.wait(10) and tab.running
    click(explorer, "stop")
    drawn(tab)
    assert explorer.sample.drawn == count + 1


def test_an_image_may_come_compressed(explorer):
    drawing = torch.zeros(64, dtype=torch.uint8)
    drawing[9:12] = 200
    short = base64.b64encode(zlib.compress(drawing.numpy().tobytes())).decode()
    assert len(short) < 30
    explorer.likelihood.set(image=short)
    assert explorer.likelihood.values["image"] == text_of(drawing)  # the page knows one form only
    too_large = base64.b64encode(zlib.compress(bytes(10**7))).decode()
    with pytest.raises(InputError, match="an image of 65 pixels; expected 64"):
        explorer.likelihood.set(image=too_large)


def test_a_model_keeps_its_run_while_others_are_shown():
    explorer = SampleExplorer({"one": make_model(), "two": make_model(seed=1)}, make_explorer().digits)
    explorer.page.tab, tab = "inpainting", explorer.inpainting
    tab.set(steps=50)

    def texts(*names):
        explorer.settle()
        explorer.page.chosen = list(names)
        explorer.settle()
        return [scene["text"] for scene in explorer.page.inpainting["scenes"]]

    texts("one")
    click(explorer, "start")
    ((one, two),) = [texts("one", "two")]
    assert "step 50 of 50" in one and "step 0 of 50" in two
    texts("two")
    click(explorer, "start")
    explorer.settle()
    assert all("step 50 of 50" in text for text in texts("one", "two"))
    tab.set(seed=3)
    assert all("step 0 of 50" in text for text in texts("one", "two"))
    click(explorer, "start")  # both run, and end
    explorer.settle()
    assert all("step 50 of 50" in text for text in texts("one", "two"))
    assert set(tab.nats) == {"one", "two"} and not tab.running


def test_two_models_side_by_side_have_the_same_codes():
    models = {"one": make_model(), "two": make_model(seed=1)}
    explorer = SampleExplorer(models, make_explorer().digits)
    explorer.page.chosen = ["one", "two"]
    explorer.settle()
    scenes = explorer.page.sample["scenes"]
    assert [scene["name"] for scene in scenes] == ["one", "two"]
    for scene, model in zip(scenes, models.values(), strict=True):
        x = model.sample(36, 1.0, torch.Generator().manual_seed(0))
        assert torch.equal(pixels(panels(scene)["36 samples"]), quantise(x))
    (alone,), _ = explorer.sample._still({"models": "two"})  # a lone name is a list of one
    assert alone["name"] == "two" and alone["text"] == scenes[1]["text"]
    for tab in explorer.tabs.values():
        explorer.page.tab = tab.name
        given = [panel for panel in panels(drawn(tab)).values() if panel.get("given")]
        assert bool(given) == (tab.name in ("likelihood", "inpainting")), "a row of each model stands in its column"
        assert len(getattr(explorer.page, tab.name)["scenes"]) == 2
        assert [part._suptitle.get_text() for part in tab.figure(models=["two", "one"]).subfigs] == ["two", "one"]
        for left, right in zip(
            *(panels(scene).values() for scene in getattr(explorer.page, tab.name)["scenes"]), strict=True
        ):
            left, right = (panel.get("chart", panel) for panel in (left, right))
            if left["kind"] == "chart" and tab.name != "inpainting":  # there the real image's nats are the scale
                assert all(left[axis] == right[axis] for axis in ("x", "y", "xticks", "yticks")), left["title"]
    nats = [explorer.held_out(model)[0] for model in models.values()]
    assert not torch.equal(*nats)


def test_one_logistic_a_pixel_is_beside_the_shipped_model(all_cores):
    explorer = SampleExplorer()
    shipped, start = explorer.models.values()
    nats = [explorer.held_out(model)[0].mean() for model in (shipped, start)]
    assert nats[0] > nats[1] + 500
    assert sum(p.numel() for p in start.parameters()) < 20_000


@torch.no_grad()
def test_the_tour_leads_to_pictures(all_cores):
    explorer = SampleExplorer()
    assert len(explorer.page.tour) == 13 and not make_explorer().page.tour
    said = {}
    for stop in explorer.page.tour:
        label, tab = stop["label"], explorer.tabs[stop["tab"]]
        assert "?" in stop["ask"] and len(stop["ask"].split()) > 8 and len(stop["say"].split()) > 8
        models = dict(list(explorer.models.items())[: stop.get("models", 1)])
        for moved in [{}] * (not stop.get("press")) + [stop["then"]]:
            values = tab.checked(defaults(tab) | stop["values"] | moved)
            scenes = tab.scenes(models, values, tab.end if "press" in stop else tab.draw)
            said.setdefault(label, []).append([scene["text"] for scene in scenes])
        assert stop["then"].keys() | stop["values"].keys() <= set(tab.controls) and hasattr(
            tab, stop.get("press", "set")
        )
    for label, before, after in (
        ("Empty page", "214 of 500", "499 of 500"),  # which the question and the answer name
        ("Worst 6", "0 of 500", "<b>-2,9"),
        ("Speck", "gives -69", "the least likely pixel, row 0, column 0, gives -221 nats"),
        ("On its head", "", "; applied: turn 180"),
        ("Rank 0", "<b>0 pixels</b>", "rank 0: "),
    ):
        assert before in said[label][0][0] and after in said[label][1][0], said[label]
    nats = {
        label: [float(text_nats(text)) for (text, *_) in texts]
        for label, texts in said.items()
        if "nats</b>" in texts[0][0]
    }
    speck = explorer.page.tour[7]["then"]["image"]
    for image, rings in ((370, []), (speck, [0])):  # ringed on the map if far below the rest
        rows, _ = explorer.likelihood.draw(explorer.model, **defaults(explorer.likelihood) | {"image": image})
        assert rows[0][1][1]["ring"] == rings
    mode = explorer.model.log_prob(explorer.model.inverse(torch.zeros(1, 784))).item()
    assert abs(nats["Mode"][1] - mode) < 0.51 and abs(nats["Draws"][0] - 2300) < 50
    assert 200 < nats["Speck"][0] - nats["Speck"][1] < 260 and abs(nats["Worst 6"][0] + 3000) < 50
    assert abs(nats["Bold 8"][0] - nats["Bold 8"][1] - 1310) < 10
    assert abs(nats["On its head"][0] - nats["On its head"][1] - 1026) < 2
    broader = lambda one: torch.max_pool2d(one.view(1, 28, 28).float(), 2, 1, 1)[:, :28, :28].flatten(1).byte()  # noqa: E731
    assert pixels_of(explorer.page.tour[10]["then"]["image"], 784).equal(broader(explorer.digits[400]))
    erased = broader(explorer.digits[400]).view(28, 28)
    erased[erased.any(1).nonzero()[-1]] = 0  # its lowest row
    alike = {"Bold 8": erased.view(1, -1), "On its head": disturb(explorer.digits[394:395], turn=180, down=3)}
    for label, lost in (("Bold 8", 268), ("On its head", -58)):  # 1,000 are back, and all are, and more
        now = explorer.model.log_prob(explorer.noisy(alike[label])).item()
        assert abs(nats[label][0] - now - lost) < 5, f"{label}: {nats[label][0] - now:.0f} nats lost"
    assert int(said["Rank 0"][1][0].split("<b>")[1].split()[0]) > 250
    one, two = (float(text_nats(text)) for text in said["Two models"][0])
    assert 1150 < one - two < 1250
    real = float(said["Half a 0"][0][0].split("the real image has ")[1].replace(",", ""))
    assert nats["Half a 0"][0] > real
    assert explorer.held_out(explorer.model)[0].argmin() == 337
    walk = explorer.code_space.walk(explorer.model, explorer.page.tour[2]["values"]["chain"])
    ends = walk["code_nats"][::STEPS]
    assert ends.max() - ends.min() < 20, f"the four have {ends.tolist()} nats"  # the same, nearly
    for path, end, gain in (("code_nats", torch.amax, 100), ("pixels_nats", torch.amin, -300)):
        for leg in walk[path].unfold(0, STEPS + 1, STEPS):
            beyond = leg - torch.lerp(leg[0], leg[-1], torch.linspace(0, 1, len(leg)))
            assert abs(end(beyond, 0) - gain) < 20, f"{path}: {end(beyond, 0)} nats from the line"
            assert gain < 0 or beyond.min() > -1


def test_two_explorers_in_one_kernel():
    one, two = make_explorer(), make_explorer()
    for explorer in (one, two):
        explorer.page.tab = "inpainting"
        explorer.inpainting.set(steps=50)
    one.inpainting.start()
    two.inpainting.start()
    assert drawn(one.inpainting) == drawn(two.inpainting)


@pytest.mark.parametrize(
    ("dim", "digits", "message"),
    [
        (50, torch.zeros(9, 50, dtype=torch.uint8), "dim = 50; the explorer draws square images"),
        (64, torch.zeros(9, 784, dtype=torch.uint8), r"digits of shape \(9, 784\).*expected torch.uint8 \(N, 64\)"),
        (64, torch.zeros(9, 64), "dtype torch.float32; expected torch.uint8"),
        (64, torch.zeros(1, 64, dtype=torch.uint8), "with N at least 2"),
        (64, None, r"digits of shape \(500, 784\).*for a model of dim = 64"),
    ],
)
def test_wrong_sizes(dim, digits, message):
    with pytest.raises(InputError, match=message):
        SampleExplorer(NICE(dim=dim, mid_dim=4, hidden=1), digits)


def test_no_weights_and_no_digits(monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "none.safetensors")
    with pytest.raises(InputError, match=r"none\.safetensors"):
        SampleExplorer()
    monkeypatch.undo()
    monkeypatch.setattr(data, "SAMPLE", tmp_path / "none.png")
    data._read_sample.cache_clear()
    with pytest.raises(InputError, match="install the package again"):
        SampleExplorer(NICE(mid_dim=4, hidden=1))


def test_the_shipped_model_is_the_default(all_cores):
    explorer = SampleExplorer()
    assert explorer.model.config == load_pretrained().config and len(explorer.digits) == 500
    assert repr(explorer) == "SampleExplorer: 22,295,920 parameters, 500 real digits. To play, run its cell."
    assert len(drawn(explorer.sample)["rows"]) == 1
