"""Image folders: layouts, kinds of files, damage; each with real files that Pillow wrote."""

from __future__ import annotations

import io
import os
import resource
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolkit.data import dataset_from_spec, summary
from toolkit.data.image_files import Unreadable, read_image
from toolkit.errors import DataError, ToolkitError

RNG = np.random.default_rng(1)


def picture(channels: int = 3, size: int = 8) -> Image.Image:
    pixels = RNG.integers(0, 256, (size, size, channels), np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten RGB images, 8x8, in four formats."""
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(10):
            suffix = ("png", "bmp", "webp", "PNG", "jpg")[i % 5]
            picture().save(tmp_path / "set" / name / f"{i}.{suffix}")
    return tmp_path / "set"


def load(folder: Path, **options: Any) -> Any:
    return dataset_from_spec(str(folder), **options)


def refused(folder: Path, *parts: str, **options: Any) -> None:
    with pytest.raises(DataError) as caught:
        load(folder, **options)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_folder_is_split_four_to_one_in_each_class(folder: Path) -> None:
    facts = summary(load(folder))
    assert facts["classes"] == ["cat", "dog"]
    assert facts["shape"] == [8, 8, 3]
    assert facts["train"]["per_class"] == {"cat": 8, "dog": 8}
    assert facts["test"]["per_class"] == {"cat": 2, "dog": 2}
    assert facts["test_images_also_in_train"] == 0


def test_a_split_survives_renamed_files_and_keeps_copies_together(folder: Path) -> None:
    test = {image.tobytes() for image in load(folder, seed=5).test.images_nhwc}
    for i, path in enumerate(sorted((folder / "cat").iterdir())):
        shutil.copy(path, folder / "cat" / f"copy-{i}{path.suffix}")
        path.rename(folder / "cat" / f"{99 - i}-renamed{path.suffix}")
    again = load(folder, seed=5)
    assert {image.tobytes() for image in again.test.images_nhwc} == test
    assert summary(again)["test_images_also_in_train"] == 0
    assert {image.tobytes() for image in load(folder, seed=6).test.images_nhwc} != test


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_a_test_part_is_used_as_it_is(tmp_path: Path, folder: Path, name: str) -> None:
    for part, count in (("train", 3), (name, 2)):
        for kind in ("b", "a"):
            (tmp_path / "parts" / part / kind).mkdir(parents=True)
            for i in range(count):
                picture().save(tmp_path / "parts" / part / kind / f"{i}.png")
    dataset = load(tmp_path / "parts")
    assert (len(dataset.train), len(dataset.test), dataset.train.classes) == (6, 4, ("a", "b"))
    assert dataset.test.source.endswith(name)


def test_a_train_folder_without_a_test_folder_is_refused(tmp_path: Path, folder: Path) -> None:
    folder.rename(tmp_path / "train")
    refused(tmp_path, "has train/ and no test part", f"give {tmp_path / 'train'} itself")


def test_a_class_that_only_the_test_part_has_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "parts").mkdir()
    shutil.copytree(folder, tmp_path / "parts" / "train")
    shutil.copytree(folder, tmp_path / "parts" / "test")
    (tmp_path / "parts" / "test" / "dog").rename(tmp_path / "parts" / "test" / "wolf")
    refused(tmp_path / "parts", "wolf", "cat, dog")


def test_a_class_may_be_called_train(folder: Path) -> None:
    (folder / "cat").rename(folder / "train")
    assert load(folder).train.classes == ("dog", "train")


def test_gray_files_make_one_channel_and_gray_among_color_three(tmp_path: Path, folder: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "gray" / name).mkdir(parents=True)
        for i in range(3):
            picture(1).save(tmp_path / "gray" / name / f"{i}.png")
    picture(1).convert("1").save(tmp_path / "gray" / "a" / "bilevel.png")
    assert load(tmp_path / "gray").train.images_nhwc.shape[1:] == (8, 8, 1)
    picture(1).save(folder / "cat" / "gray.png")
    assert load(folder).train.images_nhwc.shape[1:] == (8, 8, 3)


def test_a_gray_png_is_refused_by_a_model_that_takes_rgb(folder: Path) -> None:
    picture(1).save(folder / "cat" / "gray.png")
    refused(folder, "gray.png is grayscale and the model takes RGB", "`convert=True`", shape=(8, 8, 3))
    assert load(folder, shape=(8, 8, 3), convert=True).train.images_nhwc.shape[1:] == (8, 8, 3)
    refused(folder, "is RGB and the model takes grayscale", "`convert=True`", shape=(8, 8, 1))


def test_31x31_images_are_refused_by_a_model_that_takes_32x32(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        picture(3, 32).save(path)
    picture(3, 31).save(folder / "dog" / "3.PNG")
    refused(folder, "3.PNG has another size", "31x31", "32x32", "`convert=True`", shape=(32, 32, 3))
    assert load(folder, shape=(32, 32, 3), convert=True).test.images_nhwc.shape[1:] == (32, 32, 3)
    refused(folder, "differ in size", "0.png", "3.PNG", "32x32", "31x31")


def test_height_and_width_are_not_mixed_up(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        Image.new("RGB", (6, 4), tuple(RNG.integers(0, 255, 3).tolist())).save(path)
    assert load(folder, shape=(4, 6, 3)).train.images_nhwc.shape[1:] == (4, 6, 3)
    assert load(folder, shape=(5, 7, 1), convert=True).train.images_nhwc.shape[1:] == (5, 7, 1)


def test_resizing_averages_what_it_drops(folder: Path) -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    Image.fromarray(stripes).save(folder / "cat" / "stripes.png")
    dataset = load(folder, shape=(8, 8, 1), convert=True)
    images = np.concatenate([dataset.train.images_nhwc, dataset.test.images_nhwc])
    # without antialiasing the stripes would come out black or white
    assert any((abs(image.astype(int) - 128) < 12).all() for image in images)


def test_a_corrupt_jpeg_is_named_and_counted(folder: Path) -> None:
    path = folder / "dog" / "4.jpg"
    path.write_bytes(path.read_bytes()[:200])
    refused(folder, "1 of 20 image files cannot be read", str(path))


def test_every_kind_of_damage_is_counted_in_one_error(folder: Path) -> None:
    (folder / "cat" / "0.png").write_bytes(b"")
    (folder / "cat" / "1.bmp").write_text("not an image")
    (folder / "cat" / "2.webp").write_bytes((folder / "cat" / "2.webp").read_bytes()[:30])
    (folder / "cat" / "9.png").symlink_to("nowhere.png")
    refused(folder, "4 of 21 image files", "0.png (not a PNG", "1.bmp", "2.webp", "and 1 more")


def test_damaged_files_are_left_out_named_and_counted_when_asked(folder: Path) -> None:
    (folder / "cat" / "0.png").write_bytes(b"")
    (folder / "dog" / "4.jpg").write_bytes((folder / "dog" / "4.jpg").read_bytes()[:200])
    dataset = load(folder, skip_bad=True)
    assert len(dataset.train) + len(dataset.test) == 18
    assert [Path(line.partition(" (")[0]).name for line in dataset.skipped] == ["0.png", "4.jpg"]
    assert "not a PNG" in dataset.skipped[0]
    assert "2 damaged files left out" in dataset.train.source
    assert summary(dataset)["skipped"] == list(dataset.skipped)
    refused(folder, "2 of 20 image files", "`skip_bad=True`")


def test_nothing_is_said_to_be_left_out_where_nothing_is_damaged(folder: Path) -> None:
    dataset = load(folder, skip_bad=True)
    assert dataset.skipped == ()
    assert dataset.train.sha256 == load(folder).train.sha256
    assert "left out" not in dataset.train.source


def test_labels_stay_with_their_images_when_one_before_them_is_left_out(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label, name in enumerate(("a", "b")):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(3):
                Image.new("L", (8, 8), 100 * label + index).save(tmp_path / part / name / f"{index}.png")
    (tmp_path / "train" / "a" / "1.png").write_bytes(b"x")
    (tmp_path / "test" / "b" / "0.png").write_bytes(b"x")
    dataset = load(tmp_path, skip_bad=True)
    for images, values in ((dataset.train, [0, 2, 100, 101, 102]), (dataset.test, [0, 1, 2, 101, 102])):
        assert images.images_nhwc[:, 0, 0, 0].tolist() == values
        assert images.labels.tolist() == [value // 100 for value in values]


def test_a_class_whose_every_file_is_damaged_is_refused_all_the_same(folder: Path) -> None:
    for path in (folder / "dog").iterdir():
        path.write_bytes(b"")
    refused(folder, "every image of class 'dog'", "10 files", skip_bad=True)


@pytest.mark.parametrize("name", ["a.png", "print.jpg", "deep.png", "old.gif"])
def test_a_refused_kind_is_no_damage_and_never_skipped(folder: Path, name: str) -> None:
    write, says = REFUSED[name]
    write(folder / "cat" / name)
    refused(folder, name, says, skip_bad=True)


def test_an_animated_gif_by_another_name_is_no_image(folder: Path) -> None:
    picture().save(folder / "old.gif", save_all=True, append_images=[picture()])
    (folder / "old.gif").rename(folder / "cat" / "still.png")
    refused(folder, "still.png (not a PNG, JPEG, BMP or WebP file)")


def test_a_photo_from_a_turned_camera_is_upright_as_jpeg_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8  # turned by 90 degrees the other way
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(3):
            pixels = RNG.integers(0, 256, (8, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.jpg", exif=exif)
    assert summary(load(tmp_path))["shape"] == [16, 8, 3]


def test_a_folder_that_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the system is made to say no."""
    scan = os.scandir

    def denied(path: Any) -> Any:
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(ToolkitError, match="cannot read") as caught:
        load(folder)
    assert "dog" in str(caught.value)
    assert "permission denied" in str(caught.value)


@pytest.mark.parametrize("seed", range(12))
def test_no_damage_to_a_png_is_more_than_an_error(folder: Path, seed: int) -> None:
    path, rng = folder / "cat" / "0.png", np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for _ in range(3):
        data[rng.integers(len(data))] = rng.integers(256)
    path.write_bytes(data)
    # a byte may not matter; anything but the toolkit's own error would fail here
    with suppress(ToolkitError):
        load(folder)


def sixteen_bit_rgb(path: Path) -> None:
    """A PNG that Pillow cannot write: 8x8 RGB with 16 bits a channel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(range(48)) for _ in range(8))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def animated(path: Path) -> None:
    picture().save(path, save_all=True, append_images=[picture()])


def half_transparent(mode: str) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, (8, 8), (200, 100) if mode == "LA" else (200, 100, 50, 100)).save(path)


def transparent_palette(path: Path) -> None:
    picture().quantize(4).save(path, transparency=0)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a.png": (animated, "is animated"),
    "a.webp": (animated, "is animated"),
    "deep.png": (lambda path: Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(path), "16-bit"),
    "deep-rgb.png": (sixteen_bit_rgb, "16-bit image with color"),
    "print.jpg": (lambda path: picture().convert("CMYK").save(path), "CMYK"),
    "clear.png": (half_transparent("RGBA"), "transparency"),
    "clear-gray.png": (half_transparent("LA"), "transparency"),
    "clear.webp": (half_transparent("RGBA"), "transparency"),
    "palette.png": (transparent_palette, "transparency"),
    "old.gif": (lambda path: picture().save(path), "of a kind that is not read"),
    "scan.TIFF": (lambda path: picture().save(path), "of a kind that is not read"),
}
CONVERTIBLE = ("deep.png", "print.jpg", "clear.png", "clear-gray.png", "clear.webp", "palette.png")


@pytest.mark.parametrize("name", REFUSED)
def test_a_kind_without_a_plain_reading_is_refused_by_name(folder: Path, name: str) -> None:
    write, says = REFUSED[name]
    write(folder / "cat" / name)
    refused(folder, name, says)


@pytest.mark.parametrize("name", REFUSED)
def test_convert_takes_what_has_a_right_conversion_and_nothing_else(folder: Path, name: str) -> None:
    REFUSED[name][0](folder / "cat" / name)
    if name in CONVERTIBLE:
        dataset = load(folder, convert=True)
        assert len(dataset.train) + len(dataset.test) == 21
    else:
        refused(folder, name, convert=True)


@pytest.mark.parametrize(
    ("name", "value"), [("deep.png", [156] * 3), ("clear.png", [78, 39, 20]), ("clear-gray.png", [78] * 3)]
)
def test_conversions_give_the_right_numbers(folder: Path, name: str, value: list[int]) -> None:
    REFUSED[name][0](folder / "cat" / name)
    dataset = load(folder, convert=True)
    images = np.concatenate([dataset.train.images_nhwc, dataset.test.images_nhwc])
    # 40000 / 257 = 155.6; 200, 100 and 50 at 100/255 on black
    assert any((image == value).all() for image in images)


def test_an_opaque_alpha_channel_and_a_palette_change_nothing(folder: Path) -> None:
    image = Image.open(folder / "cat" / "0.png")
    before = load(folder).train.sha256
    image.convert("RGBA").save(folder / "cat" / "0.png")
    assert load(folder).train.sha256 == before
    picture().quantize(4).save(folder / "cat" / "palette.png")
    load(folder)


def test_a_photo_is_turned_upright_by_its_exif(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    half = np.zeros((8, 8, 3), np.uint8)
    half[:, :4] = 255
    Image.fromarray(half).save(folder / "cat" / "turned.png", exif=exif)
    dataset = load(folder)
    images = np.concatenate([dataset.train.images_nhwc, dataset.test.images_nhwc])
    assert any((image == half.transpose(1, 0, 2)).all() for image in images)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(folder: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "PNG")
    (folder / "cat" / "bomb.png").write_bytes(buffer.getvalue())
    refused(folder, "1 of 21", "bomb.png", "exceeds limit")


def test_hidden_files_other_files_and_hidden_folders_are_skipped(folder: Path) -> None:
    before = load(folder).train.sha256
    (folder / ".git").mkdir()
    (folder / "cat" / ".thumb.png").write_text("junk")
    (folder / "cat" / "notes.txt").write_text("text")
    (folder / "readme.md").write_text("text")
    assert load(folder).train.sha256 == before


def test_folders_inside_a_class_belong_to_it(folder: Path) -> None:
    (folder / "cat" / "indoors").mkdir()
    picture().save(folder / "cat" / "indoors" / "0.png")
    assert summary(load(folder))["train"]["images"] == 17


def test_symlink_loops_end_and_add_nothing(folder: Path) -> None:
    before = load(folder).train.sha256
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "cat" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "cat" / "self").symlink_to(folder / "cat", target_is_directory=True)
    assert load(folder).train.sha256 == before


def test_a_linked_class_folder_is_followed(tmp_path: Path, folder: Path) -> None:
    (folder / "dog").rename(tmp_path / "elsewhere")
    (folder / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert summary(load(folder))["train"]["per_class"] == {"cat": 8, "dog": 8}


def test_empty_and_flat_folders_are_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has no class folders", "no folders", "cat/1.png")
    refused(folder / "cat", "has no class folders", "10 images and no folders")


def test_a_class_without_images_and_a_lone_class_are_refused(folder: Path) -> None:
    (folder / "bird").mkdir()
    refused(folder, "class folder", "bird has no images", "1 of 3")
    (folder / "bird").rmdir()
    shutil.rmtree(folder / "dog")
    refused(folder, "has only one class", "cat")


def test_an_image_a_class_is_too_few_to_split(folder: Path) -> None:
    for path in [*folder.glob("*/[1-9].*")]:
        path.unlink()
    refused(folder, "too few images to split", "2 different images in 2 classes")


def test_progress_counts_every_file_once(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    load(folder, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 20) for i in range(1, 21)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(folder: Path) -> None:
    (folder / "cat" / "0.png").chmod(0)
    refused(folder, "0.png", "Permission denied")


def test_a_pipe_a_device_and_a_picture_of_80_million_pixels_are_named_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    rows = zlib.compress(bytes(8001), 9)  # one row; the header is what counts
    head = struct.pack(">IIBBBBB", 64000, 10000, 1, 0, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    )
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    for name in ("pipe.png", "zero.png", "large.png"):
        with pytest.raises(Unreadable):
            read_image(tmp_path / name)
    assert time.monotonic() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


def test_the_same_files_judge_whatever_size_and_way_to_resize(tmp_path: Path) -> None:
    shades: dict[int, int] = {}
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            shades[(shade := 10 + 20 * len(shades) // 2)] = len(shades)
            Image.new("RGB", (12, 8), (shade,) * 3).save(tmp_path / name / f"{i}.png")
    wide = {int(image[4, 4, 0]) for image in load(tmp_path).test.images_nhwc}
    for how in ("squash", "crop", "pad"):
        for size in (6, 10):
            found = load(tmp_path, shape=(size, size, 3), convert=True, resize=how)
            assert {int(image[size // 2, size // 2, 0]) for image in found.test.images_nhwc} == wide
