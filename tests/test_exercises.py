"""What the reader of an exercise is told; a wrong answer never ends "Run All"."""

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT

from nicelib.exercises import check
from nicelib.explorer import SampleExplorer

YOUR_TURN = "E: your turn. Replace the dots, then run this cell again.\n"


def near(a):
    return abs(a - 0.5) < 1e-6


def ordered(a):
    return a == sorted(a) and len(a) == 3


def squares(f):
    return f(3) == 9


def open_function(x):
    return ...


@pytest.mark.parametrize(
    "answer", [..., None, [1, ...], (..., 2, 3), {"A": 1, "B": ...}, [[1, ...]], np.array([1, ...])]
)
def test_dots_anywhere_are_the_readers_turn(answer, capsys):
    check("E", answer, lambda a: 1 / 0, "hint")
    assert capsys.readouterr().out == YOUR_TURN


def test_dots_in_a_function_are_the_readers_turn(capsys):
    check("E", open_function, lambda f: f(3) + 1 == 10, "hint")
    check("E", open_function, lambda f: f(3) == 9, "hint")
    assert capsys.readouterr().out == 2 * YOUR_TURN
    check("E", lambda x: x[..., 0], lambda f: f(torch.eye(3)).sum() == 1, "hint")  # these dots are an answer
    assert capsys.readouterr().out == "E: right.\n"


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
@pytest.mark.parametrize("test", [ordered, lambda a: tuple(a) == (1, 2, 3), lambda a: [n in (1, 2, 3) for n in a]])
def test_lists_tuples_arrays_and_tensors_are_all_answers(kind, test, capsys):
    check("E", kind([1, 2, 3]), test, "hint")
    check("E", kind([1, 9, 3]), test, "hint")
    right, wrong = capsys.readouterr().out.splitlines()
    assert right == "E: right." and wrong.startswith("E: not yet") and wrong.endswith(". Hint: hint")


@pytest.mark.parametrize("kind", [float, np.float64, torch.tensor, lambda a: torch.tensor(a, requires_grad=True)])
def test_numbers_are_numbers_whatever_they_come_as(kind, capsys):
    check("E", kind(0.5), near, "hint")
    check("E", kind(0.4), near, "hint")
    assert capsys.readouterr().out == "E: right.\nE: not yet. Hint: hint\n"


def test_the_parts_that_miss_are_named(capsys):
    check("E", [1, 2, 4], lambda a: torch.tensor(a) == torch.tensor([1, 3, 3]), "hint")
    assert capsys.readouterr().out == "E: not yet, look at part 2, 3. Hint: hint\n"


def test_an_answer_that_fails_is_told_so_in_one_line(capsys):
    check("E", "a half", near, "hint")
    check("E", lambda x: x.square(), squares, "hint")
    check("E", lambda x: x**2, squares, "hint")
    text, function, right = capsys.readouterr().out.splitlines()
    assert text.startswith("E: not yet, TypeError: ") and text.endswith("Hint: hint")
    assert function == "E: not yet, AttributeError: 'int' object has no attribute 'square'. Hint: hint"
    assert right == "E: right."


def test_a_wrong_tensor_is_judged_as_a_tensor(capsys):
    """That it would fail as a list is no word of the reader's."""
    check("Ex", torch.ones(3), lambda a: a.allclose(torch.zeros(3)), "log 2 is missing")
    assert capsys.readouterr().out == "Ex: not yet. Hint: log 2 is missing\n"
    check("Ex", torch.ones(3), lambda a: [a.sum() == 3, a.sum() == 4], "add")
    assert capsys.readouterr().out == "Ex: not yet, look at part 2. Hint: add\n"


def test_exercise_2_of_the_explorer_takes_pixels_alone(all_cores, capsys):
    """Numbers from 0 to 255; whatever is no grey level is told so, and not rounded or wrapped to one."""
    cells = nbformat.read(ROOT / "notebooks" / "07_sample_explorer.ipynb", 4).cells
    (source,) = (c.source for c in cells if "def fools_both" in c.source)
    explorer = SampleExplorer()
    names = {"torch": torch, "model": explorer.model, "noisy": explorer.noisy, "check": check}
    corner = torch.eye(784)[0]
    row, column = torch.meshgrid(torch.arange(28) + 0.5, torch.arange(28) + 0.5, indexing="ij")
    dot = 255 * (1.7 - torch.hypot(row - 14, column - 22)).clamp(0, 1)  # as the page's pen draws it
    for image, said in (
        (8 * corner, "right."),
        ((8 * corner).to(torch.uint8).view(28, 28).numpy(), "right."),
        (dot.floor().flatten(), "right."),
        (0 * corner, "not yet, look at part 2"),
        *(
            (bad * corner, "not yet, ValueError: expected 784 whole numbers, from 0 to 255")
            for bad in (264, -248, 8.5, 0.03)
        ),
    ):
        exec(source, names)  # its dots are open
        exec(source.replace("image = ...", "image = answer"), names | {"answer": image})
        open_, judged = capsys.readouterr().out.splitlines()
        assert "your turn" in open_ and judged.startswith(f"Exercise 2: {said}")
