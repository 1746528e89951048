"""Claims about a whole training run: the card says what was measured, and an interrupted run can go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from toolkit.compare.proportions import wilson_interval
from toolkit.contracts import Dataset, LabeledImages, preprocessing_from_images
from toolkit.errors import DataError, ModelError
from toolkit.models.card import Card, card_from_folder
from toolkit.models.checkpoint import load_model
from toolkit.training.logbook import CONFUSION, CURVE, LOG, lines_from_text
from toolkit.training.loop import Progress, Recipe, logits_of
from toolkit.training.session import Plan, run_training

TINY = {"widths": (8, 16), "blocks": (1, 1), "strides": (1, 2)}
RECIPE = Recipe(epochs=2, batch=16, lr=0.05, ema=0.9, crop=2, holdout=24, amp="off")


@pytest.fixture
def plan(toy_dataset: Dataset, tmp_path: Path) -> Plan:
    """A run of two short epochs."""
    return Plan(
        "net", "resnet8", TINY, toy_dataset, RECIPE, torch.device("cpu"), tmp_path / "models" / "net", "toolkit train"
    )


def _silent(progress: Progress) -> None:
    pass


def _interrupted_in_epoch_2(progress: Progress) -> None:
    if progress.step == 8:
        raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_writes_a_model_whose_card_says_how_it_was_measured(plan: Plan) -> None:
    outcome = run_training(plan, resume=False, on_progress=_silent)
    loaded, test = load_model(plan.folder), plan.dataset.test
    assert loaded.card == outcome.card == card_from_folder(plan.folder)
    answers = logits_of(loaded.classifier, torch.tensor(test.images_nhwc)).argmax(1).numpy()
    correct = int((answers == test.labels).sum())
    accuracy = outcome.card.accuracy
    assert accuracy is not None
    assert (accuracy["correct"], accuracy["images"]) == (correct, 60)
    assert accuracy["top1_percent"] == pytest.approx(100 * correct / 60, abs=1e-4)
    assert accuracy["interval95_percent"] == pytest.approx([100 * x for x in wilson_interval(correct, 60)], abs=1e-4)
    assert (accuracy["data"], accuracy["data_sha256"]) == (test.source, test.sha256)


@pytest.mark.slow
def test_the_card_holds_what_it_takes_to_repeat_the_run(plan: Plan) -> None:
    card = run_training(plan, resume=False, on_progress=_silent).card
    assert card.training is not None
    assert Recipe(**card.training["recipe"]) == RECIPE
    assert card.training["data_sha256"] == plan.dataset.train.sha256
    assert card.training["command"] == "toolkit train"
    assert card.training["epochs_done"] == 2
    assert card.labels == plan.dataset.train.classes
    assert card.preprocessing == preprocessing_from_images(plan.dataset.train.images_nhwc)
    assert (card.arch["widths"], card.arch["in_channels"], card.arch["classes"]) == ([8, 16], 3, 3)


@pytest.mark.slow
def test_a_finished_run_leaves_its_folder_and_nothing_beside_it(plan: Plan) -> None:
    kept: list[bool] = []
    run_training(plan, resume=False, on_progress=lambda progress: kept.append(plan.state_file.exists()))
    assert kept[-1]
    assert list(plan.folder.parent.iterdir()) == [plan.folder]


@pytest.mark.slow
def test_grayscale_images_make_a_net_of_one_channel(plan: Plan) -> None:
    def gray(images: LabeledImages) -> LabeledImages:
        return replace(images, images_nhwc=np.ascontiguousarray(images.images_nhwc[..., :1]))

    dataset = replace(plan.dataset, train=gray(plan.dataset.train), test=gray(plan.dataset.test))
    card = run_training(
        replace(plan, dataset=dataset, recipe=replace(RECIPE, epochs=1)), resume=False, on_progress=_silent
    ).card
    assert (card.arch["in_channels"], card.preprocessing.channels) == (1, 1)
    assert load_model(plan.folder).card == card


@pytest.mark.slow
def test_an_interrupted_run_writes_a_model_without_accuracy_and_keeps_its_state(plan: Plan) -> None:
    outcome = run_training(plan, resume=False, on_progress=_interrupted_in_epoch_2)
    assert outcome.trained.interrupted
    assert outcome.card.accuracy is None
    assert load_model(plan.folder).card == outcome.card
    assert outcome.card.training is not None
    assert outcome.card.training["epochs_done"] == 1
    assert plan.state_file.is_file()


def _without_time(card: Card) -> Card:
    """How long a run took is no part of what it came to."""
    assert card.training is not None
    return replace(card, training={key: value for key, value in card.training.items() if key != "seconds"})


@pytest.mark.slow
def test_an_interrupted_run_that_goes_on_ends_like_one_that_was_not(plan: Plan, tmp_path: Path) -> None:
    run_training(plan, resume=False, on_progress=_interrupted_in_epoch_2)
    steps: list[int] = []
    resumed = run_training(plan, resume=True, on_progress=lambda progress: steps.append(progress.step))
    assert steps == list(range(7, 13))
    assert not plan.state_file.exists()
    whole = run_training(replace(plan, folder=tmp_path / "whole" / "net"), resume=False, on_progress=_silent)
    assert resumed.card.weights_sha256 == whole.card.weights_sha256
    assert _without_time(resumed.card) == _without_time(whole.card)
    logs = [lines_from_text((folder / LOG).read_text()) for folder in (plan.folder, tmp_path / "whole" / "net")]
    assert [[(line.epoch, line.loss) for line in log] for log in logs] == [
        [(line.epoch, line.loss) for line in whole.trained.log]
    ] * 2


def test_an_interrupt_before_the_first_epoch_leaves_nothing(plan: Plan) -> None:
    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(plan, resume=False, on_progress=interrupt)
    assert not plan.folder.exists()
    assert not plan.state_file.exists()


def test_there_must_be_something_to_resume(plan: Plan) -> None:
    with pytest.raises(ModelError, match="no interrupted run of 'net'") as caught:
        run_training(plan, resume=True, on_progress=_silent)
    assert "`resume=`" in str(caught.value.fix)


@pytest.mark.slow
def test_a_run_of_another_recipe_net_or_data_is_not_resumed(plan: Plan) -> None:
    run_training(plan, resume=False, on_progress=_interrupted_in_epoch_2)
    kept = plan.state_file.read_bytes()
    fewer = replace(plan.dataset, train=plan.dataset.train.take(slice(100)))
    for other, part in (
        (replace(plan, recipe=replace(RECIPE, lr=0.01)), "recipe"),
        (replace(plan, recipe=replace(RECIPE, seed=1)), "recipe"),
        (replace(plan, changes={**TINY, "widths": (8, 8)}), "arch"),
        (replace(plan, dataset=fewer), "data"),
    ):
        with pytest.raises(ModelError, match="was another one") as caught:
            run_training(other, resume=True, on_progress=_silent)
        assert caught.value.found == f"other {part}"
    assert plan.state_file.read_bytes() == kept


@pytest.mark.slow
def test_a_truncated_state_is_one_error(plan: Plan) -> None:
    run_training(plan, resume=False, on_progress=_interrupted_in_epoch_2)
    plan.state_file.write_bytes(plan.state_file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="is not a whole safetensors file"):
        run_training(plan, resume=True, on_progress=_silent)


@pytest.mark.slow
def test_fine_tuning_keeps_the_body_and_makes_a_new_head(plan: Plan, tmp_path: Path) -> None:
    run_training(plan, resume=False, on_progress=_silent)
    start = load_model(plan.folder)

    def renamed(images: LabeledImages) -> LabeledImages:
        return replace(images, classes=("a", "b", "c", "d"))

    dataset = replace(plan.dataset, train=renamed(plan.dataset.train), test=renamed(plan.dataset.test))
    recipe = replace(RECIPE, epochs=1, lr=1e-8, ema=0)
    tuned = replace(plan, name="tuned", folder=tmp_path / "models/tuned", dataset=dataset, recipe=recipe, start=start)
    card = run_training(tuned, resume=False, on_progress=_silent).card
    assert card.arch == start.card.arch | {"classes": 4}
    assert card.preprocessing == start.card.preprocessing
    before, after = start.classifier.net.state_dict(), load_model(tuned.folder).classifier.net.state_dict()
    torch.testing.assert_close(after["stem.0.weight"], before["stem.0.weight"])
    assert after["fc.weight"].shape[0] == 4
    wanted = ["card.json", CONFUSION, LOG, CURVE, "weights.safetensors"]
    assert sorted(path.name for path in tuned.folder.iterdir()) == wanted


@pytest.mark.slow
def test_images_that_the_model_to_start_from_does_not_take_are_refused(plan: Plan) -> None:
    run_training(plan, resume=False, on_progress=_silent)
    start = load_model(plan.folder)
    gray = replace(
        plan.dataset,
        train=replace(plan.dataset.train, images_nhwc=np.ascontiguousarray(plan.dataset.train.images_nhwc[..., :1])),
    )
    with pytest.raises(DataError, match="other color channels than model 'net' takes"):
        run_training(replace(plan, dataset=gray, start=start), resume=False, on_progress=_silent)
