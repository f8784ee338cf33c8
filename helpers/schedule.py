"""The learning rate as a pure function of the step, used by the trainer and by the plot."""


def lr_at(step: int, total_steps: int, peak: float, warmup: float = 1 / 3) -> float:
    """A triangle: linear from 0 up to `peak` over the first `warmup` share of the steps, then linear down to 0.

    `step` counts from 0 and the value is absolute, never a factor on another learning rate. The first step already
    trains at `peak / warm-up steps`, and only `total_steps` itself, after the last step, is 0. A third of the way up
    is the original's shape (`LRWarmup` in its utils/lr_warmup.py).
    """
    warmup_steps = max(1, round(total_steps * warmup))
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps + 1))
