"""What the trainer costs over a bare PyTorch loop: the same net, batches, augmentation and autocast, in pairs.

    python benchmarks/training.py [--images 6400] [--batch 128] [--rounds 5] [--arch resnet32x32] [--device auto]

A round is one epoch of each, taking turns at going first; the ratio is taken pair by pair, so that a noisy machine hits
both. The trainer also averages weights, counts, logs and measures held-out images; the loop does none of that. The
resident memory after each round shows whether it grows. Prints a table on stderr and one JSON document on stdout.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn

from toolkit.contracts import LabeledImages, preprocessing_from_images
from toolkit.models.checkpoint import classifier_from_config
from toolkit.models.resnet import config_from_name
from toolkit.training.augment import augment
from toolkit.training.devices import channels_last, device_from_name, keep_freed_memory
from toolkit.training.loop import Trainer
from toolkit.training.recipe import Recipe, learning_rate


def resident_mb() -> float:
    """Memory of this process that is in RAM, MB; 0 where /proc is not."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if statm.exists() else 0.0


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def epochs_of_trainer(trainer: Trainer) -> Iterator[float]:
    """Seconds of each epoch."""
    wait(trainer.device)
    started = time.perf_counter()
    for progress in trainer.epochs():
        if progress.holdout_top1 is not None:
            wait(trainer.device)
            yield time.perf_counter() - started
            started = time.perf_counter()


def epochs_of_loop(trainer: Trainer, model: nn.Module) -> Iterator[float]:
    """Seconds of each epoch of the loop that one writes by hand, on the trainer's images and in its precision."""
    recipe, device = trainer.recipe, trainer.device
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    steps, number = recipe.epochs * trainer.steps_per_epoch, 0
    for epoch in range(recipe.epochs):
        wait(device)
        started = time.perf_counter()
        draws = torch.Generator().manual_seed(epoch)
        order = torch.randperm(len(trainer.images), generator=draws).to(device)
        model.train()
        for rows in torch.split(order[: trainer.steps_per_epoch * trainer.batch], trainer.batch):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, number, steps)
            images = augment(trainer.images[rows], recipe.crop, recipe.flip, draws)
            with torch.autocast(device.type, torch.bfloat16) if trainer.amp == "bf16" else nullcontext():
                loss = nn.functional.cross_entropy(
                    model(images), trainer.labels[rows], label_smoothing=recipe.label_smoothing
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            number += 1
        wait(device)
        yield time.perf_counter() - started


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="The trainer against a bare PyTorch loop, paired.")
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--arch", default="resnet32x32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--amp", default="auto")
    options = parser.parse_args()
    keep_freed_memory()
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (options.images + 1, 32, 32, 3), dtype=np.uint8)
    images = LabeledImages(pixels, draws.integers(0, 10, len(pixels)), tuple("0123456789"), "noise")
    device = device_from_name(options.device)
    classifier = classifier_from_config(config_from_name(options.arch), preprocessing_from_images(pixels))
    recipe = Recipe(epochs=options.rounds + 1, batch=options.batch, lr=0.01, holdout=1, amp=options.amp)
    other = channels_last(copy.deepcopy(classifier)).to(device)
    trainer = Trainer(classifier, images, recipe, device)
    ours, bare = epochs_of_trainer(trainer), epochs_of_loop(trainer, other)
    next(ours), next(bare)  # warm up: kernels are chosen and memory is taken
    seen = trainer.steps_per_epoch * trainer.batch
    rows: list[tuple[float, float, float]] = []
    for index in range(options.rounds):
        if index % 2:
            loop_s, trainer_s = next(bare), next(ours)
        else:
            trainer_s, loop_s = next(ours), next(bare)
        rows.append((seen / trainer_s, seen / loop_s, resident_mb()))
    print("round  trainer images/s  loop images/s  ratio  resident MB", file=sys.stderr)
    for index, (a, b, memory) in enumerate(rows):
        print(f"{index + 1:5}  {a:16,.0f}  {b:13,.0f}  {a / b:5.3f}  {memory:11,.0f}", file=sys.stderr)
    document = {
        "arch": options.arch,
        "batch": trainer.batch,
        "images_per_epoch": seen,
        "rounds": options.rounds,
        "device": str(device),
        "amp": trainer.amp,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "trainer_images_per_s": round(statistics.median(a for a, _, _ in rows), 1),
        "loop_images_per_s": round(statistics.median(b for _, b, _ in rows), 1),
        "ratio": round(statistics.median(a / b for a, b, _ in rows), 4),
        "resident_mb": [round(memory, 1) for _, _, memory in rows],
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
