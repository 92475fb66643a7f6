"""Files: written whole or not at all, read without running code, refused when a tensor has changed."""

import errno
import hashlib
import itertools
import json
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nicelib.errors import InputError, as_path, cause, shown
from nicelib.model import NICE

PATIENCE = 10.0  # seconds that a pipe may be without a reader


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call ``write(temporary path)``, then put the finished file in place of ``path`` in one step.

    A link is followed to its file; into a pipe or a device the finished file is copied.

    Raises:
        InputError: the file cannot be written (disk full, no such folder, ...); an earlier file is left as it was.
    """
    path = as_path(path)
    if not path.name or os.path.isdir(path):
        raise InputError(f"could not write {str(path)!r}: that is a folder; give the file a name")
    special = os.path.exists(path) and not os.path.isfile(path)
    path = path if special else Path(os.path.realpath(path))  # /dev/stdout leads to a name that no folder has
    folder = Path(tempfile.gettempdir()) if special else path.parent
    temporary = folder / f"{path.name[:50]}.{os.getpid()}.{threading.get_ident()}.tmp"  # its own, if two write at once
    try:
        temporary.touch()
        mode = stat.S_IMODE((temporary if special or not path.exists() else path).stat().st_mode)
        write(temporary)
        if special:
            with open(temporary, "rb") as source, os.fdopen(_open_special(path), "wb") as target:
                shutil.copyfileobj(source, target)
            return
        with open(temporary, "r+b") as file:  # Windows flushes only what it may write
            os.fsync(file.fileno())
        os.chmod(temporary, mode)  # what safetensors writes is for its owner alone
        os.replace(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch.save and safetensors raise the last two
        reason = getattr(error, "strerror", None) or cause(error)
        raise InputError(
            f"could not write {path} ({reason}); what was there before is untouched: "
            "free some space, or choose another place"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _open_special(path: Path) -> int:
    """Open a pipe or a device for writing; a pipe that nobody reads is an error after :data:`PATIENCE`."""
    end, at_once = time.monotonic() + PATIENCE, getattr(os, "O_NONBLOCK", 0)  # Windows has none
    while True:
        try:
            file = os.open(path, os.O_WRONLY | at_once)
            if at_once:
                os.set_blocking(file, True)
            return file
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > end:
                raise
            time.sleep(0.05)


def as_file(path: Any) -> Path:
    """The path of a file to read; :class:`InputError` for a folder, a pipe or a device, which may never end."""
    if os.path.exists(path := as_path(path)) and not os.path.isfile(path):
        raise InputError(f"{path} cannot be read (it is a folder or a device); name a file")
    return path


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents; InputError where that cannot be."""
    try:
        (folder := as_path(path)).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"could not create the folder {path} ({error.strerror}); choose another place") from error
    return folder


def checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of tensors by name, in hexadecimal: neither safetensors nor torch.load notices a flipped bit in them."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def unwrap(model: nn.Module) -> NICE:
    """The NICE inside torch.compile's or data parallelism's wrapper, or the model itself; InputError where there is none."""
    inner: Any = model
    while not isinstance(inner, NICE):
        inner = getattr(inner, "_orig_mod", getattr(inner, "module", None))
        if inner is None:
            raise InputError(f"model of type {type(model).__name__}; expected a NICE")
    return inner


def check_config(model: NICE) -> None:
    """Raise :class:`InputError` where a layer, a mask or the prior is not what ``model.config`` builds."""
    try:
        with torch.device("meta"):
            twin = NICE(**model.config)
    except TypeError as error:
        raise InputError(f"the model's config is {model.config!r}; expected the dictionary that NICE made") from error
    parts = lambda m: [*repr(m).splitlines(), *(f"{k} {tuple(t.shape)}" for k, t in m.state_dict().items())]  # noqa: E731
    for mine, theirs in itertools.zip_longest(parts(model), parts(twin), fillvalue="nothing"):
        if mine != theirs:
            raise InputError(
                f"the model has {mine.strip()} where its config builds {theirs.strip()}; "
                "build it by NICE's own arguments: only what they say is saved"
            )
    model.check_masks(model.state_dict())


def save_model(model: nn.Module, path: str | Path, dtype: torch.dtype | None = None, **header: object) -> None:
    """Write weights and buffers as safetensors, the architecture and ``header`` (JSON values) in the file's header.

    Args:
        model: a NICE, torch.compile's or data parallelism's wrapper around it or not.
        dtype: store floating-point tensors so (``torch.float16`` halves the file); default: as they are.

    Raises:
        InputError: the file cannot be written; a model that is not what its ``config`` says, or not finite; a header
            that is not JSON.
    """
    model = unwrap(model)
    check_config(model)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InputError(f"dtype = {shown(dtype)}; expected a floating-point one, such as torch.float16")
    tensors = {
        name: (t.to(dtype) if dtype and t.is_floating_point() else t).contiguous()
        for name, t in model.state_dict().items()
    }
    _check_finite(tensors)
    metadata = {"format": "nicelib", "config": json.dumps(model.config)}
    for key, value in header.items():
        try:
            text = json.dumps(value, default=lambda number: number.tolist())  # numpy's and torch's
        except (AttributeError, TypeError, ValueError):
            text = ""
        if not text or key in (*metadata, "sha256"):
            raise InputError(f"{key} = {shown(value)} for the header; expected JSON values under names of their own")
        metadata[key] = text
    metadata["sha256"] = _seal(tensors, metadata)
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def _check_finite(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not tensor.float().isfinite().all():
            raise InputError(f"{name} holds NaN or infinity; expected finite weights")


def _seal(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """A checksum over the header too: a flipped bit in the bound of an affine layer would change every number."""
    text = json.dumps({key: value for key, value in metadata.items() if key != "sha256"}, sort_keys=True)
    return checksum(tensors | {"header": torch.tensor(list(text.encode()), dtype=torch.uint8, device="cpu")})


def read_header(path: str | Path) -> dict:
    """The header of a weights file: ``config`` and whatever :func:`save_model` was given.

    Raises:
        InputError: no such file, or not a weights file of nicelib.
    """
    path = as_file(path)
    try:
        open(path, "rb").close()  # safetensors calls every file that it cannot open "not found"
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != "nicelib":
            raise ValueError("its header does not say nicelib")
        return {key: json.loads(value) for key, value in metadata.items() if key not in ("format", "sha256")}
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"no weights file {path}; train a model first (nicelib train)") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or cause(error)}); name another file") from error
    except (RecursionError, SafetensorError, ValueError) as error:
        raise InputError(f"{path} is not a weights file of nicelib, or is damaged ({error})") from error


@torch.inference_mode(False)
def load_model(path: str | Path) -> NICE:
    """Build the model that a weights file holds, in float32 on the CPU.

    Raises:
        InputError: no such file; not a weights file of nicelib; weights that do not fit their own header.
    """
    config: Any = read_header(path).get("config")
    path = as_path(path)
    try:
        with torch.device("cpu"), safe_open(path, "pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
        # files written before the header was sealed have the tensors' checksum alone
        if metadata.get("sha256") not in (_seal(tensors, metadata), checksum(tensors)):
            raise InputError("their checksum is wrong: the file is damaged")
        _check_finite(tensors)
        with torch.device("meta"):  # no random number is drawn, whatever torch's defaults are
            model = NICE(**config)
        model = model.float().to_empty(device="cpu")
        model.load_state_dict(tensors)
    except (TypeError, RuntimeError, SafetensorError, InputError) as error:
        reason = cause(error)[:300]
        raise InputError(f"the weights in {path} do not fit the architecture in its header ({reason})") from error
    return model
