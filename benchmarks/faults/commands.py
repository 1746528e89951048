"""Every command that writes: what is typed, what it leaves, and how one knows that this is whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tries import command

TRAIN = (
    "train tiny --arch resnet8 --widths 8,16 --blocks 1,1 --strides 1,2 --data set.npz --epochs 3 --batch 16 --lr 0.05 "
    "--crop 0 --no-flip --images 32 --holdout 40 --ema 0.9 --replace"
)
EXPORT = "export tiny --int8 --fp16 --method minmax --no-engines --force"
ONE = "--backend ort --precision int8-cpu"
PREPARED = [
    "init .", TRAIN, EXPORT, "calibrate tiny --method minmax --force", "bundle pack bundles/tiny -o tiny.tar",
    "bundle sign tiny.tar --private-key fresh.pem --new-key", "bundle unpack tiny.tar -o out",
    "selftest bundles/tiny --backend ort --seconds 0.01 --save", "triton bundles/tiny -o repo",
]  # fmt: skip
PACKED = [line for line in PREPARED if line.startswith(("init", "bundle", "triton"))]  # of a bundle that is there
DOCUMENTS = {
    "v.json": f"verify bundles/tiny {ONE} --sample 40 --gate 2",
    "b.json": f"bench bundles/tiny {ONE} --batch 1 --seconds 0.05",
}
REPORT = "report bundles/tiny --verify v.json --bench b.json -o page.html --markdown card.md"


@dataclass(frozen=True)
class Writer:
    """A command that writes.

    Attributes:
        words: what is typed.
        leaves: files and folders that it makes or replaces.
        whole: raises or returns False where one of them is a part of something; run in a child.
        fresh: it starts without what it leaves.
    """

    name: str
    words: str
    leaves: tuple[str, ...]
    whole: Callable[[Path], bool]
    fresh: bool = False

    def words_now(self, workspace: Path) -> str:
        """What is typed where something may be there already: a key pair that is whole is not made again."""
        made = all((workspace / name).is_file() for name in ("fresh.pem", "fresh.pub"))
        return self.words.replace(" --new-key", "") if made else self.words


def _bundle(name: str) -> Callable[[Path], bool]:
    def whole(workspace: Path) -> bool:
        from toolkit.bundle.reading import bundle_from_folder

        return bundle_from_folder(workspace / name).precisions != ()

    return whole


def _model(workspace: Path) -> bool:
    from toolkit.data.model_images import images_from_folder
    from toolkit.models.checkpoint import load_model

    images = images_from_folder(workspace / "calibration/tiny")
    return load_model(workspace / "models/tiny").card.name == "tiny" and len(images.calibration) == 32


def _record(workspace: Path) -> bool:
    from toolkit.calibration.record import record_from_file

    return bool(record_from_file(workspace / "calibration/tiny.record/record.json").amax)


def _signature(workspace: Path) -> bool:
    private, public = workspace / "fresh.pem", workspace / "fresh.pub"
    if not (workspace / "tiny.tar.sig").is_file() or not public.is_file():
        return all(path.read_bytes().endswith(b"-----\n") for path in (private, public) if path.is_file())
    return command(workspace, "bundle check tiny.tar --key fresh.pub")() == 0


def _page(workspace: Path) -> bool:
    page, card = (workspace / "page.html"), (workspace / "card.md")
    there = [path for path in (page, card) if path.is_file()]
    return all(path.read_text().endswith("\n") for path in there) and (
        not page.is_file() or "</html>" in page.read_text()
    )


def _json(pattern: str) -> Callable[[Path], bool]:
    def whole(workspace: Path) -> bool:
        import json

        return all(json.loads(path.read_text()) for path in workspace.glob(pattern))

    return whole


def _rooms(workspace: Path) -> bool:
    ignored = workspace / "new/.gitignore"
    return not ignored.exists() or ignored.read_text().startswith("bundles/")


def _cache(workspace: Path) -> bool:
    from toolkit.deployment.net import load

    with load(workspace / "tiny.tar") as net:
        return bool(net.labels)


WRITERS = (
    Writer("init", "init new", ("new",), _rooms, fresh=True),
    Writer("train", TRAIN, ("models/tiny", "calibration/tiny"), _model),
    Writer("calibrate", "calibrate tiny --method minmax --force", ("calibration/tiny.record",), _record),
    Writer("export", EXPORT, ("bundles/tiny",), _bundle("bundles/tiny")),
    Writer("bundle pack", "bundle pack bundles/tiny -o tiny.tar", ("tiny.tar",), _bundle("tiny.tar")),
    Writer("bundle sign", "bundle sign tiny.tar --private-key fresh.pem --new-key",
           ("tiny.tar.sig", "fresh.pem", "fresh.pub"), _signature, fresh=True),
    Writer("bundle unpack", "bundle unpack tiny.tar -o out", ("out",), _bundle("out")),
    Writer("build", "build out --target rtx --precision int8 --opt-level 0", ("out",), _bundle("out")),
    Writer("selftest --save", "selftest bundles/tiny --backend ort --seconds 0.01 --save", ("bundles/tiny",),
           _json("bundles/tiny/*.json")),
    Writer("report", REPORT, ("page.html", "card.md"), _page),
    Writer("triton", "triton bundles/tiny -o repo", ("repo",), _json("repo/*.json")),
    Writer("load of a tar", "selftest tiny.tar --backend ort --seconds 0.01", ("cache",), _cache),
    Writer("cache --clear", "cache --clear", ("cache",), _cache),
)  # fmt: skip


def striped_set(path: Path) -> None:
    """`path` as a set of 4 classes: images uint8 (n, 16, 16, 1) with stripes whose width is the class."""
    parts = {}
    for part, count, seed in (("train", 160, 0), ("test", 60, 1)):
        labels = np.arange(count) % 4
        images = np.random.default_rng(seed).integers(0, 60, (count, 16, 16, 1), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[np.arange(16) // (label + 1) % 2 == 0] += 150
        parts |= {f"{part}_images": images, f"{part}_labels": labels}
    np.savez(path, **parts, classes=np.array(["north", "upper", "lower", "south"]))
