"""The sections of gpu.py. Each yields rows: measure, precision, ours, and if there is one baseline, ratio and spread.

Our arms compute in float32 and in the precision that `choose_accelerator` takes for the card; the baselines compute in
float32, as the original did. All arms of a section take turns in one process, and a ratio is the median over the turns,
with its smallest and largest value. PyTorch's TF32 stays off, as it is by default.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from benchmarks import baselines, gpu_data, limit, models
from benchmarks.arms import TOKENS, make_learner
from benchmarks.gpu_timing import Row, chosen, in_turns, peak_memory, precisions, reached_by_products, speed, timed
from helpers.config import Config
from helpers.data.batches import Batch
from helpers.data.build_cache import build_cache
from helpers.encoders.vision import ImageEncoder
from helpers.models.captioner import Captioner
from helpers.presets import preset
from helpers.runtime.device import PRECISIONS, device_memory, use_threads_for
from helpers.training.estimate import Plan
from helpers.training.loop import train
from helpers.training.packing import pack
from helpers.training.run import Run

CAPTIONS = 64  # per training step and per batch of written captions
PREFIX = 4


@dataclass(frozen=True)
class Scale:
    """The size of everything that is measured."""

    sizes: dict[str, str]  # of the models that stand for each preset, names in models.GPT2
    turns: int  # of all arms
    steps: int  # per arm and turn
    side: int  # of the square matrices whose product shows what the card reaches
    looped: int  # pictures that the baselines caption and embed one at a time, per turn
    photos: int
    run_steps: int  # of a whole training


REAL = Scale({"small": "small", "large": "medium"}, turns=8, steps=5, side=8192, looped=8, photos=1024, run_steps=400)
TINY = Scale({"small": "tiny", "large": "tiny"}, turns=2, steps=2, side=256, looped=2, photos=40, run_steps=8)


def card() -> dict[str, Any]:
    """Return the card's name and memory, the choice of precision with its reason, and the versions."""
    choice = chosen()
    name = torch.cuda.get_device_name(0) if choice.device.type == "cuda" else choice.device.type
    return {
        "name": name,
        "memory (GB)": round(device_memory(choice.device), 1),
        "chosen": str(choice),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def training_step(name: str, scale: Scale, _work: Path) -> Iterator[Row]:
    """Captions per second, memory and share of the roofline of a training step, beside the original's padded step."""
    size, device = scale.sizes[name], chosen().device
    stream, arms, memory = models.batches(size, CAPTIONS), {}, {}
    warm_up = [next(stream) for _ in range(3)]
    for arm in ("baseline", *precisions()):  # best last: an Accelerator follows the precision of the newest one

        def begin(arm: str = arm) -> None:
            arms[arm] = step_of(arm, size, device)
            for batch in warm_up:
                arms[arm](batch)

        memory[arm] = peak_memory(device, begin)
    batches = [next(stream) for _ in range(scale.turns * scale.steps)]
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for start in range(0, len(batches), scale.steps):
        for arm, step in arms.items():
            some = batches[start : start + scale.steps]
            seconds[arm].append(timed(device, lambda step=step, some=some: [step(batch) for batch in some]))
    for arm in precisions():
        yield speed("captions/s", arm, {key: seconds[key] for key in (arm, "baseline")}, items=CAPTIONS * scale.steps)
    for arm in precisions():
        for measure, ours in memory[arm].items():
            baseline = memory["baseline"][measure]
            ratio = ours / baseline if baseline else None
            yield {"measure": measure, "precision": arm, "ours": ours, "baseline": baseline, "ratio": ratio}
    packed = [pack(batch, PREFIX) for batch in batches]
    products = [limit.step_products(size, each.tokens.numel(), len(each.targets), prefix=PREFIX) for each in packed]
    operations = sum(2 * a * b * c * times for each in products for (a, b, c), times in each.items()) / len(batches)
    for arm in precisions():
        reached = reached_by_products(device, PRECISIONS[arm], scale.side)
        rate = operations * scale.steps / statistics.median(seconds[arm])
        share = f"{rate / reached:.1%} of {reached / 1e12:.3g} TFLOP/s"
        yield {"measure": "products, of what bare ones reach", "precision": arm, "ours": share}


def step_of(arm: str, size: str, device: torch.device) -> Callable[[Batch], object]:
    """Return a training step on the card: the baseline's, or ours in the precision that `arm` names."""
    if arm == "baseline":
        return baselines.padded_step(captioner_on(device, size, activation="gelu_new"))
    config = Config(mapper_lr=1e-4, gpt2_lr=1e-4, epochs=1, prefix_length=PREFIX, precision=arm)
    learner = make_learner(captioner_on(device, size), config, total=1000, device=device.type)
    return lambda batch: learner.learn(batch, 10)


def captioner_on(device: torch.device, size: str, **choices: Any) -> Captioner:
    """Build a captioner on that device; a small one on a CPU computes on one thread, as those that are loaded do."""
    captioner = models.captioner(size, prefix=PREFIX, **choices)
    use_threads_for(captioner.num_parameters())
    return captioner.to(device)


def plan_and_truth(name: str, scale: Scale, work: Path) -> Iterator[Row]:
    """The rehearsal's estimate of a step and of memory, beside those of the training that follows."""
    config, run = whole_run(name, scale, work, out="uncut")
    plan, speeds = Plan.read(run.plan_file), run.history().captions_per_second[1:]
    taken = config.batch_size / speeds.median()
    shown = [("seconds per step", plan.step_seconds, taken)]
    if torch.cuda.is_available():
        shown.append(("GB at the peak", plan.memory_gb, torch.cuda.max_memory_reserved() / 1e9))
    for what, planned, true in shown:
        measure = f"{what} in {scale.run_steps} steps: planned, true, planned / true"
        yield {"measure": measure, "ours": f"{planned:.3g}, {true:.3g}", "ratio": planned / true}
    yield {"measure": "captions/s in a whole training", "ours": speeds.median()}


def whole_run(name: str, scale: Scale, work: Path, *, out: str, max_steps: int | None = None) -> tuple[Config, Run]:
    """Train a captioner in `work`/`out`, or go on with it, on photos with random captions; return config and run."""
    clip, gpt2 = gpu_data.pair(work, scale.sizes[name])
    epochs, total = 4, scale.run_steps
    config = preset(name).with_values(
        clip=clip, gpt2=gpt2, epochs=epochs, batch_size=CAPTIONS, eval_every=total, log_every=total // 8
    )
    names = gpu_data.embedded(work, clip, min(scale.photos, 512))
    captions = gpu_data.captions_table(names, train=CAPTIONS * total // epochs, val=CAPTIONS)
    return config, train(config, captions, work / "cache", out=work / out, resume=True, max_steps=max_steps)


def cut_and_resumed(name: str, scale: Scale, work: Path) -> Iterator[Row]:
    """Compare the captioner of a run that is cut in the middle and resumed with that of an uncut run."""
    uncut = whole_run(name, scale, work, out="uncut")[1]  # the section before has made it
    for steps in (scale.run_steps // 2, None):
        cut = whole_run(name, scale, work, out="cut", max_steps=steps)[1]
    verdict = difference(uncut, cut)
    if verdict != EQUAL:  # either the run or the card does not repeat itself
        verdict += f"; a second uncut run: {difference(uncut, whole_run(name, scale, work, out='again')[1])}"
    yield {"measure": f"captioner after {scale.run_steps // 2} + {scale.run_steps // 2} steps", "ours": verdict}


EQUAL = "equal to the bit"


def difference(one: Run, two: Run) -> str:
    """Return in words how far the captioners of two runs are apart."""
    files = [run.captioner / "model.safetensors" for run in (one, two)]
    if files[0].read_bytes() == files[1].read_bytes():
        return EQUAL
    tensors, others = map(load_file, files)
    apart = {key: (tensors[key].double() - others[key].double()).abs().max().item() for key in tensors}
    worst, number = max(apart, key=apart.__getitem__), sum(value > 0 for value in apart.values())
    return f"{number} of {len(apart)} tensors differ, by at most {apart[worst]:.2g} ({worst})"


def captions(name: str, scale: Scale, _work: Path) -> Iterator[Row]:
    """Captions per second in batches, greedy and by beam search, beside one picture at a time without a cache."""
    size, device = scale.sizes[name], chosen().device
    embeddings = torch.randn(CAPTIONS, models.width(size), generator=torch.Generator().manual_seed(0)).to(device)
    looped = captioner_on(device, size, activation="gelu_new").eval()
    writers = {arm: captioner_on(device, size).eval().to(PRECISIONS[arm]) for arm in precisions()}
    for captioner in writers.values():
        captioner.generation_config.eos_token_id = None  # every caption gets all its tokens, as in the loops
    for what, beams, loop in (("greedy", 1, baselines.greedy_loop), ("5 beams", 5, baselines.beam_loop)):
        choices = {"num_beams": beams, "max_new_tokens": TOKENS, "do_sample": False}
        arms = {arm: partial(each.generate, embeddings, **choices) for arm, each in writers.items()}
        arms["baseline"] = lambda loop=loop: [loop(looped, row, TOKENS) for row in embeddings[: scale.looped, None]]
        seconds = in_turns(device, arms, turns=max(2, scale.turns // 2))
        for arm in writers:
            yield speed(f"captions/s, {what}, {TOKENS} tokens", arm, seconds, items=CAPTIONS, looped=scale.looped)


def photos(name: str, scale: Scale, work: Path) -> Iterator[Row]:
    """Photos per second into a cache, JPEG decoding included, and for prepared pixels alone."""
    size, device = scale.sizes[name], chosen().device
    folder, processor = work / "photos", gpu_data.image_processor(size)
    names = gpu_data.photos(folder, scale.photos)
    clips = {
        arm: ImageEncoder(models.vision_tower(size).to(device, PRECISIONS[arm]), processor, arm) for arm in precisions()
    }
    looped = names[: 4 * scale.looped]
    with tempfile.TemporaryDirectory() as caches:

        def embed(clip: ImageEncoder) -> None:
            build_cache(tempfile.mkdtemp(dir=caches), folder, names, clip=clip)

        arms = {arm: lambda clip=clip: embed(clip) for arm, clip in clips.items()}
        arms["baseline"] = lambda: [
            baselines.embed_one(clips["fp32"].vision, processor, folder / each) for each in looped
        ]
        seconds = in_turns(device, arms, turns=2)
    for arm in clips:
        yield speed("photos/s from JPEG into a cache", arm, seconds, items=len(names), looped=len(looped))
    pixels = torch.randn(32, 3, processor.crop_size["height"], processor.crop_size["width"])
    prepared = {arm: lambda clip=clip: [clip.see(pixels) for _ in range(4)] for arm, clip in clips.items()}
    for arm, each in in_turns(device, prepared, turns=scale.turns).items():
        yield {"measure": "photos/s from prepared pixels", "precision": arm, "ours": 128 / statistics.median(each)}
