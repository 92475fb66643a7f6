"""What the shipped weights learnt, measured on all of MNIST and Fashion-MNIST (python results/what_it_learnt.py [PART ...]).

Needs both data sets (NICE_DATA_DIR) and about half an hour of two CPU cores; writes what_it_learnt.json beside itself, all of it
or the parts that are named. Notebook 09 asks the same questions of the 5,000 digits in the package, and quotes these figures.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nicelib import dequantise, load_digits, load_pixels, load_pretrained
from nicelib.analysis import disturb, ks_distances, rank_correlations, widest_first

model = load_pretrained().requires_grad_(False)
prior = model.prior


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codes(x: Tensor) -> Tensor:
    return torch.cat([model(part)[0] for part in x.split(1000)])


def nats(x: Tensor) -> Tensor:
    return torch.cat([model.log_prob(part) for part in x.split(1000)]).double()


def pairs(x: Tensor) -> dict[str, float]:
    """Rank correlations of all pairs of columns, by size."""
    r = rank_correlations(x)
    r = r[tuple(torch.triu_indices(len(r), len(r), 1))].abs()
    return {"above_0.1": (r > 0.1).double().mean().item(), "mean": r.mean().item(), "largest": r.max().item()}


def independence(x: Tensor, z: Tensor) -> dict:
    draws = prior.sample(tuple(z.shape), seeded())
    both = {"pixels": x, "codes": z, "draws": draws, "sizes of codes": z.abs(), "sizes of draws": draws.abs()}
    critical = 1.36 / math.sqrt(len(z))
    far = {name: ks_distances(values, prior) for name, values in (("codes", z), ("draws", draws))}
    return {
        "images": len(z),
        "pairs": z.shape[1] * (z.shape[1] - 1) // 2,
        "rank_correlations": {name: pairs(values) for name, values in both.items()},
        "not_logistic": {
            name: {
                "rejected_at_5_percent": (d > critical).double().mean().item(),
                "median_distance": d.median().item(),
                "median_width": both[name].std(0).median().item(),
            }
            for name, d in far.items()
        },
    }


def loudness(z: Tensor) -> Tensor:
    """log(0.1 + mean size) of the odd-column codes around each even-column one, within one pixel: (N, 784) -> (N, 392)."""
    odd = (torch.arange(784) % 2 == 1).view(1, 1, 28, 28).float()
    window = torch.ones(1, 1, 3, 3)
    total = F.conv2d(z.abs().view(-1, 1, 28, 28) * odd, window, padding=1)
    return (total / F.conv2d(odd, window, padding=1) + 0.1).log().flatten(1)[:, ::2]


def gain(fitted: tuple[Tensor, Tensor], measured: tuple[Tensor, Tensor], neighbours: bool, bells: int) -> dict:
    """Nats that a layer on the even columns' codes would still add: bells of several widths, told by the neighbours or not."""
    s = torch.linspace(-1, 1, bells)[:, None, None].repeat(1, 1, 392) if bells > 1 else torch.zeros(1, 1, 392)
    parameters = [s, torch.zeros(bells, 1, 392), torch.zeros(392)]
    s, weight, slope = (p.requires_grad_() for p in parameters)

    def log_prob(z: Tensor, loud: Tensor) -> Tensor:
        log_scale = s + slope * loud * neighbours
        return (prior.log_prob(z * log_scale.exp()) + log_scale + weight.log_softmax(0)).logsumexp(0).sum(1)

    optimiser = torch.optim.Adam(parameters, lr=0.05)
    order = seeded()
    for step in range(400):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / 400)
        chosen = torch.randint(len(fitted[0]), (200,), generator=order)
        loss = -log_prob(fitted[0][chosen], fitted[1][chosen]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        gained = (log_prob(*measured) - prior.log_prob(measured[0]).sum(1)).double()
    return {"nats": gained.mean().item(), "standard_error": gained.std().item() / math.sqrt(len(gained))}


def further_layer(z_validation: Tensor, z_test: Tensor) -> dict:
    fitted, measured = ((z[:, ::2], loudness(z)) for z in (z_validation, z_test))
    return {
        "what": "nats that one more layer on the codes of the even columns would add, fitted on validation, measured on test",
        "a width each": gain(fitted, measured, neighbours=False, bells=1),
        "neighbours' sizes": gain(fitted, measured, neighbours=True, bells=1),
        "three bells each": gain(fitted, measured, neighbours=False, bells=3),
        "both": gain(fitted, measured, neighbours=True, bells=3),
    }


def auroc(usual: Tensor, odd: Tensor) -> float:
    """The chance that an image of the usual kind has more nats than one of the other."""
    below = torch.searchsorted(odd.sort().values, usual)
    return (below.double() / len(odd)).mean().item()


def other_images(test: Tensor) -> dict:
    usual = nats(dequantise(test, seeded()))
    sets = {
        "digits upside down": disturb(test, turn=180),
        "digits mirrored": test.view(-1, 28, 28).flip(2).reshape(-1, 784),
        "Fashion-MNIST": load_pixels("fashion-mnist", "test"),
        "negatives": 255 - test,
        "uniform grey": torch.full((100, 784), 128, dtype=torch.uint8),
        "black": torch.zeros(1000, 784, dtype=torch.uint8),
    }
    found = {}
    for name, images in sets.items():
        these = nats(dequantise(images, seeded(1)))
        found[name] = {"nats": these.mean().item(), "auroc": auroc(usual, these)}
    black = found["black"]["nats"]
    ink = (test > 0).double().sum(1)
    found["test digits"] = {
        "nats": usual.mean().item(),
        "share_below_black": (usual < black).double().mean().item(),
        "rank_correlation_with_ink": rank_correlations(torch.stack((usual, ink + 1e-3 * torch.rand(len(ink))), 1))[
            0, 1
        ].item(),
    }
    return found


def importance(test: Tensor, total: int = 64) -> dict:
    draws = torch.stack([nats(dequantise(test, generator)) for generator in [seeded(7)] for _ in range(total)])
    bounds = {k: (draws.view(-1, k, len(test)).logsumexp(1) - math.log(k)).mean(0) for k in (1, 4, 16, 64)}
    noise = draws.std(0).mean().item()
    errors = {k: b.std().item() / math.sqrt(len(b)) for k, b in bounds.items()}
    return {
        "images": len(test),
        "noises_in_all": total,
        "nats": {str(k): b.mean().item() for k, b in bounds.items()},
        "standard_error": {str(k): e for k, e in errors.items()},
        "sd_of_one_image_over_its_noise": noise,
    }


def spectrum(train: Tensor) -> dict:
    x = dequantise(train, seeded()).double()
    pca = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0).sqrt()
    nice = math.pi / math.sqrt(3) * (-model.scaling.log_scale[widest_first(model)]).exp()
    return {
        "what": "standard deviations by rank: of NICE's dimensions before scaling, as its prior has them, and of PCA's",
        "ranks": {str(rank): [nice[rank - 1].item(), pca[rank - 1].item()] for rank in (1, 10, 100, 300, 400, 784)},
        "area_between_in_nats": (pca.log() - nice.log()).sum().item(),
    }


class Judge(nn.Module):
    """A small classifier; its 64 features are the ones that samples are judged by."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)),
            *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU()),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    @staticmethod
    def trained(x: Tensor, labels: Tensor, epochs: int = 3) -> "Judge":
        torch.manual_seed(0)
        judge = Judge()
        optimiser = torch.optim.Adam(judge.parameters(), lr=1e-3)
        for _ in range(epochs):
            for chosen in torch.randperm(len(x)).split(100):
                loss = F.cross_entropy(judge(x[chosen]), labels[chosen])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        return judge.requires_grad_(False)


def frechet(a: Tensor, b: Tensor) -> float:
    """The distance of two clouds of features, each taken for a Gaussian."""
    a, b = a.double(), b.double()
    product = torch.linalg.eigvals(torch.cov(a.T) @ torch.cov(b.T)).real.clamp_min(0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + a.var(0).sum() + b.var(0).sum() - 2 * product).item()


def samples(x_train: Tensor, labels: Tensor, x_test: Tensor, test_labels: Tensor) -> dict:
    judge = Judge.trained(x_train, labels)
    real = torch.cat([judge.features(part) for part in x_test.split(1000)])
    found = {
        "judge_accuracy": (judge.head(real).argmax(1) == test_labels).double().mean().item(),
        "frechet_of_10000_training_digits": frechet(judge.features(x_train[:10_000]), real),
        "shares_of_real_digits": (torch.bincount(test_labels, minlength=10) / len(test_labels)).tolist(),
        "confident_about_real_digits": (judge.head(real).softmax(1).amax(1) > 0.9).double().mean().item(),
        "temperatures": {},
    }
    for temperature in (0.3, 0.5, 0.7, 0.85, 1.0, 1.15, 1.3):
        x = torch.cat([model.sample(1000, temperature, seeded(i)) for i in range(10)])
        features = judge.features(x.clamp(0, 1))
        chances = judge.head(features).softmax(1)
        sure, digit = chances.max(1)
        found["temperatures"][str(temperature)] = {
            "nats": nats(x).mean().item(),
            "frechet": frechet(features, real),
            "confident": (sure > 0.9).double().mean().item(),
            "shares": (torch.bincount(digit, minlength=10) / len(x)).tolist(),
            "shares_of_confident": (torch.bincount(digit[sure > 0.9], minlength=10) / (sure > 0.9).sum()).tolist(),
        }
    return found


def main() -> None:
    train, labels = load_digits("mnist", "train")
    validation, (test, test_labels) = load_pixels("mnist", "validation"), load_digits("mnist", "test")
    x_test = dequantise(test, seeded())
    parts = {
        "independence": lambda: independence(x_test, codes(x_test)),
        "further_layer": lambda: further_layer(codes(dequantise(validation, seeded(1))), codes(x_test)),
        "other_images": lambda: other_images(test),
        "spectrum": lambda: spectrum(train),
        "samples": lambda: samples(dequantise(train, seeded()), labels, x_test, test_labels),
        "importance": lambda: importance(test),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", help=f"one or more of {', '.join(parts)} (default: all)")
    wanted = parser.parse_args().part or list(parts)
    path = Path(__file__).with_suffix(".json")
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in wanted:
        record[name] = {"torch": torch.__version__} | parts[name]()
        print(name, json.dumps(record[name], indent=1), flush=True)
        short = json.loads(json.dumps(record), parse_float=lambda v: float(f"{float(v):.6g}"))
        path.write_text(json.dumps(short, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
