"""What the reader of an exercise is told; a wrong answer never ends "Run All"."""

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT

from nicelib import analysis
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
    check("E", [1, 2, 4], lambda a: torch.tensor(a) == torch.tensor([0, 3, 3]), "hint")
    two, three = capsys.readouterr().out.splitlines()
    assert two == "E: not yet, look at parts 2 and 3. Hint: hint"
    assert three == "E: not yet, look at parts 1 and 2 and 3. Hint: hint"


def high_or_odd(a):
    return {f"{a} is too high": a < 9, f"{a} is odd": torch.tensor(a) % 2 == 0}


def test_what_is_wrong_is_said_in_the_tests_words(capsys):
    for answer in (9, 10, 7, 6, np.int64(7), "a"):
        check("E", answer, high_or_odd, "hint")
    both, high, odd, right, numpys, text = capsys.readouterr().out.splitlines()
    assert both == "E: not yet: 9 is too high; 9 is odd. Hint: hint"
    assert high == "E: not yet: 10 is too high. Hint: hint"
    assert odd == numpys == "E: not yet: 7 is odd. Hint: hint"
    assert right == "E: right."
    assert text == "E: not yet, an answer of type str does not fit the question. Hint: hint"  # not Python's words


def test_an_answer_that_fails_is_told_so_in_one_line(capsys):
    check("E", "a half", near, "hint")
    check("E", (0.5, "a", "b"), lambda a: [near(part) for part in a], "hint")
    check("E", np.ones(2), lambda a: a.strip() == "", "hint")
    check("E", "a half", lambda a: float(a) == 0.5, "hint")
    check("E", lambda x: x.square(), squares, "hint")
    check("E", lambda x: x**2, squares, "hint")
    text, several, array, value, function, right = capsys.readouterr().out.splitlines()
    kind = "E: not yet, an answer of type "
    assert text == f"{kind}str does not fit the question. Hint: hint"
    assert several == f"{kind}tuple (float, str) does not fit the question. Hint: hint"
    assert array == f"{kind}ndarray (float) does not fit the question. Hint: hint"
    assert value == f"{kind}str: could not convert string to float: 'a half'. Hint: hint"
    assert function == "E: not yet, AttributeError: 'int' object has no attribute 'square'. Hint: hint"
    assert right == "E: right."


def test_a_wrong_tensor_is_judged_as_a_tensor(capsys):
    """That it would fail as a list is no word of the reader's."""
    check("Ex", torch.ones(3), lambda a: a.allclose(torch.zeros(3)), "log 2 is missing")
    assert capsys.readouterr().out == "Ex: not yet. Hint: log 2 is missing\n"
    check("Ex", torch.ones(3), lambda a: [a.sum() == 3, a.sum() == 4], "add")
    assert capsys.readouterr().out == "Ex: not yet, look at part 2. Hint: add\n"


@pytest.fixture(scope="module")
def explorers_exercise():
    """Judges an answer to one of notebook 07's exercises: runs its two cells, the reader's with the dots replaced."""
    cells = nbformat.read(ROOT / "notebooks" / "07_sample_explorer.ipynb", 4).cells
    explorer = SampleExplorer()
    names = {"torch": torch, "analysis": analysis, "check": check, "explorer": explorer, "model": explorer.model}
    names |= {"digits": explorer.digits, "noisy": explorer.noisy, "device": torch.device("cpu")}
    exec(next(cell.source for cell in cells if cell.source.startswith("def pair(")), names)  # both others use it

    def judge(number, answer, dots="...", instead="answer"):
        (at,) = (i for i, cell in enumerate(cells) if f'check("Exercise {number}"' in cell.source)
        exec(cells[at - 1].source, names)
        assert cells[at].source.count(dots) == 1
        exec(cells[at].source.replace(dots, instead), names | {"answer": answer})

    judge.explorer = explorer
    return judge


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((100.5, 1.6), "right."),
        ((np.float64(100.53), torch.tensor(1.62)), "right."),
        (torch.tensor([100.53, 1.62]), "right."),
        ((100, 1.5), "not yet: sd 1.5, too low."),
        ((101.7, 1.6), "not yet: length 101.7, too high."),
        ((203, 1.7), "not yet: length 203, too high; sd 1.7, too high."),
        ((99, 3.2), "not yet: length 99, too low; sd 3.2, too high."),
        (("a", 1.6), "not yet, an answer of type tuple (str, float) does not fit the question."),
        ((100.5, 1.6, 3), "not yet, an answer of type tuple (float, int): expected two numbers, length and sd."),
    ],
)
def test_exercise_1_of_the_explorer_says_which_is_too_high(answer, said, explorers_exercise, capsys):
    explorers_exercise(1, answer, "(length, sd)")
    assert capsys.readouterr().out.startswith(f"Exercise 1: {said}")


def test_exercise_3_of_the_explorer_takes_pixels_alone(all_cores, explorers_exercise, capsys):
    """Numbers from 0 to 255; whatever is no grey level is told so, and not rounded or wrapped to one."""
    corner = torch.eye(784)[0]
    row, column = torch.meshgrid(torch.arange(28) + 0.5, torch.arange(28) + 0.5, indexing="ij")
    dot = (255 * (1.7 - torch.hypot(row - 14, column - 22)).clamp(0, 1)).floor()  # as the page's pen draws it
    explorer = explorers_exercise.explorer
    explorer.likelihood.set(image=dot.roll(-3, 1), right=3)  # as the model sees it counts
    for image, said in (
        (8 * corner, "right."),
        ((8 * corner).to(torch.uint8).view(28, 28).numpy(), "right."),
        (dot.flatten(), "right."),
        (0 * corner, "not yet: |z| = 25.5, too near the mode. Hint"),
        (9 * corner, "right."),
        (6 * corner, "not yet: |z| = 42.7, too near the mode. Hint"),
        (10 * corner, "not yet: |z| = 62.4, too far from the mode. Hint"),
        (40 * corner, "not yet: 2,427 nats, too few; |z| = 229.3, too far from the mode. Hint"),
        (explorer.digits[20], "not yet: 2,413 nats, too few; ink in 204 pixels, too many. Hint"),
        *(
            (
                bad * corner,
                f"not yet, an answer of type Tensor (float): image = 784 numbers from {min(bad, 0)} to {max(bad, 0)}; expected",
            )
            for bad in (264, -248, 8.5)
        ),
        ("a dot", "not yet, an answer of type str: 'a dot' is no image; expected"),
        (explorer, "right."),  # what stands on the pad
        (20, "not yet: 2,413 nats, too few; ink in 204 pixels"),
    ):
        explorers_exercise(3, image)
        judged = capsys.readouterr().out
        assert judged.startswith(f"Exercise 3: {said}"), judged


def test_exercise_4_of_the_explorer_says_which_scanner_is_not_found(explorers_exercise, capsys):
    """And that it is the wrong way round; the turns themselves are not given away."""

    def seen(*found):  # one answer for each scanner
        answers = iter(found)
        explorers_exercise(4, lambda scans: next(answers), "return ...", "return answer(scans)")
        return capsys.readouterr().out.removeprefix("Exercise 4: ")

    assert seen(270, 90) == seen(torch.tensor(270), 90.0) == "right.\n"
    first, second = "scanner 1: 90 degrees, the wrong way round", "scanner 2: 180 degrees, not what it does"
    assert seen(90, 180).startswith(f"not yet: {first}; {second}. Hint: Which")
    assert seen(90, 90).startswith(f"not yet: {first}. Hint")
    for odd in (0, None, "90", (90,)):
        assert seen(odd, 90).startswith(f"not yet: {odd}: expected 90, 180 or 270, as a number. Hint"), odd


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (("more", 2797), "right."),
        (("fewer", 2800.0), "not yet: fewer: what does a term gain when its z becomes 0. Hint"),
        (("More", "2797"), "right."),
        (("more", 0), "not yet: 0 nats at k = 0, too few. Hint"),
        (("more", 2900), "not yet: 2,900 nats at k = 0, too many. Hint"),
        ((True, 2797), "not yet, an answer of type tuple (bool, int): 'true': expected the word more, or fewer. Hint"),
        ((2797, "more"), "not yet, an answer of type tuple (int, str): '2797': expected the word more, or fewer. Hint"),
    ],
)
def test_exercise_2_of_the_explorer_asks_for_a_word_and_a_number(answer, said, explorers_exercise, capsys):
    explorers_exercise(2, answer, "(change, nats_at_0)")
    assert capsys.readouterr().out.startswith(f"Exercise 2: {said}")
