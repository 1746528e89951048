"""The walk that a user goes with a network of the zoo: calibrate, export, verify, from a checkpoint and an .npz."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import toolkit
from tests.zoo.ways import MEAN, STD, images, settled
from toolkit import CalibrateOptions, ExportOptions, UserModel, Verification

CLASSES = tuple("abcdefghij")
GATE = 80  # percent: of nets that nobody trained, whose answers lie close together


def walked(net: str, folder: Path) -> Verification:
    """Calibrates, exports every file and judges each; the network's own answers are the labels.

    Raises:
        ToolkitError: what a user would read.
    """
    labels, data, weights = settled(net).answers.argmax(1), folder / f"{net}.npz", folder / f"{net}.pth"
    train, test = slice(0, 24), slice(24, None)
    parts = {"train_images": images()[train], "test_images": images()[test], "classes": np.array(CLASSES)}
    np.savez(data, allow_pickle=False, train_labels=labels[train], test_labels=labels[test], **parts)
    torch.save(settled(net).net.state_dict(), weights)
    user = UserModel(checkpoint=weights, kwargs={"name": net}, mean=MEAN, std=STD, labels=CLASSES, name=net)
    builder, forced = "tests.zoo.ways:net_of", ExportOptions(data=data, force=True, engines=False)
    ranges = toolkit.calibrate(builder, data, CalibrateOptions(method="minmax", force=True), user=user)
    options = replace(forced, int8=True, fp16=True, record=ranges.record)
    made = toolkit.export(builder, folder / net, options, user=user)
    return toolkit.verify(made.bundle, backends="ort", gate=GATE)
