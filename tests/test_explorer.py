"""The explorer without a browser: turn a control as a hand would, look at the state."""

import io
import threading

import pytest
import torch
from conftest import randomise
from PIL import Image

from nicelib import NICE, InputError, data, load_pretrained, pretrained
from nicelib.checkpoints import read_header
from nicelib.explorer import SampleExplorer, nats_per_pixel
from nicelib.explorer.tab import within
from nicelib.pretrained import WEIGHTS, load_test_nats


def make_explorer(**options):
    model = randomise(NICE(dim=64, mid_dim=16, hidden=2, **options))
    digits = torch.randint(0, 256, (30, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return SampleExplorer(model, digits)


@pytest.fixture(scope="module")
def explorer():
    return make_explorer()


def drawn(tab):
    """The picture as it stands once everything is drawn."""
    tab.explorer.settle()
    assert tab.error is None, tab.text.value
    return tab.picture.value


@pytest.mark.parametrize("options", [{}, {"coup_type": "affine", "latent": "normal"}], ids=["additive", "affine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_tab_draws_a_picture(options, dtype):
    explorer = make_explorer(**options)
    explorer.model.to(dtype)
    for tab in explorer.tabs:
        picture = Image.open(io.BytesIO(tab.show().data)).convert("L")
        assert picture.width > 100 and len(set(picture.tobytes())) > 10
        assert "nats" in tab.text.value or "pixels" in tab.text.value
        assert tab.look_for and tab.title
        labelled = [
            w for w in within(tab.box) if getattr(w, "description", None) and hasattr(w.style, "description_width")
        ]
        assert labelled and {w.layout.width for w in labelled} == {"390px"}  # one below the other
        for control in tab.controls.values():
            assert getattr(control, "description", None) or control is explorer.likelihood.pad


CHANGES = [
    *[("sample", name, value) for name, value in {"seed": 5, "number": 9, "temperature": 0.4}.items()],
    *[("code_space", name, value) for name, value in {"a": 7, "b": 8, "t": 0.9}.items()],
    *[("spectrum", name, value) for name, value in {"k": 3, "digit": 4, "rank": 20, "value": -3.0}.items()],
    *[("likelihood", name, value) for name, value in {"right": 1, "down": -1, "turn": 45, "noise": 0.1}.items()],
    ("likelihood", "pad", bytes(64)),
    *[("inpainting", name, value) for name, value in {"digit": 9, "part": "left", "seed": 3}.items()],
]


@pytest.mark.parametrize(("tab", "control", "value"), CHANGES)
def test_a_control_changes_the_picture(explorer, tab, control, value):
    tab = getattr(explorer, tab)
    tab.request()
    before = drawn(tab)
    assert tab.controls[control].value != value
    tab.controls[control].value = value
    assert drawn(tab) != before


def test_only_the_newest_value_is_drawn(explorer):
    tab = explorer.sample
    tab.controls["temperature"].value = 1.0
    drawn(tab)
    free, count = threading.Event(), tab.drawn
    explorer.worker.submit("something slow", free.wait)
    for temperature in torch.linspace(0, 0.95, 20).tolist():
        tab.controls["temperature"].value = temperature
    free.set()
    newest = drawn(tab)
    assert tab.drawn == count + 1
    assert newest == tab.show(temperature=0.95).data


def test_an_error_is_shown_and_does_not_stop_the_explorer(explorer, monkeypatch):
    tab = explorer.sample
    before = tab.show().data
    monkeypatch.setattr(explorer.model, "sample", lambda *_: 1 / 0)
    tab.request()
    explorer.settle()
    assert "ZeroDivisionError" in tab.text.value and tab.picture.value == before
    with pytest.raises(ZeroDivisionError):
        tab.show()
    monkeypatch.undo()
    assert tab.show().data == before and "nats" in tab.text.value
    with pytest.raises(InputError, match="'heat' is no control of this tab; expected one of seed, number, temperature"):
        tab.show(heat=1)


def test_sample_is_the_models(explorer):
    tab = explorer.sample
    tab.show(seed=3, number=7, temperature=0.5)
    x = explorer.model.sample(7, 0.5, torch.Generator().manual_seed(3))
    assert f"{explorer.model.log_prob(x).mean():.1f} nats" in tab.text.value
    tab.new_button.click()
    assert tab.controls["seed"].value == 4


def test_save_as_png(explorer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tab = explorer.sample
    tab.show(seed=3, number=7, temperature=0.5)
    tab.save_button.click()
    explorer.settle()
    path = tmp_path / "nice_samples_seed3_t0.50.png"
    assert path.read_bytes() == tab.picture.value and str(path) in tab.text.value
    (tmp_path / "nice_samples_seed4_t0.50.png").mkdir()  # cannot be written over
    tab.show(seed=4)
    tab.save_button.click()
    explorer.settle()
    assert "could not write" in tab.text.value and len(list(tmp_path.iterdir())) == 2


def test_a_picture_is_saved_under_its_own_name(explorer, tmp_path, monkeypatch):
    """Save, new samples, save, while the worker is busy with something else."""
    monkeypatch.chdir(tmp_path)
    tab = explorer.sample
    first = tab.show(seed=0, number=4, temperature=1.0).data
    free = threading.Event()
    explorer.worker.submit("something slow", free.wait)
    for button in (tab.save_button, tab.new_button, tab.save_button):
        button.click()
    free.set()
    second = drawn(tab)
    assert (tmp_path / "nice_samples_seed0_t1.00.png").read_bytes() == first
    assert (tmp_path / "nice_samples_seed1_t1.00.png").read_bytes() == second != first


def test_walks_are_straight(explorer):
    with torch.no_grad():
        walk = explorer.code_space.walk(2, 11)
        z, _ = explorer.model(walk["code"])
    ends = explorer.noisy(explorer.digits[[2, 11]])
    for path in ("code", "pixels"):
        assert torch.allclose(walk[path][[0, -1]], ends, atol=1e-4)
        assert torch.allclose(walk[f"{path}_nats"], explorer.model.log_prob(walk[path]), atol=1e-3)
    assert torch.allclose(z.diff(dim=0), z.diff(dim=0)[:1], atol=1e-3)
    assert torch.allclose(walk["pixels"].diff(dim=0), walk["pixels"].diff(dim=0)[:1], atol=1e-5)


def test_spectrum_keeps_the_widest_dimensions(explorer):
    z, s = torch.randn(2, 64), explorer.model.scaling.log_scale
    assert torch.equal(explorer.spectrum.keep(z, 64), z) and not explorer.spectrum.keep(z, 0).any()
    kept = explorer.spectrum.keep(z, 10)[0] != 0
    assert kept.sum() == 10 and s[kept].max() < s[~kept].min()


@pytest.mark.parametrize("rank", [0, 20, 63])
def test_spectrum_turns_the_dimension_of_that_rank(explorer, rank):
    explorer.spectrum.show(digit=4, rank=rank, value=9.0)
    with torch.no_grad():
        z, _ = explorer.model(explorer.noisy(explorer.digits[4:5]))
        d = explorer.model.scaling.log_scale.argsort()[rank]
        turned = z.clone()
        turned[0, d] = 9.0
        change = (explorer.model.inverse(turned) - explorer.model.inverse(z)).abs()
    text = explorer.spectrum.text.value
    assert f"pixel in row {d // 8}, column {d % 8}," in text
    assert f"<b>{(change > 0.02).sum()} pixels</b>" in text and f"farthest by {change.max():.2f}" in text


def test_likelihood_image(explorer):
    tab, digit = explorer.likelihood, explorer.digits[3]
    pad, square = digit.numpy().tobytes(), digit.view(8, 8)
    assert torch.equal(tab.image(pad)[0], digit)
    moved = tab.image(pad, right=2, down=-1).view(8, 8)
    assert torch.equal(moved[:-1, 2:], square[1:, :-2]) and not moved[-1].any() and not moved[:, :2].any()
    assert torch.equal(tab.image(pad, turn=90).view(8, 8), square.rot90())
    assert torch.equal(tab.image(pad, turn=180, right=1).view(8, 8)[:, 1:], square.rot90(2)[:, :-1])
    assert not torch.equal(tab.image(pad, noise=0.1)[0], digit)
    with pytest.raises(InputError, match="a pad of 3 pixels; expected 64"):
        tab.image(b"abc")


def test_pad_loads_digits_and_clears(explorer):
    tab = explorer.likelihood
    tab.digit.value = 5
    assert tab.pad.value == explorer.digits[5].numpy().tobytes()
    nats = explorer.model.log_prob(explorer.noisy(explorer.digits[5:6])).item()
    tab.show(right=0, down=0, turn=0, noise=0)
    assert f"{nats:,.1f} nats" in tab.text.value
    tab.clear_button.click()
    assert tab.pad.value == bytes(64)


@pytest.mark.parametrize("coup_type", ["additive", "affine"])
def test_nats_per_pixel_add_up(coup_type):
    model = randomise(NICE(dim=16, mid_dim=8, hidden=1, coup_type=coup_type))
    x = torch.rand(5, 16)
    assert torch.allclose(nats_per_pixel(model, x).sum(1), model.log_prob(x), atol=1e-4)


def test_inpainting_runs_to_its_end(explorer):
    tab = explorer.inpainting
    start = tab.show(steps=50).data
    assert len(tab.nats) == 51 and tab.progress.value == tab.progress.max == 50
    assert not tab.running and tab.stop_button.disabled
    assert (tab.nats[-1] > tab.nats[0]).all()
    assert tab.show(rule="paper").data != start


def test_inpainting_stops_when_told_and_when_told_twice(explorer):
    tab = explorer.inpainting
    tab.show(steps=50, rule="preconditioned")
    tab.stop_button.click()  # nothing is running
    tab.controls["steps"].value = 3000
    tab.start_button.click()
    assert tab.running
    tab.start_button.click()  # begins afresh
    assert tab.running
    tab.stop_button.click()
    tab.stop_button.click()
    assert not tab.running
    drawn(tab)
    assert len(tab.nats) < 3000
    tab.start_button.click()
    tab.controls["part"].value = "right"  # a control stops it too
    assert not tab.running
    drawn(tab)
    assert "step 0 of" in tab.text.value
    tab.controls["steps"].value = 50
    tab.start_button.click()
    drawn(tab)
    assert "step 50 of 50" in tab.text.value


def test_a_control_moved_between_two_pictures_of_a_run_counts(explorer, monkeypatch):
    tab, submit = explorer.inpainting, explorer.worker.submit
    tab.show(steps=50)
    tab.controls["steps"].value = 3000
    drawn(tab)
    main, moved = threading.current_thread(), []

    def move_then_submit(key, job):
        if threading.current_thread() is not main and not moved:
            moved.append(True)
            tab.controls["seed"].value += 1
        submit(key, job)

    monkeypatch.setattr(explorer.worker, "submit", move_then_submit)
    tab.start_button.click()
    drawn(tab)
    assert moved and not tab.running and "step 0 of" in tab.text.value and tab.progress.value == 0


def test_other_tabs_answer_while_inpainting_runs(explorer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tab = explorer.inpainting
    tab.show(steps=50)
    tab.controls["steps"].value = 3000
    tab.start_button.click()
    count, answered = explorer.sample.drawn, threading.Event()
    explorer.sample.picture.observe(lambda _: answered.set(), "value")
    explorer.sample.next_seed()
    explorer.sample.save_button.click()  # does not wait for the end of the run either
    for index in (0, 4):  # nor does a look at another tab stop it
        explorer._tab_bar.selected_index = index
    assert answered.wait(10) and tab.running
    tab.stop_button.click()
    drawn(tab)
    assert explorer.sample.drawn == count + 1


def test_two_explorers_in_one_kernel():
    one, two = make_explorer(), make_explorer()
    one.inpainting.controls["steps"].value = two.inpainting.controls["steps"].value = 50
    one.inpainting.start()
    two.inpainting.start()
    drawn(one.inpainting), drawn(two.inpainting)
    assert one.inpainting.picture.value == two.inpainting.picture.value
    assert one.sample.picture.value == two.sample.picture.value


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
    monkeypatch.setattr(pretrained, "TEST_NATS", tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="install the package again"):
        load_test_nats()
    monkeypatch.setattr(data, "SAMPLE", tmp_path / "none.png")
    data._read_sample.cache_clear()
    with pytest.raises(InputError, match="install the package again"):
        SampleExplorer(NICE(mid_dim=4, hidden=1))


def test_the_shipped_curve_is_the_shipped_models():
    nats = load_test_nats()
    assert nats.shape == (10_000,)
    assert abs(nats.mean().item() - read_header(WEIGHTS)["test"]["nats"]) < 0.01


def test_the_shipped_model_is_the_default(all_cores):
    explorer = SampleExplorer()
    assert explorer.model.config == load_pretrained().config and len(explorer.digits) == 500
    assert len(explorer.test_nats) == 10_000
    assert repr(explorer) == "SampleExplorer: a model of 22,295,920 parameters, 500 real digits"
    assert Image.open(io.BytesIO(drawn(explorer.sample))).width > 400
