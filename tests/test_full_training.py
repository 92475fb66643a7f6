"""Notebook 06 for other readers: a good model in place of the small one, a full run asked for, a cell run again."""

import json
import os
from statistics import median

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "notebooks" / "06_full_gpu_training.ipynb"
#: what costs seconds and does not depend on the models
LEFT_OUT = (
    "## 4. Before: what will it cost?",
    "### The prediction, before the measurement",
    "### Where the H100's time goes",
    "### Start it once: a CUDA graph",
    "### A card that you may have",
    "### Memory",
    "## 5. During: does it go well?",
    "### Stop, and go on",
    "## 8. Further",
)
RECIPE = {"dataset": "mnist-sample", "mid_dim": 32, "hidden": 1, "batch_size": 100, "max_iter": 2}


def cells(until):
    """(heading, code cell) up to a heading."""
    heading = ""
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        if cell.cell_type == "markdown" and cell.source.startswith("##"):
            heading = cell.source.strip()
        if heading == until:
            return
        if cell.cell_type == "code":
            yield heading, cell


def execute(sources, folder):
    """What the cells print, each as one text; raises where one fails."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]


@pytest.fixture
def quiet_kernel(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_every_cell_after_training_holds_for_other_models(tmp_path, monkeypatch, quiet_kernel, all_cores):
    """The shipped weights in place of the small run, and a full run (of a tiny model) by NICE_FULL_RUN."""
    monkeypatch.setenv("NICE_FULL_RUN", "sprint")
    sources = []
    for heading, cell in cells(until="## Exercises"):
        source = cell.source
        if "= watch(config)" in source:
            good = "small_run, history = load_pretrained(), [{'epoch': 1, 'train': 2300.0, 'held_out': 2170.0}]"
            source = source.replace("small_run, history = watch(config)", good)
        if heading not in LEFT_OUT:
            sources.append(source)
        elif heading == "## 4. Before: what will it cost?" and "work = {}" in source:
            sources.append("FLOPS_PER_IMAGE = 114_816_000\n" + source)
    where = next(i for i, source in enumerate(sources) if "NICE_FULL_RUN" in source)
    sources.insert(where, f"RECIPES['sprint'] = {RECIPE}\nmeasured, as_graph = {{200: 1000.0, 50: 500.0}}, {{}}")
    printed = "\n".join(execute(sources, tmp_path))
    assert "the full run is left out" not in printed and "your sprint" in printed
    assert {path.name for path in (tmp_path / "runs" / "sprint").iterdir()} >= {"best.safetensors", "history.json"}


def test_the_live_figure_starts_at_step_0_and_is_there_again(tmp_path, quiet_kernel):
    """Run again, a finished run's cell shows its curve, not an empty picture. Drawing is no part of the images/s."""
    start = [cell.source for heading, cell in cells(until="## 3. Read the loop")]
    start = start[: next(i for i, source in enumerate(start) if "= watch(config)" in source)]
    spy = (
        "drawn, really = [], picture\n"
        "def picture(live, title, share, **place):\n"
        "    drawn.append((len(live.line), [epoch for epoch, _ in live.dots], share, place['update'], live.seconds))\n"
        "    time.sleep(2)\n"
        "    really(live, title, share, **place)\n"
    )
    run = f"import json\ntiny = TrainConfig(**{RECIPE})\n_ = watch(tiny, out='run')\nprint(json.dumps(drawn))\ndrawn.clear()"
    *_, first, again = (json.loads(text.splitlines()[-1]) for text in execute([*start, spy, run, run], tmp_path)[-2:])
    assert first[0] == [0, [0], 0.0, False, 0.0]  # the start from data, before any step
    assert first[-1][1:4] == [[0, 1, 2], 1, True]
    assert 0 < first[-1][4] < 2  # of which drawing took 4
    assert again == [[2, [1, 2], 1, False, 0.0]]


#: cells that do something else on a card, and those that they need
ON_A_CARD = (
    "import json\nimport math",
    "load_digits(",
    "H100 = {",
    "resolve_device(",
    "kinds = precisions",
    "def picture(",
)
ON_A_CARD += ("def draw_samples(", "class Live", "def tick(", "def progress(", "def watch(", "= watch(config)")
ON_A_CARD += ("def shortest(", "def predict(", "def rate(", "measured = {", "ax.loglog(")
ON_A_CARD += (
    "def record_step(",
    "def graph_rate(",
    "as_graph = {",
    "ends[way]",
    "max_memory_allocated",
    "this machine, now",
    "this card, {way}",
)
SMALL = """
import acted_card
acted_card.take_over()
from nicelib.training import train_step
my_guess_at_200 = my_guess_at_10 = ...
TrainConfig = partial(TrainConfig, mid_dim=16, hidden=1)
calls = dict.fromkeys(("highest", "high", "bf16"), 100)
weights, bytes_a_step, an_image, work, remainder = 1e5, 1e6, 2e5, {"reference": 1e6}, 1.0
FLOPS_PER_IMAGE = 1e5
"""
SAME = """
def three_steps(recorded):
    torch.manual_seed(0)
    model = TrainConfig().build()
    step = partial(train_step, model, torch.optim.SGD(model.parameters(), lr=1e-3))
    batches = x_test[:120].split(20)
    if recorded:
        place, graph, loss = record_step(step, batches[0])
    losses = []
    for x in batches[3:] if recorded else [*3 * batches[:1], *batches[3:]]:
        if recorded:
            place.copy_(x)
            graph.replay()
        losses.append(loss.item() if recorded else step(x).item())
    return losses[-3:]
x_test = dequantise(test_pixels, torch.Generator().manual_seed(0))
print(json.dumps([three_steps(False), three_steps(True)]))
"""


def test_what_runs_on_a_card_alone_runs_on_an_acted_one(tmp_path, monkeypatch):
    """Each branch for CUDA; a step that the notebook recorded goes the way of the ordinary steps."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    sources = [cell.source for _, cell in cells(until="## Exercises") if any(m in cell.source for m in ON_A_CARD)]
    branches = sum(cell.source.count('device.type == "cuda"') for _, cell in cells(until="## Exercises"))
    assert branches - 1 == sum(source.count('device.type == "cuda"') for source in sources)  # the profiler looks itself
    quick = {'device.type == "cuda"': "True", "size = 4000": "size = 40", "[3200]": "[900]", "replay, 20": "replay, 2"}
    for what, instead in quick.items():
        assert any(what in source for source in sources), what
        sources = [source.replace(what, instead) for source in sources]
    sources.insert(2, SMALL)
    sources = [source.replace("assert unseen > 1500", "assert unseen > 0") for source in sources]
    *_, same = printed = execute([*sources, SAME], tmp_path)
    everything = "".join(printed)
    for told in (
        "an acted card: 8 GB, capability 8.6",
        "this card, as a graph: estimate",
        "counted",
        "measured at most:",
    ):
        assert told in everything, told
    assert "this machine, as a graph" in everything and "no CUDA GPU" not in everything
    ordinary, recorded = json.loads(same)
    assert recorded == pytest.approx(ordinary, rel=1e-5) and len(set(ordinary)) == 3


def test_what_it_says_of_the_h100_was_measured():
    """Its prose against results/gpu.json and runs.json; the notebook itself holds its table of images/s to the first."""
    found = json.loads((ROOT / "results" / "gpu.json").read_text(encoding="utf-8"))
    markdown = [cell.source for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "markdown"]
    text = "\n".join(markdown)
    from_python, *runs = found["sprints"]
    nats = {p: [f"{run['nats']:.1f}" for run in runs if run["precision"] == p] for p in ("high", "bf16")}
    for a, b, c in nats.values():
        assert f"{a}, {b} and {c}" in text.replace(" nats", ""), nats
    times = f"after {runs[0]['training_seconds']:.1f} s instead of {from_python['training_seconds']:.0f}"
    assert f"{from_python['nats']:.2f} nats, {times}" in text and from_python["nats"] == runs[0]["nats"]
    assert all(found["same_numbers"][p]["on_against_off"] == 0 for p in ("highest", "high", "bf16"))
    assert f"{from_python['peak_bytes'] / 1e9:.2f} GB" in text
    assert f"the H100 {found['machine']['product_high'] / 1e12:.0f} (in TF32" in text
    rates = {name: loop["images_per_s"] for name, loop in found["speed"]["200"].items()}
    assert f"{rates['nicelib, TF32, graph'] / rates['nicelib, TF32']:.1f} times as fast" in text
    assert f"{rates['plain, images on the device'] / rates['plain']:.1f} times as fast" in text
    for name, where in (("nicelib, TF32", "from Python"), ("nicelib, TF32, graph", "as a graph")):
        rounds = found["speed"]["200"][name]["rounds"]
        assert f"between {min(rounds):,.0f} and {max(rounds):,.0f} {where}" in text and len(rounds) == 9
    rounds = found["speed"]["200"]["nicelib, bfloat16"]["rounds"]
    assert f"between {min(rounds):,.0f} and {max(rounds):,.0f} images a second" in text
    for name in ("plain", "plain, images on the device", "nicelib, float32", "nicelib, TF32"):
        assert f"{rates[name]:,.0f}" in text, name
    rows = json.loads((ROOT / "results" / "runs.json").read_text(encoding="utf-8"))
    test = [f"{row['test_10_draws']:.0f}" for row in rows if row["group"] == "shipped recipe" and row["epochs"] == 34]
    assert f"{', '.join(test)} (test, three seeds)" in text
    assert f"({runs[0]['peak_bytes'] / 1e9:.2f} as a graph)" in text
    ms = {b: {n: int(b) / loop["images_per_s"] * 1e3 for n, loop in found["speed"][b].items()} for b in ("200", "50")}
    exercise = text[text.index("**1. Predict") : text.index("**2. Build")]
    assert (
        f"takes {ms['200']['nicelib, TF32']:.1f} ms from Python and {ms['200']['nicelib, TF32, graph']:.2f}" in exercise
    )
    solution = text[text.index("Solution 1") : text.index("Solution 2")]
    assert f"at {ms['50']['nicelib, TF32']:.1f} ms" in solution
    assert f"takes {ms['50']['nicelib, TF32, graph']:.2f} ms" in solution
    resident, graph = "plain, images on the device", "nicelib, TF32, graph"
    assert f"{rates[graph] / rates[resident]:.1f} times as fast as the plain loop with its images" in text
    cpu = json.loads((ROOT / "results" / "cpu.json").read_text(encoding="utf-8"))
    rate = {b: {n: median(x["images_per_s"]) for n, x in cpu[b]["loops"].items()} for b in ("200", "50")}
    assert f"plain float32 loop on them reaches {rate['200']['plain']:.0f})" in text
    code = "\n".join(cell.source for _, cell in cells(until="## Exercises"))
    assert f"{rate['200']['bf16']:.0f}  # results/cpu.json" in code


def test_runs_that_a_hook_watches_are_no_graphs():
    """On a GPU a run is a CUDA graph by default, and a hook does not see its replays."""
    code = "\n".join(cell.source for _, cell in cells(until="## Exercises"))
    for name in ("tiny", "quick"):
        line = next(line for line in code.splitlines() if line.startswith(f"{name} = replace({name},"))
        assert 'cuda_graph="off"' in line, line
