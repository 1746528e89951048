"""Claims about held-out images: the same quarter by content whoever asks, and what a graph answers on them."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest

from toolkit.contracts import LabeledImages, sha256_of_each
from toolkit.errors import ToolkitError
from toolkit.quantization.held_out import held_out, logits_of
from toolkit.runtime.ort.runner import OrtRunner


def test_a_quarter_is_held_out_by_a_hash_of_its_content_and_equal_images_go_together() -> None:
    images = np.random.default_rng(0).integers(0, 256, (41, 4, 4, 1), dtype=np.uint8)
    images[40] = images[7]
    found = held_out(images)
    by_hash = sorted(sha256_of_each(images[:40]), key=lambda one: hashlib.sha256(b"held out" + one).digest())
    assert {one for one, out in zip(sha256_of_each(images), found, strict=True) if out} == set(by_hash[:10])
    order = np.random.default_rng(1).permutation(41)
    assert (held_out(images[order]) == found[order]).all()
    assert held_out(np.arange(4 * 300 * 4, dtype=np.uint16).view(np.uint8).reshape(-1, 2, 2, 1)).sum() == 256


def test_logits_of_a_candidate_are_those_of_each_image_and_a_broken_one_is_named(
    tiny_graph: onnx.ModelProto, structured_images: LabeledImages
) -> None:
    images, steps = structured_images.images_nhwc[:7], []
    found = logits_of(tiny_graph, images, lambda *step: steps.append(step))
    with OrtRunner(tiny_graph.SerializeToString()) as runner:
        for image, logits in zip(images, found, strict=True):
            assert np.allclose(runner.logits(image[None])[0], logits, atol=1e-4)
    assert steps[-1] == (7, 7)
    tiny_graph.graph.node[-1].op_type = "NoSuchOperator"
    with pytest.raises(ToolkitError, match=r" a candidate\b"):
        logits_of(tiny_graph, images)
