"""The contract every layer keeps: an invertible map of ``(B, D)`` vectors with a known log-determinant."""

from torch import Tensor, nn

from nicelib.errors import InputError


class Bijection(nn.Module):
    """An invertible map of D-dimensional vectors.

    Every layer of the flow offers the same two methods and nothing else:

    ``forward(x: (B, D)) -> (y: (B, D), log_det: (B,))`` with ``log_det = log |det dy/dx|`` in nats, and
    ``inverse(y: (B, D)) -> x: (B, D)``.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def inverse(self, y: Tensor) -> Tensor:
        """y (B, D) -> x (B, D)."""
        raise NotImplementedError

    def check(self, x: Tensor) -> None:
        """Raise :class:`InputError` unless ``x`` is a floating-point batch of shape (B, dim)."""
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise InputError(
                f"{type(self).__name__} got a tensor of shape {tuple(x.shape)}; expected (B, {self.dim}): "
                "flatten each image to one row"
            )
        if not x.is_floating_point():
            raise InputError(
                f"{type(self).__name__} got dtype {x.dtype}; expected floating-point values: "
                "dequantise integer pixels first (nicelib.dequantise)"
            )
