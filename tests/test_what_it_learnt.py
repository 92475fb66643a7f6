"""Notebook 09: each number in its prose is printed by a cell, or stands in the record of the full data sets."""

import json
import math
import re

import pytest
from conftest import ROOT

from nicelib import bits_per_dim

NOTEBOOK = ROOT / "notebooks" / "09_what_it_learnt.ipynb"
RECORD = ROOT / "results" / "what_it_learnt.json"
#: What no cell measures: sizes, settings, other people's numbers, arithmetic on the spot.
FACTS = {
    *(784, 22_295_920, 4_500, 49_500, 10_000, 500, 300, 64, 34, 32, 40, 80, 256, 20),
    *(1.81, 0.045, 1.36, 0.061, 0.0011, 1.7, 1.02, 3.894, 2_231, 1.67),
    *(0.05, 0.2, 0.1, 0.5, 0.3, 0.7, 1.3, 30, 55, 360, 430, 900, 2014, 2016, 4123),
}


def cells(kind):
    return [c for c in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]


def prose():
    text = "\n".join("".join(c["source"]) for c in cells("markdown"))
    text = re.sub(r"\[[^\]]*\]\([^)]*\)|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", " ", text, flags=re.S)  # links, code, formulas
    return re.sub(
        r"\(\d{4},|row \d+|column \d+|Rank \d+|rank \d+|notebooks? \d\d( to \d\d)?|section \d\.\d",
        " ",
        text,
        flags=re.I,
    )


def numbers(text):
    """The numbers of a text that are 20 or more, or have decimals, as they are written."""
    found = re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", text)
    return [n.rstrip(",") for n in found if "." in n or float(n.replace(",", "")) >= 20]


def printed():
    outputs = [o for c in cells("code") for o in c["outputs"]]
    text = "\n".join("".join(o.get("text", "")) for o in outputs)
    return {float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", text)}


def recorded(part):
    for value in part.values() if isinstance(part, dict) else part:
        if isinstance(value, dict | list):
            yield from recorded(value)
        elif not isinstance(value, str):
            yield abs(value)
            yield abs(100 * value)  # as a percentage


def unsupported(text, known):
    """Numbers of the text that no known one rounds to, at the precision at which they are written ("about": to tens)."""
    bad = []
    for written in numbers(text):
        value, places = float(written.replace(",", "")), len(written.partition(".")[2])
        if not any(math.isclose(round(k, places), value, abs_tol=1e-9) for k in known):
            tens = places == 0 and value % 10 == 0 and any(abs(k - value) <= 6 for k in known if k >= 100)
            bad += [] if tens or value in FACTS else [written]
    return bad


@pytest.fixture(scope="module")
def known():
    own, runs = (json.loads(path.read_text(encoding="utf-8")) for path in (RECORD, RECORD.with_name("runs.json")))
    tests = {run["test_10_draws"] for run in runs if "test_10_draws" in run}
    return (
        printed()
        | set(recorded(own))
        | tests
        | {bits_per_dim(nats) for nats in tests | set(own["importance"]["nats"].values())}
    )


def test_every_number_in_the_prose_was_measured(known):
    assert len(numbers(prose())) > 60
    assert not unsupported(prose(), known)


@pytest.mark.parametrize("number", ["13.5 %", "0.61", "99.8 %", "24,211", "1,470", "0.69", "52.2"])
def test_a_changed_number_is_noticed(number, known):
    text = prose()
    assert number in text
    digits = number.split()[0]
    changed = digits[:-1] + str((int(digits[-1]) + 3) % 10)
    assert changed in unsupported(text.replace(number, number.replace(digits, changed)), known)


def test_the_record_says_what_the_prose_says():
    """The sentences that rest on the record alone, number by number: no other figure that happens to fit can stand in."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    pairs, bell = record["independence"]["rank_correlations"], record["independence"]["not_logistic"]["codes"]
    gains, others, samples = record["further_layer"], record["other_images"], record["samples"]
    names = ("a width each", "neighbours' sizes", "three bells each", "both")
    first, *middle, last = (f"+{gains[name]['nats']:.0f}" for name in names)
    warm = samples["temperatures"]["1.0"]
    far = {
        t: f"{one['frechet']:,.0f} {'away ' if t == '0.3' else ''}at {t}" for t, one in samples["temperatures"].items()
    }
    sentences = [
        f"go from {100 * pairs['pixels']['above_0.1']:.1f} % beyond 0.1 to {100 * pairs['codes']['above_0.1']:.1f} %",
        f"{100 * pairs['sizes of codes']['above_0.1']:.1f} % of the pairs of sizes lie beyond 0.1",
        f"the largest reaches {pairs['sizes of codes']['largest']:.2f}",
        f"refused for {100 * bell['rejected_at_5_percent']:.1f} % of the entries",
        f"their median distance is {bell['median_distance']:.2f}",
        f"the median width of an entry is {bell['median_width']:.1f}",
        f"the four numbers are {first}, {', '.join(middle)} and {last}",
        f"than {100 * others['test digits']['share_below_black']:.1f} % of MNIST's 10,000 test digits",
        f"on all 10,000 test digits {others['digits upside down']['auroc']:.2f}",
        f"told apart at {others['Fashion-MNIST']['auroc']:.4f}, with −{-others['Fashion-MNIST']['nats']:,.0f} nats",
        f"{100 * samples['judge_accuracy']:.1f} % right",
        f"{far['0.3']}, {far['0.5']}, {far['0.7']}, {far['1.0']} and {far['1.3']}",
        f"that distance is {samples['frechet_of_10000_training_digits']:.1f}",
        f"finds {100 * warm['shares'][8]:.0f} %",
        f"finds {100 * warm['shares'][1]:.1f} %, where {100 * samples['shares_of_real_digits'][1]:.0f} %",
    ]
    one, many = (record["importance"]["nats"][k] for k in ("1", "64"))
    sentences += [
        f"{one:.2f} nats become {many:.2f} at $K = 64$, or {bits_per_dim(one):.3f} bits a pixel {bits_per_dim(many):.3f}",
        f"a single digit's nats vary by {record['importance']['sd_of_one_image_over_its_noise']:.0f} from",
    ]
    runs = json.loads(RECORD.with_name("runs.json").read_text(encoding="utf-8"))
    test = {run["command"].split("--recipe ")[-1]: run["test_10_draws"] for run in runs if "test_10_draws" in run}
    fashion = "reference --protocol paper --dataset fashion-mnist"
    sentences += [
        f"{test['reference --coup-type affine']:.2f} nats on MNIST's test digits, where the same run without the knob ends "
        f"at {test['reference']:.2f}**; in bits a pixel {bits_per_dim(test['reference --coup-type affine']):.3f} against "
        f"{bits_per_dim(test['reference']):.3f}",
        f"On Fashion-MNIST {test[fashion + ' --coup-type affine']:.2f} against {test[fashion]:.2f}",
    ]
    text = "\n".join("".join(c["source"]) for c in cells("markdown"))
    assert not [sentence for sentence in sentences if sentence not in text]
    assert pairs["draws"]["above_0.1"] == pairs["sizes of draws"]["above_0.1"] == 0
