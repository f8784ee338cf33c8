"""The least time that a work can take here: that of its matrix products alone, in its precision on this machine.

Everything else in a step (attention, layer norms, dropout, softmax, optimizer, Python) comes on top. A product is
(rows, inner, columns); each one is timed by itself and counted as often as a step computes it.
"""

import statistics
import time
from collections import Counter

import torch

from benchmarks import models
from helpers.training.packing import pack

Product = tuple[int, int, int]


def _block(width: int) -> list[tuple[int, int]]:
    """Return (inner, columns) of the four products of a Transformer block."""
    return [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]


def training_step(size: str, *, captions: int = 64, prefix: int = 4, repetitions: int = 2) -> Counter[Product]:
    """Count the products of a step with first-and-last freezing and trained embeddings, the mean of timed batches."""
    stream = models.batches(size, captions)
    next(stream)  # an arm warms up with it
    batches = [pack(next(stream), prefix) for _ in range(repetitions)]
    places = sum(packed.tokens.numel() for packed in batches) // repetitions
    targets = sum(len(packed.targets) for packed in batches) // repetitions
    return step_products(size, places, targets, captions=captions, prefix=prefix)


def step_products(size: str, places: int, targets: int, *, captions: int = 64, prefix: int = 4) -> Counter[Product]:
    """Count the products of one such step. places: that GPT-2 reads, padding included. targets: caption tokens."""
    width, layers = models.GPT2[size].n_embd, models.GPT2[size].n_layer
    products: Counter[Product] = Counter()
    for inner, columns in _block(width):
        products[places, inner, columns] += layers  # forward
        products[places, columns, inner] += layers  # gradient of the inputs, through frozen blocks too
        products[inner, places, columns] += 2  # gradient of the weights of the first and the last block
    vocabulary = models.GPT2[size].vocab_size
    wide = models.width(size)  # the mapper's encoder reads one embedding per picture
    trained = Counter({(targets, width, vocabulary): 1, (captions, wide, prefix * width): 1})
    trained.update({(captions, inner, columns): 6 for inner, columns in _block(wide)})
    for (rows, inner, columns), times in trained.items():  # forward, gradient of the inputs, gradient of the weights
        for product in ((rows, inner, columns), (rows, columns, inner), (inner, rows, columns)):
            products[product] += times
    return products


def captions(pictures: int = 64, *, beams: int = 1, tokens: int = 16, prefix: int = 4) -> Counter[Product]:
    """Count the products of GPT-2 small with a key-value cache: the prefix once per picture, then token by token."""
    shapes, products = models.GPT2["small"], Counter()
    width = shapes.n_embd
    for inner, columns in _block(width):
        products[pictures * prefix, inner, columns] += shapes.n_layer
        products[pictures * beams, inner, columns] += shapes.n_layer * (tokens - 1)
    products[pictures, width, shapes.vocab_size] += 1
    products[pictures * beams, width, shapes.vocab_size] += tokens - 1
    return products


def vision_tower(pictures: int = 32) -> Counter[Product]:
    """Count the products of CLIP ViT-B/32 on a batch of pictures: 50 places each, 12 layers of width 768."""
    rows, width = 50 * pictures, 768
    products: Counter[Product] = Counter()
    for inner, columns in _block(width):
        products[rows, inner, columns] += 12
    products[49 * pictures, 3 * 32 * 32, width] += 1
    return products


def seconds(products: Counter[Product], dtype: torch.dtype = torch.float32, repetitions: int = 3) -> float:
    """Return the time of all these products, each taken as the median of its repetitions after the first."""
    total = 0.0
    for (rows, inner, columns), times in products.items():
        one, two, times_taken = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype), []
        for _ in range(repetitions + 1):
            begun = time.perf_counter()
            one @ two
            times_taken.append(time.perf_counter() - begun)
        total += times * statistics.median(times_taken[1:])
    return total
