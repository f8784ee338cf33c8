"""How a run goes, written down for all who watch: history, sample captions, figure, progress bar, tracker."""

from collections.abc import Callable
from typing import Any

import pandas as pd
from accelerate import Accelerator
from tqdm import tqdm

from .accelerator import used_memory
from .batches import CaptionBatches
from .plotting import plot_loss_and_lr, save_figure
from .runs import Run
from .writer import CaptionWriter

SAMPLES = 4  # validation pictures that are captioned at every validation


class Logbook:
    """Of the main process; in the others every method does nothing."""

    def __init__(
        self, run: Run, accelerator: Accelerator, bar: tqdm, watch: Callable[[pd.DataFrame], None] | None
    ) -> None:
        self.run, self.accelerator, self.bar, self.watch = run, accelerator, bar, watch

    def write(self, row: dict[str, Any]) -> None:
        """A row of the history: to the file, the bar, the tracker and whoever watches."""
        if not self.accelerator.is_main_process:
            return
        self.run.append(row)
        self.bar.set_postfix(
            loss=f"{row['loss']:.3f}",
            captions_per_s=f"{row['captions_per_second']:.0f}",
            memory=f"{used_memory(self.accelerator.device):.1f}GB",
        )
        self.accelerator.log({name: value for name, value in row.items() if value is not None}, row["step"])
        if self.watch:
            self.watch(self.run.history())

    def write_samples(self, step: int, writer: CaptionWriter, held_out: CaptionBatches) -> None:
        """What the captioner makes of the same few validation pictures now, and the figure so far."""
        if not self.accelerator.is_main_process:
            return
        writer.captioner.eval()
        captions = writer.write(held_out.embeddings[:SAMPLES])
        writer.captioner.train()
        self.run.append_samples(step, dict(zip(held_out.image_names, captions, strict=False)))
        save_figure(plot_loss_and_lr(self.run.history()), self.run.figure)
