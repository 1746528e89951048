"""Claims about training: it learns, it repeats itself, it goes on where it stopped, and it says why it failed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from toolkit.contracts import Dataset, Preprocessing
from toolkit.errors import DataError, ModelError, ToolkitError
from toolkit.models.checkpoint import classifier_from_config
from toolkit.models.resnet import Classifier, ResNetConfig
from toolkit.training.loop import (
    Progress,
    Recipe,
    Trained,
    Trainer,
    augment,
    computes_bf16,
    device_from_name,
    learning_rate,
    top1_of,
    train,
)
from toolkit.training.recipe import crop_of, defaults_from_nothing

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=4, batch=16, lr=0.05, ema=0.9, crop=2, holdout=24, amp="off")


class _Run:
    """Training runs of the tiny net on the toy set."""

    def __init__(self, data: Dataset, preprocessing: Preprocessing, config: ResNetConfig) -> None:
        self.data, self.preprocessing, self.config = data, preprocessing, config

    def classifier(self, seed: int = 0) -> Classifier:
        torch.manual_seed(seed)
        return classifier_from_config(self.config, self.preprocessing)

    def __call__(self, recipe: Recipe = RECIPE, **options: Any) -> Trained:
        return train(self.classifier(recipe.seed), self.data, self.preprocessing, recipe, CPU, **options)


@pytest.fixture
def run(toy_dataset: Dataset, tiny_preprocessing: Preprocessing, tiny_config: ResNetConfig) -> _Run:
    """Trains the tiny net; called with a recipe and the options of `train`."""
    return _Run(toy_dataset, tiny_preprocessing, tiny_config)


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_a_separable_set_in_a_few_epochs(tiny_classifier: Classifier, toy_dataset: Dataset) -> None:
    test = toy_dataset.test
    found = top1_of(tiny_classifier, torch.tensor(test.images_nhwc), torch.tensor(test.labels))
    assert found > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["off", "auto"])
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(run: _Run, amp: str) -> None:
    recipe = replace(RECIPE, amp=amp)
    states: dict[int, dict[str, Tensor]] = {}
    whole = run(recipe, on_epoch=lambda trainer: states.update({trainer.epoch: trainer.state()}))
    assert sorted(states) == [1, 2, 3, 4]
    last: dict[str, Tensor] = {}
    resumed = run(recipe, resume=states[2], on_epoch=lambda trainer: last.update(trainer.state()))
    assert _same(last, states[4])
    assert _same(resumed.weights, whole.weights)
    assert (resumed.best_epoch, resumed.holdout_top1, resumed.epochs_done) == (
        whole.best_epoch,
        whole.holdout_top1,
        4,
    )
    assert not _same(states[2], states[4])


def test_a_run_resumed_and_interrupted_at_once_still_has_its_best_weights(run: _Run) -> None:
    states: list[dict[str, Tensor]] = []
    whole = run(replace(RECIPE, epochs=1), on_epoch=lambda trainer: states.append(trainer.state()))

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    again = run(replace(RECIPE, epochs=1), resume=states[0], on_progress=interrupt)
    assert _same(again.weights, whole.weights)
    later = run(resume=states[0], on_progress=interrupt)
    assert later.interrupted
    assert _same(later.weights, whole.weights)


def test_every_epoch_sees_every_image_once_in_an_order_of_its_own(run: _Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    step = Trainer._step

    def watched(self: Trainer, rows: Tensor, *rest: Any) -> Tensor:
        seen.extend(rows.tolist())
        return step(self, rows, *rest)

    monkeypatch.setattr(Trainer, "_step", watched)
    run(replace(RECIPE, epochs=2))
    assert sorted(seen[:96]) == sorted(seen[96:]) == list(range(96))
    assert seen[:96] != seen[96:]


def test_a_state_does_not_change_while_the_run_goes_on(run: _Run) -> None:
    trainer = Trainer(run.classifier(), run.data.train, RECIPE, CPU)
    steps = trainer.epochs()
    next(step for step in steps if step.holdout_top1 is not None)
    state = trainer.state()
    before = {name: value.clone() for name, value in state.items()}
    next(step for step in steps if step.holdout_top1 is not None)
    assert _same(state, before)
    assert not _same(state, trainer.state())


@pytest.mark.slow
def test_one_seed_gives_one_net_and_another_seed_another(run: _Run) -> None:
    recipe = replace(RECIPE, epochs=1)
    assert _same(run(recipe).weights, run(recipe).weights)
    assert not _same(run(recipe).weights, run(replace(recipe, seed=1)).weights)


def test_progress_counts_steps_and_closes_each_epoch(run: _Run) -> None:
    seen: list[Progress] = []
    trained = run(replace(RECIPE, epochs=2), on_progress=seen.append)
    assert [step.step for step in seen] == list(range(1, 13))
    assert {(step.steps, step.epochs) for step in seen} == {(12, 2)}
    assert [step.epoch for step in seen] == [1] * 6 + [2] * 6
    assert [step.step for step in seen if step.holdout_top1 is not None] == [6, 12]
    assert trained.epochs_done == 2
    assert trained.holdout_top1 == max(step.holdout_top1 or 0.0 for step in seen)
    assert trained.images_per_s > 0


def test_an_interrupt_after_an_epoch_leaves_the_best_weights(run: _Run) -> None:
    best: dict[str, Tensor] = {}

    def interrupt(progress: Progress) -> None:
        if progress.step == 9:  # in the middle of the second epoch
            raise KeyboardInterrupt

    trained = run(on_progress=interrupt, on_epoch=lambda trainer: best.update(trainer.best))
    assert trained.interrupted
    assert (trained.epochs_done, trained.best_epoch) == (1, 1)
    assert _same(trained.weights, best)
    assert not run(replace(RECIPE, epochs=1)).interrupted


def test_an_interrupt_before_the_first_epoch_goes_on(run: _Run) -> None:
    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_progress=interrupt)


def test_a_loss_that_is_no_number_proposes_a_lower_rate(run: _Run) -> None:
    classifier = run.classifier()
    with torch.no_grad():
        classifier.net.fc.bias.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(ModelError, match="training diverged") as caught:
        train(classifier, run.data, run.preprocessing, RECIPE, CPU)
    assert caught.value.fix == "`lr=0.005`"
    assert "epoch 1" in str(caught.value.found)


def test_the_rate_starts_low_peaks_at_lr_and_ends_near_zero() -> None:
    recipe = Recipe(lr=0.4, warmup=0.2)
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == rates[19] == rates[20] == pytest.approx(0.4)
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 10), (0.9, 1), (0.0, 1)])
def test_the_rate_of_a_short_run_is_never_above_lr(warmup: float, steps: int) -> None:
    rates = [learning_rate(Recipe(lr=0.4, warmup=warmup), step, steps) for step in range(steps)]
    assert 0 < max(rates) <= 0.4


def _images(count: int = 64) -> Tensor:
    return torch.randint(1, 256, (count, 6, 5, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_without_crop_and_mirror_images_stay_as_they_are() -> None:
    assert torch.equal(augment(_images(), 0, False, torch.Generator().manual_seed(0)), _images())


def test_with_mirror_alone_each_image_is_itself_or_its_mirror() -> None:
    images = _images()
    found = augment(images, 0, True, torch.Generator().manual_seed(0))
    same = [torch.equal(a, b) for a, b in zip(found, images, strict=True)]
    mirrored = [torch.equal(a, b.flip(1)) for a, b in zip(found, images, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 16 < sum(same) < 48


@pytest.mark.parametrize("flip", [True, False])
def test_augmented_images_are_shifts_with_zeros_behind_them(flip: bool) -> None:
    images, crop = _images(), 2
    found = augment(images, crop, flip, torch.Generator().manual_seed(0))
    assert (found.shape, found.dtype) == (images.shape, torch.uint8)
    shifts = set()
    for image, got in zip(images, found, strict=True):
        places = [
            (down, right, mirrored)
            for mirrored in ([False, True] if flip else [False])
            for down in range(2 * crop + 1)
            for right in range(2 * crop + 1)
            if torch.equal(_shifted(image.flip(1) if mirrored else image, down, right, crop), got)
        ]
        assert len(places) == 1
        shifts.add(places[0])
    assert len({place[:2] for place in shifts}) > 10
    assert len({place[2] for place in shifts}) == (2 if flip else 1)


def _shifted(image: Tensor, down: int, right: int, crop: int) -> Tensor:
    height, width, channels = image.shape
    canvas = torch.zeros(height + 2 * crop, width + 2 * crop, channels, dtype=image.dtype)
    canvas[crop : crop + height, crop : crop + width] = image
    return canvas[down : down + height, right : right + width]


@pytest.mark.parametrize(
    "changes", [{"epochs": 0}, {"batch": 1}, {"lr": 0}, {"lr": float("nan")}, {"warmup": 1}, {"seed": -1}, {"crop": -1}]
)
def test_a_recipe_out_of_range_names_its_argument(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=f"`{next(iter(changes))}=` out of range"):
        Recipe(**changes)


@pytest.mark.parametrize(("side", "pixels"), [(8, 1), (28, 3), (32, 4), (96, 4), (7, 0)])
def test_small_images_are_shifted_by_an_eighth_of_their_side(side: int, pixels: int) -> None:
    assert crop_of(side, 2 * side) == crop_of(2 * side, side) == pixels


def test_an_unknown_amp_or_device_is_refused() -> None:
    with pytest.raises(ModelError, match="`amp=` is unknown"):
        Recipe(amp="fp8")
    with pytest.raises(ToolkitError, match="unknown device"):
        device_from_name("tpu")
    assert device_from_name("cpu") == CPU


def test_bf16_is_refused_where_the_device_does_not_compute_it(run: _Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.training.loop.computes_bf16", lambda device: False)
    with pytest.raises(ToolkitError, match="bfloat16 was asked for"):
        run(replace(RECIPE, amp="bf16"))
    assert run(replace(RECIPE, amp="auto", epochs=1)).amp == "off"
    assert isinstance(computes_bf16(CPU), bool)


def test_too_few_images_and_images_of_another_shape_are_refused(run: _Run) -> None:
    few = replace(run.data, train=run.data.train.take(slice(4)))
    with pytest.raises(DataError, match="too few training images"):
        train(run.classifier(), few, run.preprocessing, RECIPE, CPU)
    other = Preprocessing(15, 16, 3, run.preprocessing.mean, run.preprocessing.std)
    with pytest.raises(DataError, match="differ in shape"):
        train(run.classifier(), run.data, other, RECIPE, CPU)


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps(run: _Run) -> None:
    steps: list[float] = []

    class Watched(Trainer):
        def _step(self, rows: Tensor, number: int, steps_: int, draws: torch.Generator) -> Tensor:
            loss = super()._step(rows, number, steps_, draws)
            steps.append(float(loss))
            return loss

    trainer = Watched(run.classifier(), run.data.train, replace(RECIPE, epochs=2), CPU)
    seen = [progress for progress in trainer.epochs() if progress.holdout_top1 is not None]
    assert [p.loss for p in seen] == pytest.approx([sum(steps[:6]) / 6, sum(steps[6:]) / 6], rel=1e-5)
    assert [line.loss for line in trainer.log] == [p.loss for p in seen]
    assert [line.epoch for line in trainer.log] == [1, 2]


def test_one_step_that_is_not_a_number_ends_the_epoch_even_if_the_last_is(run: _Run) -> None:
    class Faulty(Trainer):
        def _step(self, rows: Tensor, number: int, steps: int, draws: torch.Generator) -> Tensor:
            loss = super()._step(rows, number, steps, draws)
            return loss * float("nan") if number == 2 else loss

    trainer = Faulty(run.classifier(), run.data.train, RECIPE, CPU)
    with pytest.raises(ModelError, match="diverged"):
        list(trainer.epochs())


def test_a_deterministic_run_leaves_the_switch_as_it_was(run: _Run) -> None:
    during: list[bool] = []

    def look(progress: Progress) -> None:
        during.append(torch.are_deterministic_algorithms_enabled())

    once = run(replace(RECIPE, epochs=1, deterministic=True), on_progress=look)
    assert all(during)
    assert not torch.are_deterministic_algorithms_enabled()
    assert _same(once.weights, run(replace(RECIPE, epochs=1, deterministic=True)).weights)


@pytest.mark.slow
def test_a_run_that_gets_no_better_ends_where_it_was_told_to(run: _Run) -> None:
    recipe = replace(RECIPE, epochs=12, lr=1e-8, patience=2)
    trained = run(recipe)
    top1 = [line.holdout_top1 for line in trained.log]
    assert trained.epochs_done == 1 + top1.index(max(top1)) + 2 < 12
    assert not trained.interrupted
    assert run(replace(recipe, patience=0, epochs=5)).epochs_done == 5


def test_balanced_a_rare_class_pulls_as_much_as_a_common_one(run: _Run) -> None:
    rare = np.flatnonzero((run.data.train.labels != 2) | (np.arange(len(run.data.train)) % 5 == 0))
    trainer = Trainer(run.classifier(), run.data.train.take(rare), replace(RECIPE, balance=True), CPU)
    logits = torch.zeros(len(trainer.labels), 3, requires_grad=True)
    trainer._loss(logits, trainer.labels).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    pull = [float(logits.grad[trainer.labels == label, label].sum()) for label in range(3)]
    assert pull == pytest.approx([pull[0]] * 3, rel=1e-5)
    assert min(torch.bincount(trainer.labels).tolist()) < 0.5 * max(torch.bincount(trainer.labels).tolist())


@pytest.mark.parametrize(("images", "batch"), [(60_000, 128), (3_840, 128), (1_438, 32), (2_000, 64), (200, 16)])
def test_an_epoch_of_a_small_set_has_steps_enough(images: int, batch: int) -> None:
    assert defaults_from_nothing(images).batch == batch
