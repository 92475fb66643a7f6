"""The command line: a function a command, which adds its options and returns what runs it.

Each imports what it needs when it is named: ``nicelib --help`` does not wait for torch.
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import nicelib
from nicelib.errors import InputError, as_path, at_least, cause

Run = Callable[[argparse.Namespace], None]


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for bad input, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    # Hyphen and underscore are one in a flag's name: --batch_size is --batch-size.
    argv = [a.split("=")[0].replace("_", "-") + a[len(a.split("=")[0]) :] if a.startswith("--") else a for a in argv]
    talk = logging.getLogger("matplotlib")
    quiet, talk.disabled = talk.disabled, True  # of a home that cannot be written, say
    with _printable(sys.stdout):
        try:
            try:
                args = _parser(*argv[:1]).parse_args(argv)
                import torch  # a command has imported it by now, but --help does not come here

                with torch.random.fork_rng(devices=[]):
                    args.run(args)
            finally:
                talk.disabled = quiet
                if sys.stdout and not isinstance(sys.exc_info()[1], OSError):  # which says more than a second one
                    sys.stdout.flush()
        except InputError as error:
            return _say(f"error: {error}", 2)
        except KeyboardInterrupt as stop:
            return _say(str(stop) or "stopped", 130)
        except OSError as stop:  # the reader of a pipe has gone, or what is printed to is full
            _discard(sys.stdout)
            status = 141 if isinstance(stop, BrokenPipeError) else 2
            return status if status == 141 and stop.errno else _say(cause(stop), status)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            return _say(f"error: not enough memory ({cause(error)[:100]}); try smaller numbers", 2)
    return 0


def _say(text: str, status: int) -> int:
    with contextlib.suppress(OSError):  # nobody may read this either
        print(f"nicelib: {text}", file=sys.stderr)
    return status


@contextlib.contextmanager
def _printable(stream: Any) -> Iterator[None]:
    """What the stream's encoding lacks is printed as an escape, as on stderr; the stream is left as it was."""
    before, change = getattr(stream, "errors", None), getattr(stream, "reconfigure", lambda **how: None)
    change(errors="backslashreplace")
    try:
        yield
    finally:
        change(errors=before)


def _discard(stream: Any) -> None:
    """Drop what a stream that takes no more still holds, and leave it as it was."""
    with contextlib.suppress(AttributeError, OSError, ValueError), open(os.devnull, "wb") as nowhere:
        file, kept = stream.fileno(), os.dup(stream.fileno())
        os.dup2(nowhere.fileno(), file)
        stream.flush()
        os.dup2(kept, file)
        os.close(kept)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # one line, without the long usage
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def _parser(*named: str) -> argparse.ArgumentParser:
    """Every command; where some are ``named``, the others have no options."""
    parser = _Parser(prog="nicelib", description="NICE (Dinh, Krueger, Bengio 2014), step by step.")
    parser.add_argument("--version", action="version", version=f"nicelib {nicelib.__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for add in (_train, _evaluate, _sample, _import, _summary, _bench):
        name, text = add.__name__.removeprefix("_"), add.__doc__
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if not named or name in named:
            sub.set_defaults(run=add(sub))
    return parser


def _train(sub: argparse.ArgumentParser) -> Run:
    """Train a model; write weights, a sample grid and a loss curve."""
    from torch import distributed

    from nicelib.training import RECIPES, TrainConfig, is_main_process, train

    sub.add_argument("--recipe", choices=RECIPES, help="set every value of a named recipe; flags given beside it win")
    _add_settings(sub, TrainConfig)
    sub.add_argument("--data-dir", help="data folder in torchvision's layout (default: NICE_DATA_DIR, else data)")
    sub.add_argument("--out", help="folder for the run's files (default: runs/DATASET)")
    sub.add_argument("--resume", action="store_true", help="continue the run in --out, exactly")

    def run(args: argparse.Namespace) -> None:
        joined = distributed.is_available() and distributed.is_initialized()
        config = TrainConfig(**(RECIPES.get(args.recipe, {}) | _given(args, TrainConfig)))
        out = as_path(args.out or f"runs/{config.dataset}")
        progress = bool(sys.stderr and sys.stderr.isatty())
        log, printer = logging.getLogger("nicelib"), logging.Handler(logging.INFO)
        printer.emit = lambda record: print(record.getMessage(), flush=True)  # type: ignore[method-assign]
        log.addHandler(printer)
        log.setLevel(logging.INFO)  # which precision was the fastest here
        try:
            _report(config, out, train(config, args.data_dir, out, args.resume, progress=progress))
            if is_main_process():
                _finish(config, out)
        finally:
            log.removeHandler(printer)
            if not joined and distributed.is_available() and distributed.is_initialized():
                distributed.destroy_process_group()

    return run


def _report(config: Any, out: Path, records: Any) -> None:
    """A line for each epoch of a run; whatever stops the printing stops the run in good order."""
    from nicelib.data import held_out_split
    from nicelib.training import is_main_process

    main_process, held_out = is_main_process(), held_out_split(config.dataset, config.protocol)
    onward = f"continue with the same command and --resume (checkpoints are in {out})"
    try:
        with contextlib.closing(records):
            for record in records:
                if main_process:
                    told = f"epoch {record['epoch']:4d}/{config.max_iter}  train {record['train']:8.2f} nats"
                    speed = f"{record['images_per_s']:.0f} images/s  {record['seconds']:.0f} s"
                    print(told, f"{held_out} {record['held_out']:8.2f} nats", speed, sep="  ", flush=True)
    except OSError as stop:
        reason = "nobody reads the output" if isinstance(stop, BrokenPipeError) else cause(stop)
        raise type(stop)(f"{reason}; {onward}") from stop
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{str(stop) or 'stopped'}; {onward}") from stop


def _finish(config: Any, out: Path) -> None:
    """Draw the best model's samples and the curve beside the checkpoints."""
    import torch
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from nicelib.checkpoints import as_file, load_model, write_atomically
    from nicelib.plotting import plot_history, save_images, use_style

    try:
        saved = json.loads(as_file(file := out / "history.json").read_text(encoding="utf-8"))["history"]
        history = [{key: float(record[key]) for key in ("epoch", "train", "held_out")} for record in saved]
        best = max(history, key=lambda r: r["held_out"])
    except (LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({cause(error)}); train again in another --out") from error
    generator = torch.Generator().manual_seed(config.seed)
    samples = load_model(out / "best.safetensors").sample(config.sample_size, generator=generator)
    save_images(samples, out / "samples.png")
    with rc_context():
        use_style()
        figure = Figure(figsize=(6, 3.5))
        plot_history(history, figure.subplots())
        write_atomically(out / "curve.png", lambda path: figure.savefig(path, format="png", dpi=120))
    print(f"best epoch {best['epoch']:.0f}; weights, samples.png and curve.png are in {out}")


def _evaluate(sub: argparse.ArgumentParser) -> Run:
    """Log-likelihood of held-out images, with its standard error."""
    from safetensors.torch import save_file

    from nicelib.checkpoints import load_model, write_atomically
    from nicelib.data import DATASETS, PROTOCOLS, SPLITS, load_pixels
    from nicelib.evaluation import evaluate
    from nicelib.pretrained import WEIGHTS
    from nicelib.training import resolve_device

    sub.add_argument("weights", nargs="?", default=WEIGHTS, help="what train wrote (default: the shipped weights)")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    sub.add_argument("--data-dir", help="data folder in torchvision's layout (default: NICE_DATA_DIR, else data)")
    sub.add_argument("--seed", type=_seed, default=0, help="seed of all that is drawn (default: 0)")
    sub.add_argument("--dataset", choices=DATASETS, default="mnist-sample", help="data set (default: mnist-sample)")
    sub.add_argument("--split", choices=SPLITS, default="test", help="which images (default: test)")
    sub.add_argument("--protocol", choices=PROTOCOLS, default="paper", help="how the set is split (default: paper)")
    sub.add_argument("--draws", type=int, default=10, help="dequantisation noise draws an image (default: 10)")
    sub.add_argument("--importance", type=int, default=1, help="noises inside the logarithm of each draw (default: 1)")
    sub.add_argument("--per-image", metavar="FILE", help="also write the nats of each image to a .safetensors file")

    def run(args: argparse.Namespace) -> None:
        model = load_model(args.weights).to(resolve_device(args.device))
        pixels = load_pixels(args.dataset, args.split, args.data_dir, protocol=args.protocol)
        result = evaluate(model, pixels, args.draws, args.seed, importance=args.importance)
        print(f"{args.dataset} {args.split}: {result}")
        if args.per_image:
            write_atomically(args.per_image, lambda path: save_file({"nats": result.per_image.float()}, path))
            print(f"wrote {args.per_image}")

    return run


def _sample(sub: argparse.ArgumentParser) -> Run:
    """Draw images from a model into a PNG grid."""
    import torch

    from nicelib.checkpoints import load_model
    from nicelib.plotting import save_images
    from nicelib.pretrained import WEIGHTS

    sub.add_argument("weights", nargs="?", default=WEIGHTS, help="what train wrote (default: the shipped weights)")
    sub.add_argument("--seed", type=_seed, default=0, help="seed of all that is drawn (default: 0)")
    sub.add_argument("--sample-size", type=int, default=64, help="images to generate (default: 64)")
    sub.add_argument("--temperature", type=float, default=1.0, help="scale of z; below 1, nearer the mode (default: 1)")
    sub.add_argument("--out", default="samples.png", help="file to write (default: samples.png)")

    def run(args: argparse.Namespace) -> None:
        at_least(1, sample_size=args.sample_size)
        generator = torch.Generator().manual_seed(args.seed)
        save_images(load_model(args.weights).sample(args.sample_size, args.temperature, generator), args.out)
        print(f"wrote {args.out}")

    return run


def _import(sub: argparse.ArgumentParser) -> Run:
    """Weights of another PyTorch program of NICE as a file of this one's."""
    from nicelib.checkpoints import save_model
    from nicelib.coupling import ACTIVATIONS
    from nicelib.data import load_pixels
    from nicelib.evaluation import evaluate
    from nicelib.importers import family_of, import_state_dict, read_mean, read_state_dict
    from nicelib.prior import PRIORS

    sub.add_argument("file", help="a .pt, .pth or .tar that torch.save wrote: a state dict, or a checkpoint around one")
    sub.add_argument("--out", default="model.safetensors", help="file to write (default: model.safetensors)")
    sub.add_argument("--activation", choices=ACTIVATIONS, help="the conditioners' nonlinearity (default: the family's)")
    sub.add_argument("--latent", choices=PRIORS, help="prior of the code (default: the checkpoint's, else logistic)")
    sub.add_argument("--first", choices=("odd", "even"), help="half that layer 0 keeps (default: the family's)")
    sub.add_argument("--mean", help="image their program subtracts: none, mnist, or a file (default: the family's)")
    sub.add_argument("--data-dir", help="data folder in torchvision's layout (default: NICE_DATA_DIR, else data)")

    def run(args: argparse.Namespace) -> None:
        state = read_state_dict(args.file)
        family = family_of(state)
        mean = args.mean or ("mnist" if family == "blocks" else "none")
        image = None
        if mean == "mnist":
            image = load_pixels("mnist", "train", args.data_dir, protocol="notes").double().mean(0) / 255
        elif mean != "none":
            image = read_mean(mean)
        model = import_state_dict(state, args.activation, args.latent, args.first, image)
        assumed = {"family": family, "mean": mean} | {k: model.config[k] for k in ("activation", "latent", "first")}
        save_model(model, args.out, imported=assumed)
        print(f"wrote {args.out}: {', '.join(f'{k} {v}' for k, v in assumed.items())}")
        if model.dim == 784:
            print(f"mnist-sample test: {evaluate(model, load_pixels('mnist-sample', 'test'))}")
            print("under this package's dequantisation, (pixel + u) / 256: not the number their program reports")

    return run


def _summary(sub: argparse.ArgumentParser) -> Run:
    """The architecture as torchinfo's table."""
    from torchinfo import summary

    from nicelib.model import NICE, NICEConfig

    _add_settings(sub, NICEConfig)

    def run(args: argparse.Namespace) -> None:
        rows = ["depth"]
        try:
            "├─".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        except UnicodeEncodeError:  # a redirected stream on Windows is in the code page of the machine
            rows.append("ascii_only")
        print(summary(NICE(**_given(args, NICEConfig)), (1, 784), verbose=0, row_settings=rows))

    return run


def _bench(sub: argparse.ArgumentParser) -> Run:
    """Speed of a training step, phase by phase, beside this machine's floor and the plain masked loop."""
    from nicelib.checkpoints import write_atomically
    from nicelib.training import resolve_device
    from nicelib.training.bench import bench, describe

    sub.add_argument("--rounds", type=int, default=5, help="alternations of the two (default: 5)")
    sub.add_argument("--steps", type=int, default=10, help="steps timed at a time (default: 10)")
    sub.add_argument("--batch-size", type=int, default=200, help="images a step")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    sub.add_argument("--json", metavar="FILE", help="also write what every round found")

    def run(args: argparse.Namespace) -> None:
        result = bench(resolve_device(args.device), args.rounds, args.steps, args.batch_size)
        print(*describe(result), sep="\n")
        if args.json:
            write_atomically(args.json, lambda path: path.write_text(json.dumps(result, indent=1), encoding="utf-8"))

    return run


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"seed = {text}; expected 0 to 2^32 - 1")
    return int(text)


def _number_or_none(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


_number_or_none.__name__ = "number or none"  # what argparse calls it when it complains


def _add_settings(sub: argparse.ArgumentParser, config: Any) -> None:
    """A flag for each setting but ``dim``, which the images say."""
    for item in dataclasses.fields(config)[1:]:
        default = "by the mask" if item.default is None else item.default
        sub.add_argument(
            "--" + item.name.replace("_", "-"),
            type=_number_or_none if item.name == "bound" else item.metadata["kind"],
            choices=item.metadata["choices"] or None,
            help=f"{item.metadata['help']} (default: {default})",
            default=argparse.SUPPRESS,
        )


def _given(args: argparse.Namespace, config: Any) -> dict[str, Any]:
    """The settings among the arguments that were given."""
    return {name: value for name, value in vars(args).items() if name in config.__dataclass_fields__}
