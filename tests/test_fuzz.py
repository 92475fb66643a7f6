"""Whatever comes in, the answer is right or one InputError that names the value; nothing else is left behind.

A fixed number of examples, the same in every run. To look further: ``NICE_FUZZ=20 pytest tests/test_fuzz.py``, twenty times
as many, other ones each time.
"""

import contextlib
import io
import json
import locale
import math
import os
import random
import re
import signal
import sys
import tempfile
import warnings
from fractions import Fraction
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from conftest import randomise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicelib import (
    NICE,
    InputError,
    StandardLogistic,
    StandardNormal,
    TrainConfig,
    dequantise,
    import_state_dict,
    initialise_from_data,
    quantise,
    train,
)
from nicelib.analysis import disturb, keep_widest, nats_per_pixel, turn_dimension, walks
from nicelib.checkpoints import load_model, read_header, save_model
from nicelib.cli import main
from nicelib.evaluation import evaluate
from nicelib.importers import read_state_dict
from nicelib.inpainting import inpaint
from nicelib.plotting import image_grid, plot_history, use_style
from nicelib.training import shift_images

TIMES = int(os.environ.get("NICE_FUZZ", "1"))


def fuzz(examples):
    """So many examples, always the same; no file of examples is kept."""
    checks = list(HealthCheck)
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        suppress_health_check=checks,
    )


def state():
    """All that one program can leave changed for another."""
    rng = (torch.random.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes(), hash(random.getstate()))
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    numbers = (torch.get_default_dtype(), torch.get_default_device(), torch.get_float32_matmul_precision())
    numbers += tuple(b.fp32_precision for b in backends)
    modes = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
    modes += (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), repr(np.geterr()))
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    program = (
        os.getcwd(),
        {k: v for k, v in os.environ.items() if not k.startswith("TORCHINDUCTOR")},
        sys.stdout,
        sys.stderr,
        sys.stdout.errors,
        locale.setlocale(locale.LC_ALL),
    )
    return {
        "random numbers": rng, "numbers": numbers, "modes": modes, "signal handlers": handlers, "program": program,
        "matplotlib": list(dict.values(matplotlib.rcParams)), "warnings": list(warnings.filters),
    }  # fmt: skip


@contextlib.contextmanager
def nothing_changes():
    before = state()
    yield
    after = state()
    assert not [name for name in before if before[name] != after[name]]


def answer(call):
    """What the call returns, or None after an InputError of one line; any other exception fails the test."""
    with nothing_changes(), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return call()
        except InputError as error:
            assert str(error) and "\n" not in str(error), error
            return None


WILD = st.one_of(
    st.integers(-3, 1000), st.integers(), st.floats(), st.text(max_size=6), st.none(), st.booleans(), st.binary(max_size=3),
    st.lists(st.integers(), max_size=2), st.fractions(0, 1), st.complex_numbers(max_magnitude=2),
    st.sampled_from([
        np.int64(3), np.float32(0.5), np.bool_(True), np.array([1, 2]), np.array(2), np.datetime64("2020"), torch.tensor(3),
        torch.tensor(0.5), torch.ones(2), torch.tensor(float("nan")), {}, object, "auto", "parity", "halves", "affine", "cpu",
        Fraction(1, 3), Path("x"), 10**400, -0.0, 1e-320, "\0", "\ud800",
    ]),
)  # fmt: skip


@fuzz(300)
@given(st.dictionaries(st.sampled_from(sorted(TrainConfig.__dataclass_fields__)), WILD, min_size=1, max_size=2))
def test_settings(values):
    with nothing_changes():
        try:
            config = TrainConfig(**values)
        except InputError as error:
            assert re.match(f"({'|'.join(values)}|first|dim)\\b.* = ", str(error), re.S), (values, error)
            return
    for name, value in values.items():
        kept = getattr(config, name)
        assert type(kept) in (int, float, str, type(None)) and json.loads(json.dumps(kept)) == kept
        if value is not None and not isinstance(value, str):
            assert kept == pytest.approx(float(value), rel=1e-6)


def spoilt(draw, x):
    """The same numbers laid out in another way, or with a few of them changed."""
    match draw(st.sampled_from("as is/as is/transposed/expanded/sliced/flipped/nan/inf/huge/grad".split("/"))):
        case "transposed":
            return x.mT.contiguous().mT if x.ndim > 1 else x
        case "expanded":
            return x[:1].expand(x.shape) if x.ndim and len(x) else x
        case "sliced":
            return x.repeat_interleave(2, -1)[..., ::2] if x.ndim else x
        case "flipped":
            return x.flip(0) if x.ndim else x
        case "grad":
            return x.clone().requires_grad_() if x.is_floating_point() else x
        case ("nan" | "inf" | "huge") as what:
            x = x.clone()
            if x.is_floating_point() and x.numel():
                x.view(-1)[draw(st.integers(0, x.numel() - 1))] = {"nan": math.nan, "inf": -math.inf}.get(what, 3e38)
    return x


DTYPES = [torch.float32] * 6 + [torch.uint8] * 4
DTYPES += [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.bool, torch.complex64]


@st.composite
def tensors(draw):
    """Mostly what a model of 16 dimensions takes; or of another shape, dtype, layout or device; or no tensor at all."""
    shape = draw(st.one_of(
        st.tuples(st.integers(0, 4), st.just(16)), st.just((2, 16)), st.lists(st.sampled_from([0, 1, 2, 4, 16]), max_size=3)
    ))  # fmt: skip
    dtype = draw(st.sampled_from(DTYPES))
    x = torch.rand(tuple(shape), generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    x = spoilt(draw, (x if dtype.is_floating_point or dtype.is_complex else 255 * x).to(dtype))
    other = {
        "sparse": lambda: x.detach().to_sparse(),
        "meta": lambda: x.to("meta"),
        "list": x.tolist,
        "none": lambda: None,
    }
    other |= {"numpy": lambda: x.detach().real.float().numpy(), "number": lambda: 0.5}
    return draw(st.sampled_from([lambda: x] * 12 + list(other.values())))()


MODELS = [
    randomise(NICE(16, mid_dim=8, hidden=1, **more))
    for more in ({}, {"coup_type": "affine", "mask": "halves"}, {"latent": "normal", "mask": "checkerboard"})
]
EXACT = [NICE(**model.config).double() for model in MODELS]
for exact, model in zip(EXACT, MODELS, strict=True):
    exact.load_state_dict(model.state_dict())
HIDDEN = torch.arange(16) < 8


def seeded():
    return torch.Generator().manual_seed(1)


@fuzz(250)
@given(tensors(), st.integers(0, 2))
def test_layers_and_models(x, number):
    model, exact = MODELS[number], EXACT[number]
    for layer, right in ((model, exact), (model.layers[0], exact.layers[0]), (model.scaling, exact.scaling)):
        result, back = answer(lambda layer=layer: layer(x)), answer(lambda layer=layer: layer.inverse(x))
        taken = isinstance(x, torch.Tensor) and x.dtype == torch.float32 and x.ndim == 2 and x.shape[1] == 16
        assert (
            (result is None) == (back is None) == (not (taken and x.layout == torch.strided and x.device.type == "cpu"))
        )
        if result is None:
            continue
        y, log_det = right(x.double())
        plain = x.isfinite().all(1) & (x.abs() < 1e3).all(1)
        for got, wanted in ((result[0], y), (result[1], log_det), (back, right.inverse(x.double()))):
            assert got.shape == wanted.shape and got.dtype == torch.float32
            assert torch.allclose(got[plain], wanted[plain].float(), rtol=1e-3, atol=1e-4)
            nan = x.isnan().any(1)  # goes through as NaN, and stays in its row
            numbers = got if got.ndim == 2 else y.sum(1) + got
            assert numbers[nan].isnan().any(-1).all() if nan.any() else True
        if layer is model:
            nats = answer(lambda: model.log_prob(x))
            assert nats[x.isnan().any(1)].isnan().all() and nats[plain].isfinite().all()


FUNCTIONS = {
    "dequantise": lambda m, x: dequantise(x, seeded()),
    "quantise": lambda m, x: quantise(x),
    "logistic": lambda m, x: (StandardLogistic().log_prob(x), StandardLogistic().cdf(x), StandardLogistic().icdf(x)),
    "normal": lambda m, x: (StandardNormal().log_prob(x), StandardNormal().cdf(x), StandardNormal().icdf(x)),
    "evaluate": lambda m, x: evaluate(m, x).per_image,
    "inpaint": lambda m, x: [nats for _, nats in inpaint(m, x, HIDDEN, steps=2, generator=seeded())],
    "inpaint hidden": lambda m, x: [n for _, n in inpaint(m, torch.full((2, 16), 0.5), x, steps=1, generator=seeded())],
    "nats_per_pixel": nats_per_pixel,
    "walks": lambda m, x: tuple(walks(m, x, 3).values()),
    "keep_widest": lambda m, x: keep_widest(m, x, 3),
    "turn_dimension": lambda m, x: turn_dimension(m, x, 2, 0.5),
    "disturb": lambda m, x: disturb(x, 1, -1, 30.0, 0.1),
    "shift_images": lambda m, x: shift_images(x, 0.5, seeded()),
    "initialise": lambda m, x: initialise_from_data(NICE(**m.config), x),
    "image_grid": lambda m, x: torch.from_numpy(image_grid(x, 3, 4, 4)),
    "save dtype": lambda m, x: save_model(m, os.devnull, dtype=x),
    "import": lambda m, x: import_state_dict(m.state_dict() | {"scaling.scale": x, "coupling.0.in_block.0.weight": x}),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@fuzz(40)
@given(x=tensors(), number=st.integers(0, 2))
def test_functions_of_a_tensor(name, x, number):
    def call(x):
        with torch.random.fork_rng(devices=[]):  # NICE() draws its weights there, as every module of torch
            result = FUNCTIONS[name](MODELS[number], x)
        return () if result is None else result if isinstance(result, tuple | list) else (result,)

    results = answer(lambda: call(x))
    if results is None:
        return
    whole = (
        isinstance(x, torch.Tensor)
        and not x.is_meta
        and x.dtype in (torch.float32, torch.float64, torch.uint8, torch.bool)
    )
    if not whole:
        assert results == () or isinstance(x, torch.Tensor)
        return
    again = call(x.detach().contiguous().clone())  # how the numbers lie in memory changes nothing
    for got, wanted in zip(results, again, strict=True):
        assert torch.allclose(got.double(), wanted.double(), rtol=1e-3, atol=1e-4, equal_nan=True)
        assert (
            got.isnan().any()
            or not x.is_floating_point()
            or x.isfinite().all()
            or not got.is_floating_point()
            or x.numel()
        )


@st.composite
def changed(draw, whole):
    """Bytes flipped, cut, swapped, doubled or lost."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at, to = (draw(st.integers(0, max(len(data) - 1, 0))) for _ in range(2))
        n = draw(st.sampled_from([1, 1, 4, 64]))
        match draw(st.sampled_from("flip/flip/flip/cut/swap/double/lose/zero".split("/"))):
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at:]
            case "swap":
                data[at : at + n], data[to : to + n] = data[to : to + n], data[at : at + n]
            case "double":
                data[at:at] = data[at : at + n]
            case "lose":
                del data[at : at + n]
            case "zero":
                data[at : at + n] = bytes(n)
    return bytes(data)


X = torch.rand(4, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def written(folder):
    """The bytes of a weights file, of a finished run's resume file, of another program's weights."""
    model = randomise(NICE(16, mid_dim=4, hidden=1, coup_type="affine"))
    save_model(model, folder / "m", metrics={"held_out": 1.5})
    list(train(RUN, out=folder / "run"))
    state = {f"coupling.{i}.{part}": torch.rand(*shape) for i in range(2) for part, shape in THEIRS.items()}
    torch.save(state | {"scaling.scale": torch.rand(1, 6)}, folder / "theirs")
    return {
        "weights": (folder / "m").read_bytes(), "resume": (folder / "run" / "resume.pt").read_bytes(),
        "theirs": (folder / "theirs").read_bytes(), "nats": model.log_prob(X), "header": read_header(folder / "m"),
    }  # fmt: skip


RUN = TrainConfig(dataset="mnist-sample", mid_dim=2, hidden=1, batch_size=1500, max_iter=1, device="cpu", save_every=9)
THEIRS = {
    "in_block.0.weight": (5, 3), "in_block.0.bias": (5,), "mid_block.0.0.weight": (5, 5), "mid_block.0.0.bias": (5,),
    "out_block.weight": (3, 5), "out_block.bias": (3,),
}  # fmt: skip


@fuzz(150)
@given(data=st.data())
def test_weights_files(data, written, folder):
    (folder / "changed").write_bytes(data.draw(changed(written["weights"])))
    header = answer(lambda: read_header(folder / "changed"))
    model = answer(lambda: load_model(folder / "changed"))
    assert header is None or isinstance(header, dict)
    if model is not None:  # what was changed was in no number
        assert torch.equal(model.log_prob(X), written["nats"]) and header == written["header"]


@fuzz(60)
@given(data=st.data())
def test_resume_files(data, written, folder):
    out = folder / "run"
    content = data.draw(changed(written["resume"]))
    (out / "resume.pt").write_bytes(content)
    names, model = sorted(p.name for p in out.iterdir()), RUN.build()
    records = answer(lambda: list(train(RUN, out=out, resume=True, model=model)))
    assert (out / "resume.pt").read_bytes() == content and sorted(p.name for p in out.iterdir()) == names
    if records is not None:
        assert records == []
        right = load_model(out / "best.safetensors").state_dict()
        assert all(torch.equal(t, right[name]) for name, t in model.state_dict().items())


@fuzz(100)
@given(data=st.data())
def test_other_programs_files(data, written, folder):
    (folder / "changed").write_bytes(data.draw(changed(written["theirs"])))

    def imported():
        with torch.random.fork_rng(devices=[]):
            return import_state_dict(read_state_dict(folder / "changed"))

    model = answer(imported)
    assert model is None or all(t.isfinite().all() for t in model.parameters())


NUMBERS = [
    "0",
    "1",
    "2",
    "8",
    "-1",
    "9" * 30,
    "2147483648",
    "1.5",
    "1e-3",
    "1e400",
    "nan",
    "-inf",
    "x",
    "",
    "é",
    "none",
]
FLAGS = {
    "train": [
        "--dataset=mnist-sample",
        "--mid-dim=4",
        "--hidden=1",
        "--max-iter=1",
        "--batch-size=1500",
        "--device=cpu",
    ],
    "sample": ["--sample-size=2"],
    "evaluate": ["--draws=1", "--device=cpu"],
    "summary": ["--mid-dim=4", "--hidden=1"],
    "import": [],
    "bench": ["--rounds=0"],
}
NAMES = [f"--{name.replace('_', '-')}" for name in TrainConfig.__dataclass_fields__ if name not in ("dim", "max_iter")]
NAMES += "--draws --importance --temperature --sample-size --resume --out --per-image --first --mean --data-dir --help".split()
WORDS = [
    "mnist",
    "mnist-sample",
    "affine",
    "normal",
    "halves",
    "odd",
    "second",
    "cpu",
    "meta",
    "cuda:7",
    "sprint",
    "notes",
]


@fuzz(60)
@given(
    st.sampled_from([*FLAGS, "evaluate", "sample", "summary", "train"]),
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NUMBERS + WORDS)), max_size=3),
    st.sampled_from([None] * 4 + ["weights", "damaged", "nowhere", "."]),
)
def test_command_lines(command, flags, file):
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        save_model(MODEL, "weights")
        Path("damaged").write_bytes(Path("weights").read_bytes()[:-3])
        os.environ["NICE_DATA_DIR"] = "nodata"
        argv = [command, *([file] if file else []), *FLAGS[command], *(f"{flag}={value}" for flag, value in flags)]
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), nothing_changes():
            try:
                status = main(argv)
            except SystemExit as stop:  # argparse
                status = stop.code
        err.flush()
        said = err.buffer.getvalue().decode()
        assert status in (0, 2), (argv, status)
        assert status == 0 or re.fullmatch(r"nicelib( \w+)?: error: [^\n]+\n", said), (argv, said)
        assert not [p for p in Path().rglob("*") if p.suffix in (".tmp", ".lock")], argv
        assert status == 0 or not [p for p in Path().rglob("*.safetensors")], argv


MODEL = NICE(mid_dim=4, hidden=1)


def test_figures_leave_matplotlib_as_it_was():
    """Outside use_style, which is there to change it."""
    from matplotlib.figure import Figure

    with nothing_changes():
        plot_history([{"epoch": 1, "train": 1.0, "held_out": 2.0}], Figure().subplots())
        with matplotlib.rc_context():
            use_style()
