"""PyTorch's `linear_cross_entropy` beside the project's own chunked loss: time, memory and exactness of the gradients.

`python -m benchmarks.linear_cross_entropy` (needs PyTorch 2.13) measures both on the CPU at real size, 832 caption
tokens of GPT-2 small, prints a table and writes results/linear_cross_entropy.json. A work is the mean loss and its
gradients for hidden states and weights. All arms run in turns in one process; the memory of each is measured in a
process of its own. bf16 is what the trainer does under autocast: float32 weights, products in bfloat16.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from benchmarks.arms import OwnMemory, in_a_process
from benchmarks.run import RESULTS, machine
from helpers.runtime.device import PRECISIONS, keep_freed_memory
from helpers.runtime.files import write_json
from helpers.training.loss import _SummedNats

SHAPE = (832, 768, 50_257)  # caption tokens of a batch of 64, width, vocabulary
OPTIONS: dict[str, dict[str, Any]] = {  # of torch.nn.LinearCrossEntropyOptions
    "torch, chunks auto": {},
    "torch, chunks of 128": {"batch_chunk_size": 128},
    "torch, chunks of 1024": {"batch_chunk_size": 1024},
    "torch, chunks of 1024, compact": {"batch_chunk_size": 1024, "acc_policy": "compact"},
}
ARMS = ("ours", "torch, whole", *OPTIONS)


class Work(NamedTuple):
    """hidden: [N, E] and weight: [V, E], float32 leaves that need gradients. targets: int64 [N]."""

    hidden: torch.Tensor
    weight: torch.Tensor
    targets: torch.Tensor

    @classmethod
    def random(cls, tokens: int, width: int, vocabulary: int) -> "Work":
        torch.manual_seed(0)
        hidden, weight = torch.randn(tokens, width), torch.randn(vocabulary, width) * 0.02
        targets = torch.randint(0, vocabulary, (tokens,))
        return cls(hidden.requires_grad_(), weight.requires_grad_(), targets)


def mean_loss(arm: str, work: Work, dtype: torch.dtype) -> torch.Tensor:
    """Return the mean loss in nats per token, a scalar; autocast has to be on if `dtype` is not float32.

    Autocast does not reach the chunked operation, so its inputs are cast here as autocast would cast them.
    """
    if arm == "ours":
        return _SummedNats.apply(*work) / len(work.targets)
    options = torch.nn.LinearCrossEntropyOptions(**OPTIONS[arm]) if arm in OPTIONS else None
    return F.linear_cross_entropy(work.hidden.to(dtype), work.weight.to(dtype), work.targets, options=options)


def learn(arm: str, work: Work, precision: str) -> torch.Tensor:
    """Compute the mean loss and put its gradients into the leaves; return the loss."""
    work.hidden.grad = work.weight.grad = None
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = mean_loss(arm, work, PRECISIONS[precision])
    loss.backward()
    return loss.detach()


def exact(work: Work) -> tuple[float, torch.Tensor, torch.Tensor]:
    """The mean loss and both gradients in float64, 64 tokens at a time."""
    hidden, weight = (tensor.detach().double() for tensor in work[:2])
    loss, of_hidden, of_weight = 0.0, [], torch.zeros_like(weight)
    for some, wanted in zip(hidden.split(64), work.targets.split(64), strict=True):
        logits = some @ weight.T
        loss += F.cross_entropy(logits, wanted, reduction="sum").item()
        gradient = logits.softmax(dim=1).index_put_(
            (torch.arange(len(wanted)), wanted), torch.tensor(-1.0).double(), accumulate=True
        )
        of_hidden.append(gradient @ weight)
        of_weight += gradient.T @ some
    tokens = len(work.targets)
    return loss / tokens, torch.cat(of_hidden) / tokens, of_weight / tokens


def measure(precision: str, rounds: int, shape: tuple[int, int, int]) -> dict[str, dict[str, Any]]:
    """One dict per arm: seconds, speed beside ours, growth of memory, and errors relative to float64."""
    work = Work.random(*shape)
    loss, *gradients = exact(work)
    rows = {arm: errors(arm, work, precision, loss=loss, gradients=gradients) for arm in ARMS}
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _ in range(rounds):
        for arm in ARMS:
            begun = time.perf_counter()
            learn(arm, work, precision)
            seconds[arm].append(time.perf_counter() - begun)
    for arm, row in rows.items():
        ratios = [ours / theirs for ours, theirs in zip(seconds["ours"], seconds[arm], strict=True)]
        row |= {"seconds": seconds[arm], "speed": statistics.median(ratios), "speed_spread": [min(ratios), max(ratios)]}
        row |= in_a_process("linear_cross_entropy", "--arm", arm, "--precision", precision, "--shape", *shape)
    return rows


def errors(arm: str, work: Work, precision: str, *, loss: float, gradients: list[torch.Tensor]) -> dict[str, float]:
    """Errors relative to float64: the loss's, and per gradient that of its norm and the largest of its entries."""
    row = {"loss_error": abs(learn(arm, work, precision).item() / loss - 1)}
    for name, leaf, wanted in zip(("hidden", "weight"), work[:2], gradients, strict=True):
        difference = leaf.grad - wanted
        row[f"{name}_largest"] = (difference.abs().max() / wanted.abs().max()).item()
        row[f"{name}_norm"] = (difference.norm() / wanted.norm()).item()
    return row


def memory(arm: str, precision: str, shape: tuple[int, int, int]) -> dict[str, float]:
    """GB by which this process grows at most while it computes the loss and its gradients."""
    work = Work.random(*shape)
    with torch.no_grad():  # one product, so that what PyTorch needs once is there
        work.hidden[:8] @ work.weight[:64].T
    own = OwnMemory()
    learn(arm, work, precision)
    return {"grown_gb": own.growth() / 1e9}


HEADER = ["precision", "arm", "seconds", "speed", "memory (GB)", "loss", "hidden", "weight"]


def as_markdown(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The table as README.md has it, one row per precision and arm; errors of gradients are "largest, in norm"."""
    rows = [HEADER, ["---"] * len(HEADER)]
    for precision, arms in results.items():
        for arm, row in arms.items():
            speed = "{:.2f} [{:.2f}, {:.2f}]".format(row["speed"], *row["speed_spread"])
            found = [f"{row['loss_error']:.0e}"]
            found += [f"{row[f'{name}_largest']:.0e}, {row[f'{name}_norm']:.0e}" for name in ("hidden", "weight")]
            seconds = f"{statistics.median(row['seconds']):.3f}"
            rows.append([precision, arm, seconds, speed, f"{row['grown_gb']:.2f}", *found])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns of all arms")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, help="tokens, width, vocabulary")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--arm", choices=ARMS, help="measure the memory of this arm alone")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of that arm")
    flags = parser.parse_args()
    if not hasattr(F, "linear_cross_entropy"):
        sys.exit(f"PyTorch {torch.__version__} has no linear_cross_entropy: 2.13 or newer has it")
    if flags.arm:
        print(json.dumps(memory(flags.arm, flags.precision, flags.shape)))
        return
    keep_freed_memory()  # as `choose_accelerator` does for every training
    results = {precision: measure(precision, flags.rounds, flags.shape) for precision in ("fp32", "bf16")}
    record = {"machine": machine(torch.get_num_threads()), "shape": list(flags.shape), "results": results}
    write_json(flags.out / "linear_cross_entropy.json", record)
    print(as_markdown(results))


if __name__ == "__main__":
    main()
