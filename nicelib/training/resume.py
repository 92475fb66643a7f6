"""The files of a run: a folder of its own, and ``resume.pt``, from which it goes on to the same numbers."""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import torch

from nicelib.checkpoints import as_file, checksum, make_folder, write_atomically
from nicelib.errors import InputError, cause
from nicelib.training.settings import TrainConfig

# These do not change the numbers; "machine" tells cpu from cuda.
FREE = {"cuda_graph", "device", "save_every", "sample_size"}
_claims: dict[Path, IO[bytes]] = {}  # the folders that this process writes to


@contextlib.contextmanager
def claim(out: Path | None) -> Iterator[Callable[[], None]]:
    """Keep every other process out of a run's folder, until the block ends or this process does.

    A run that this process left unfinished gives the folder up, and must write no more: what is yielded raises then.

    Raises:
        InputError: another process is writing there; the folder cannot be made.
    """
    if not out:
        yield lambda: None
        return
    path = make_folder(out).resolve() / ".lock"
    if path in _claims:
        _claims.pop(path).close()
    while True:
        try:
            file = _claims[path] = open(path, "ab")
        except OSError as error:
            raise InputError(f"could not write to {out} ({error.strerror}); choose another --out") from error
        try:
            _lock(file)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break  # else its last owner has just deleted it
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):  # a network's folder may know no locks
                break
            _claims.pop(path).close()
            raise InputError(f"{out} is taken: another run is writing there; wait, or choose another --out") from error
        file.close()
    for left_behind in path.parent.glob("*.[0-9]*.tmp"):  # half a file of a run that was killed
        with contextlib.suppress(OSError):
            left_behind.unlink()

    def check() -> None:
        if _claims.get(path) is not file:
            raise InputError(f"{out} belongs to a later run of this program; go on there with resume or choose another")

    try:
        yield check
    finally:
        if _claims.get(path) is file:
            del _claims[path]
            with contextlib.suppress(OSError):  # Windows deletes no open file
                path.unlink()
        file.close()


def _lock(file: IO[bytes]) -> None:
    """Lock an open file for this process, or raise OSError; the lock ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_resume(out: Path, content: dict[str, Any]) -> None:
    """Write ``resume.pt`` in one step, with a checksum over all of it."""
    content = content | {"sha256": _checksum(content)}
    write_atomically(out / "resume.pt", lambda temporary: torch.save(content, temporary))


def read_resume(out: Path | None, run: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """What ``resume.pt`` in ``out`` holds, or None where a run begins; ``run`` says what must be the same.

    Raises:
        InputError: a folder that holds a run and no ``resume``; a file that is damaged or of another run.
    """
    if not out:
        return None
    if not resume and any((out / name).exists() for name in ("resume.pt", "history.json", "best.safetensors")):
        raise InputError(f"{out} already holds a run; add --resume to continue it, or choose another --out")
    path = out / "resume.pt"
    if not path.exists():
        return None
    saved, before = _load(path)
    now = run["config"] | run["model_config"] | {"machine": run["machine"]}
    before |= {k: now[k] for k in (*FREE, *["precision"] * (now["precision"] == "auto"))}  # as it was measured
    changed = [f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in before | now if before.get(k) != now.get(k)]
    if changed:
        raise InputError(f"{path} is of a run with other settings ({'; '.join(changed)}); use those, or another --out")
    return saved


def _load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of a resume file, and the settings of its run."""
    try:
        saved = torch.load(as_file(path), map_location="cpu", weights_only=True)
        if not isinstance(saved, dict):
            raise TypeError("it does not hold a dictionary")
        if saved["sha256"] != _checksum(saved):
            raise ValueError("its checksum is wrong")
        # Files written before a setting existed have its default.
        before = asdict(TrainConfig()) | saved["config"] | saved["model_config"] | {"machine": saved["machine"]}
    except PermissionError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); ask its owner, or choose another --out") from error
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError, KeyError, AssertionError, ...
        raise damaged(path, error) from error
    return saved, before


def damaged(path: Path, error: Exception) -> InputError:
    """The error for a resume file whose content makes no sense."""
    reason = cause(error)[:120]
    return InputError(f"{path} is not a resume file of nicelib, or is damaged ({reason}); delete it to begin again")


def _checksum(content: dict[str, Any]) -> str:
    parts = {f"model.{name}": t for name, t in content["model"].items()}
    for index, moments in content["optimiser"]["state"].items():
        parts |= {f"optimiser.{index}.{name}": t for name, t in moments.items()}
    rest = [content[name] for name in ("config", "machine", "model_config", "state", "scheduler")]
    text = json.dumps([*rest, content["optimiser"]["param_groups"]], sort_keys=True)
    parts["text"] = torch.tensor(list(text.encode()), dtype=torch.uint8, device="cpu")
    return checksum(parts | {"losses": content["losses"]})
