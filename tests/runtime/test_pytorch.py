"""Claims about PyTorch as a runner: evaluation mode, float32, and images that are left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toolkit.contracts import LabeledImages
from toolkit.models.resnet import Classifier
from toolkit.runtime.pytorch import TorchRunner
from toolkit.runtime.runner import Runner


def test_logits_are_the_modules(tiny_classifier: Classifier, structured_images: LabeledImages) -> None:
    images = structured_images.images_nhwc
    with torch.inference_mode():
        expected = tiny_classifier(torch.tensor(images)).numpy()
    with TorchRunner(tiny_classifier) as runner:
        logits = runner.logits(images)
    assert logits.dtype == np.float32
    assert logits.shape == (60, 3)
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    assert (logits.argmax(1) == structured_images.labels).mean() > 0.9


def test_a_module_left_in_training_mode_is_put_into_evaluation(
    tiny_classifier: Classifier, structured_images: LabeledImages
) -> None:
    before = {name: value.clone() for name, value in tiny_classifier.state_dict().items()}
    runner = TorchRunner(tiny_classifier.train())
    first, again = (runner.logits(structured_images.images_nhwc) for _ in range(2))
    assert np.array_equal(first, again)
    assert all(torch.equal(value, before[name]) for name, value in tiny_classifier.state_dict().items())


@pytest.mark.parametrize("batch", [1, 7])
def test_any_batch_answers_as_single_images_do(
    tiny_classifier: Classifier, structured_images: LabeledImages, batch: int
) -> None:
    runner, images = TorchRunner(tiny_classifier), structured_images.images_nhwc[:batch]
    alone = np.concatenate([runner.logits(images[i : i + 1]) for i in range(batch)])
    assert np.abs(runner.logits(images) - alone).max() <= 1e-5 * np.abs(alone).max()


def test_read_only_and_sliced_images_are_taken(tiny_classifier: Classifier, structured_images: LabeledImages) -> None:
    images = structured_images.images_nhwc
    assert not images.flags.writeable
    runner = TorchRunner(tiny_classifier)
    assert np.array_equal(runner.logits(images[::2]), runner.logits(np.ascontiguousarray(images[::2])))


def test_mirrored_views_are_taken(tiny_classifier: Classifier, structured_images: LabeledImages) -> None:
    runner, images = TorchRunner(tiny_classifier), structured_images.images_nhwc
    mirrored = images[:, :, ::-1]
    assert np.array_equal(runner.logits(mirrored), runner.logits(np.ascontiguousarray(mirrored)))
    assert not np.array_equal(runner.logits(mirrored), runner.logits(images))


def test_a_half_precision_module_still_gives_float32(structured_images: LabeledImages) -> None:
    class Half(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.to(torch.bfloat16).mean((1, 2))

    logits = TorchRunner(Half()).logits(structured_images.images_nhwc)
    assert logits.dtype == np.float32


def test_it_is_a_runner_that_names_itself_and_may_be_closed_twice(tiny_classifier: Classifier) -> None:
    runner: Runner = TorchRunner(tiny_classifier, label="tiny")
    with runner as entered:
        assert entered is runner
    runner.close()
    assert (runner.name, runner.description) == ("torch", f"PyTorch {torch.__version__} CPU tiny")
