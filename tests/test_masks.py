import pytest
import torch

from nicelib import InputError, checkerboard_mask, half_mask, parity_mask
from nicelib.masks import selector


def test_first_layer_keeps_the_odd_indices():
    assert parity_mask(784).nonzero().flatten()[:3].tolist() == [1, 3, 5]


def test_the_two_choices_are_complements():
    assert torch.equal(parity_mask(10, "odd"), ~parity_mask(10, "even"))
    assert torch.equal(checkerboard_mask(4, 6, "odd"), ~checkerboard_mask(4, 6, "even"))
    assert torch.equal(half_mask(10, "first"), ~half_mask(10, "second"))


def test_parity_is_vertical_stripes_on_an_image():
    image = parity_mask(784).view(28, 28)
    assert (image == image[0]).all() and image[0, 1] and not image[0, 0]


def test_checkerboard_has_no_two_equal_neighbours():
    image = checkerboard_mask(28, 28).view(28, 28)
    assert (image[1:] != image[:-1]).all() and (image[:, 1:] != image[:, :-1]).all()


@pytest.mark.parametrize("mask", [parity_mask(12), half_mask(12), checkerboard_mask(3, 4), torch.tensor([False, True])])
def test_selector_selects_what_the_mask_does(mask):
    x = torch.rand(3, len(mask))
    assert torch.equal(x[:, selector(mask)], x[:, mask])
    assert isinstance(selector(parity_mask(784)), slice) and isinstance(selector(half_mask(784)), slice)


@pytest.mark.parametrize(
    "call",
    [
        lambda: parity_mask(7),
        lambda: parity_mask(0),
        lambda: parity_mask(-2),
        lambda: parity_mask(4, "left"),
        lambda: half_mask(5),
        lambda: half_mask(4, "odd"),
        lambda: checkerboard_mask(3, 3),
        lambda: checkerboard_mask(0, 4),
        lambda: checkerboard_mask(2, 2, "first"),
    ],
)
def test_bad_input_is_named(call):
    with pytest.raises(InputError, match="expected"):
        call()


@pytest.mark.parametrize("size", [2**32, 10**30])
def test_what_no_memory_holds_is_refused_by_name(size):
    with pytest.raises(InputError, match=r"^dim = \d+; expected 2 or more, below 2\^32"):
        half_mask(size)


@pytest.mark.parametrize("keep", ["odd", "even"])
def test_a_board_of_one_row_or_one_column_is_the_parity_of_its_places(keep):
    for height, width in ((1, 6), (6, 1)):
        assert torch.equal(checkerboard_mask(height, width, keep), parity_mask(6, keep))
    for height, width in ((0, 6), (6, 0), (-1, 6), (6, -1)):
        with pytest.raises(InputError, match=r"(height|width) = (0|-1); expected 1 or more"):
            checkerboard_mask(height, width)


def test_two_entries_are_evenly_spaced_too():
    assert selector(torch.tensor([False, True, True, False])) == slice(1, 3, 1)
    assert selector(parity_mask(4)) == slice(1, 4, 2)
