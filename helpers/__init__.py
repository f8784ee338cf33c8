"""CLIPxGPT Captioner: a frozen CLIP and a partially frozen GPT-2, connected by a small mapping module.

The rooms, from the bottom up; imports point down only:

    errors, config      one-line mistakes; one training run in one frozen object
    presets             five of them to start from
    runtime             device and threads, atomic files and locks, Kaggle's inputs
    words               words for people and things, captions as words, captions without words for gender
    encoders            the frozen image encoder: CLIP, SigLIP, DINOv2, ViT, EfficientNet-Lite
    language            the language model: GPT-2, Llama-like, OPT, GPT-Neo and others; its tokenizer; freezing
    models              loading, mapping modules, the captioner, decoding, the writer of captions
    plots               figures from plain tables
    captions            captions files and splits of every kind
    data                pictures, the drawn world, the embedding cache, batches
    training            packing, loss, optimizer step, checkpoints, the run folder, the loop
    analysis            failures by kind, a look inside the captioner, probing, copying
    evaluation          scores with intervals, controls, what the picture tells
    experiments         ablations over several seeds, the original's bugs, significance
    pretraining         a small CLIP and GPT-2 from scratch
    conversion          published weights of other layouts: EfficientNet-Lite, open_clip, ClipCap, the original
    export              captioners as ONNX graphs, and captions without PyTorch
    ui                  the explorer, the app
    sharing             the report on a run, the model card and the hub
    notebooks, cli      the series executed; the commands

The public names below are imported when they are first used, so `import helpers` loads no PyTorch.

Shapes: B batch, P prefix length, T caption tokens, D CLIP's width, S patches and the class token, E GPT-2's width,
V vocabulary, N images.
"""

from importlib import import_module
from typing import Any

from .runtime.auto_classes import register_when_needed

_NAMES = {  # module: its public names
    "config": "Config",
    "presets": "preset",
    "errors": "UserError",
    "runtime.device": "choose_accelerator",
    "words.people": "neutral people_named",
    "models.loading": "load_encoder load_gpt2",
    "models.mapping": "build_mapper",
    "language.freezing": "freeze freezing_table",
    "models.captioner": "Captioner",
    "models.captioner_config": "CaptionerConfig",
    "models.decoding": "Decoding",
    "models.writer": "CaptionWriter",
    "captions.read": "read_captions",
    "captions.splits": "split_by_image",
    "data.images": "open_picture",
    "data.scenes": "draw_world",
    "data.scene_captions": "SHAPES is_right read_caption scene_entropy wording_entropy",
    "data.dataset": "Data open_data open_drawn_world",
    "data.embedding_cache": "EmbeddingCache",
    "data.build_cache": "build_cache open_cache",
    "data.batches": "CaptionBatches",
    "training.optimizer": "lr_at",
    "training.run": "Run",
    "training.estimate": "Plan",
    "training.loop": "train train_or_load",
    "training.kaggle": "carry_over train_on_all_cards",
    "analysis.scene_errors": "by_quality failure_kinds failures_by_kind share_right wrong_facts",
    "analysis.introspection": "attention_by_head prefix_words word_confidence",
    "analysis.prefix_swaps": "captions_after_swap facts_after_swap",
    "analysis.calibration": "reliability scene_confidence words_in_references",
    "analysis.probing": "probe_facts",
    "analysis.copying": "closest_captions",
    "evaluation.evaluate": "evaluate",
    "evaluation.scores": "measure",
    "evaluation.score_file": "score_file",
    "evaluation.clipscore": "ClipJudge add_clip_scores",
    "evaluation.controls": "nearest_captions nearest_images picture_information",
    "evaluation.people": "add_people_scores people_lines",
    "evaluation.published_scores": "published_lines",
    "plots.base": "LiveFigure",
    "plots.training": "plot_learning_curve plot_loss_and_lr plot_time_to_quality",
    "plots.architecture": "plot_architecture",
    "plots.diagrams": "plot_mappers plot_prefix_and_words plot_tensor_strip",
    "plots.decoding": "plot_beam_tree plot_next_tokens",
    "plots.captions": "as_image plot_attention plot_confidence plot_grid show_pictures show_rows",
    "plots.scores": "plot_confusion plot_differences plot_effects plot_reliability plot_score_and_truth plot_scores",
    "pretraining.data": "pretraining_scenes",
    "experiments.ablation": "ablate",
    "experiments.original_bugs": "BUGS",
    "experiments.questions": "QUESTIONS answer answered",
    "experiments.significance": "best_of effect_in_words effects_in_words paired_effects",
    "ui.explorer": "Explorer",
    "ui.voila_app": "open_app",
    "sharing.report": "write_report",
    "sharing.card": "model_card push_to_hub",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
_ALIASES = {"load_clip": "load_encoder"}  # the notebooks are about CLIP
__all__ = sorted([*_MODULE_OF, *_ALIASES])


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    name = _ALIASES.get(name, name)
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


register_when_needed(__name__)


def __dir__() -> list[str]:
    return __all__
