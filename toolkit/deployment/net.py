"""A bundle in somebody's product: `toolkit.load("bundle/").classify(images)`, with numpy and one backend alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from toolkit.bundle.manifest import best_first
from toolkit.bundle.reading import Bundle, bundle_from_folder
from toolkit.bundle.requirements import requirement
from toolkit.compare.answers import LOGITS, PROBABILITIES, SIGMOIDS
from toolkit.contracts import Float32, Preprocessing, UInt8, require_images
from toolkit.data.fit import SQUASH
from toolkit.deployment.openers import OPENERS, open_ort
from toolkit.errors import BackendUnavailable, DataError, ModelError, ToolkitError
from toolkit.runtime.cuda import wait_for_gpu_by
from toolkit.runtime.cuda.device_images import device_images
from toolkit.runtime.runner import Runner, WarmsUp

BACKENDS = ("trt", "ort")  # the order of "auto"
LARGEST_BATCH = 256  # images in one call of the engine; more are split, so that memory stays flat
MOST_THREADS = 1024  # onnxruntime takes any number, and starts so many
ON_THE_HOST = (1, 3)  # kDLCPU and kDLCUDAHost of DLPack's DLDeviceType


class Answers(NamedTuple):
    """What a net says of N images: a label each, and probabilities float32 (N, classes) that sum to 1."""

    labels: list[str]
    probabilities: Float32


class Net:
    """A loaded classifier. Safe to call from several threads; made by `load`, closed by `with` or `close`.

    Attributes:
        model: its name.
        backend: "trt" or "ort", the one that answers.
        precision: the file that answers, such as "int8-cpu".
        labels: one a logit, in order.
        preprocessing: size and channels that `classify` takes; the normalization is in the graph.
        resize: how images of other proportions came to that size where it was judged: "squash", "crop" or "pad".
        device: the GPU's name, or "CPU".
        passed_over: backends before it in the order of "auto", each with the reason why it does not answer.
    """

    def __init__(
        self, bundle: Bundle, runner: Runner, backend: str, precision: str, passed_over: dict[str, str]
    ) -> None:
        self.backend, self.precision, self.passed_over = backend, precision, passed_over
        self.labels: tuple[str, ...] = bundle.labels
        self.preprocessing: Preprocessing = bundle.preprocessing
        self.model, self.device = bundle.model, str(getattr(runner, "device", "CPU"))
        read = (bundle.manifest.get("evaluation") or {}).get("read") or {}
        self.resize = str(read.get("resize") or SQUASH)
        self._who = f"model '{bundle.model}'"
        self._shape = bundle.preprocessing.shape
        self._softmax = bundle.manifest.get("output", {}).get("kind", LOGITS) not in (PROBABILITIES, SIGMOIDS)
        self._ones = np.ones(len(bundle.labels), np.float32)
        self._runner: Runner | None = runner
        self._process = os.getpid()

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self._shape))
        closed = ", closed" if self._runner is None else ""
        return (
            f"<toolkit.Net '{self.model}': {self.precision} on {self.backend}, {self.device}; "
            f"uint8 (N, {shape}) to {len(self.labels)} classes{closed}>"
        )

    @property
    def description(self) -> str:
        """Backend, version, provider and file, for logs; with TensorRT also whether CUDA graphs are used or why not."""
        return "closed" if self._runner is None else self._runner.description

    def logits(self, images: Any) -> Float32:
        """Logits float32 (N, classes), a fresh array.

        Args:
            images: uint8 (N, H, W, C), or one image (H, W, C): a numpy array, a list of such, a torch tensor on the
                CPU, or anything that numpy reads. No images give no rows. Any memory layout; nothing is written.
                With TensorRT also memory of its GPU, in C order, with `__cuda_array_interface__` or DLPack.

        Raises:
            DataError: another dtype, size or number of channels, or images on a GPU that the backend cannot read.
            ToolkitError: the net is closed, or was loaded before a fork.
        """
        runner = self._usable()
        if self.backend == "trt" and type(images) is not np.ndarray and (found := device_images(images)) is not None:
            return runner.logits(found)  # type: ignore[arg-type]  # the one runner that takes it
        pixels = self._images(images)
        if 0 < len(pixels) <= LARGEST_BATCH:
            return runner.logits(pixels)
        parts = [runner.logits(pixels[i : i + LARGEST_BATCH]) for i in range(0, len(pixels), LARGEST_BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), np.float32)

    def classify(self, images: Any) -> Answers:
        """The likeliest label of each image and the probabilities of all, softmax of the logits; see `logits`.

        One image gives one label: `labels[0]`. A network that gives probabilities by itself has them handed on as they
        are; those of independent sigmoids do not sum to 1.

        Raises:
            ModelError: an answer is NaN or infinite; those of `logits`.
        """
        logits = self.logits(images)
        if len(logits) == 0:
            return Answers([], logits)
        best = logits.argmax(axis=1).tolist()
        alone = len(best) == 1
        top = logits[0, best[0]] if alone else np.maximum.reduce(logits, axis=1, keepdims=True)
        if not (isfinite(top) if alone else np.isfinite(top).all()):  # a NaN is the largest of a row
            raise self._no_numbers(np.atleast_1d(top))
        if not self._softmax:
            return Answers([self.labels[i] for i in best], logits)
        # For one image numpy's own overhead is most of this call's: a reduction costs 10 us when caches are cold, a
        # product with ones 3.
        logits -= top
        probabilities: Float32 = np.exp(logits, out=logits)
        probabilities /= probabilities.dot(self._ones)[0] if alone else np.add.reduce(logits, axis=1, keepdims=True)
        return Answers([self.labels[i] for i in best], probabilities)

    def _no_numbers(self, top: Float32) -> ModelError:
        """Of each image's largest answer, (N,) or (N, 1): without this, argmax would name some class."""
        bad = np.flatnonzero(~np.isfinite(top.reshape(-1)))
        return ModelError(
            f"{self._who} answers with NaN or infinity",
            found=f"{len(bad)} of {len(top)} images, the first at index {bad[0]}; {self.backend} {self.precision}",
            allowed="finite numbers, from which a class can be told",
            fix="`toolkit.verify(..., layers=True)` names the layer; another `precision=` may hold its values",
        )

    def warm_up(self, batches: Sequence[int] = (1,), streams: int = 1) -> None:
        """Makes now what first calls make, so that calls under load are as fast as later ones; takes some seconds.

        Args:
            batches: sizes that will be called.
            streams: calls from so many threads that TensorRT runs at once, each with buffers, an execution context and
                CUDA graphs of its own. ONNX Runtime shares one session.

        Raises:
            ToolkitError: the net is closed, or was loaded before a fork; a size or number below 1.
        """
        runner = self._usable()
        if streams < 1 or not batches or min(batches) < 1:
            found = f"batches {tuple(batches)}, streams {streams}"
            raise ToolkitError("nothing to warm up for", found=found, allowed="1 and up")
        sizes = {size for batch in batches for size in (min(batch, LARGEST_BATCH), batch % LARGEST_BATCH) if size}
        if isinstance(runner, WarmsUp):
            return runner.warm_up(sorted(sizes), streams)
        for size in sorted(sizes):
            for _ in range(2):
                runner.logits(np.zeros((size, *self._shape), np.uint8))

    def _usable(self) -> Runner:
        """The runner, unless the net is closed or was loaded before a fork."""
        if self._runner is None:
            raise ToolkitError("this net is closed", fix="call toolkit.load again")
        if os.getpid() != self._process:
            raise ToolkitError(
                "this net was loaded before the process forked, and its threads are not in this process",
                fix="call toolkit.load in each worker",
            )
        return self._runner

    def _images(self, images: Any) -> UInt8:
        if type(images) is np.ndarray and images.dtype == np.uint8 and images.shape[1:] == self._shape:
            return images
        pixels = images if type(images) is np.ndarray else _on_the_host(images)
        if pixels.ndim == 2 and self.preprocessing.channels == 1:
            pixels = pixels[..., None]
        if pixels.ndim == 3 and pixels.shape[1:] == self.preprocessing.shape[:2]:
            raise DataError(
                f"{self._who} does not take images without an axis of channels",
                found=f"{pixels.dtype} {pixels.shape}",
                allowed=f"uint8 (N, {', '.join(map(str, self.preprocessing.shape))})",
                fix="images[..., None] of numpy"
                + "; for RGB numpy.repeat(images[..., None], 3, axis=3)" * (self.preprocessing.channels == 3),
            )
        if pixels.ndim == 3:
            pixels = pixels[None]
        elif pixels.shape == (0,):  # an empty list says nothing about sizes
            return np.zeros((0, *self.preprocessing.shape), np.uint8)
        require_images(pixels, self.preprocessing, self._who)
        return pixels

    def close(self) -> None:
        """Gives back what the backend holds; may be called twice."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def __enter__(self) -> Net:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _on_the_host(images: Any) -> UInt8:
    """What numpy makes of it without a copy from another device.

    Raises:
        DataError: it lies on a GPU, or its parts differ in shape.
    """
    if isinstance(images, np.ma.MaskedArray):
        raise DataError(
            "these images are a masked array, and no network leaves pixels out",
            found=f"{int(np.ma.getmaskarray(images).sum()):,} of {images.size:,} pixels masked",
            fix="images.filled(0), or whatever stands for what is not there",
        )
    device = getattr(images, "__dlpack_device__", None)
    if hasattr(images, "__cuda_array_interface__") or (device is not None and int(device()[0]) not in ON_THE_HOST):
        raise DataError(
            "these images lie on a GPU, and this backend reads the host's memory",
            found=f"{type(images).__module__}.{type(images).__qualname__}",
            fix="images.cpu() of torch, images.get() of cupy",
        )
    try:
        pixels: UInt8 = np.asarray(images)
    except (ValueError, TypeError) as error:  # numpy's words for a ragged list
        raise DataError(
            "these images are no array", found=str(error)[:120], allowed="images of one size, uint8 (N, H, W, C)"
        ) from error
    return pixels


def load(
    bundle: str | os.PathLike[str],
    *,
    backend: str = "auto",
    precision: str = "best",
    strict: bool = True,
    threads: int = 0,
    key: str | os.PathLike[str] | None = None,
    min_version: int | None = None,
    wait: str = "auto",
) -> Net:
    """Opens a bundle for use in a program; every file's hash is checked first.

    Args:
        bundle: the folder that `toolkit export` wrote, or the `.tar` of `toolkit bundle pack`.
        backend: "trt", "ort", or "auto": TensorRT where it can run, then ONNX Runtime; `Net.backend` says which.
        precision: of the file that answers, or "best": for ONNX Runtime on the CPU int8-cpu, else fp32.
        strict: with "auto", a backend that is here and fails is an error. False passes it over with a warning.
            One that is not here is passed over either way, and named in `Net.passed_over`.
        threads: of ONNX Runtime; 0 takes every core.
        key: a public ed25519 key that must have signed it; a tar's signature is checked before anything in it is read.
            A `toolkit.toml` of the workspace that asks for one is heeded as well.
        min_version: the least version that its signature may say: no older bundle is loaded again.
        wait: how threads wait for the GPU with TensorRT: "spin" wakes at once and keeps a core busy, "block" sleeps,
            "auto" leaves it to CUDA, which on a Jetson may sleep. It holds for the whole process.

    Raises:
        BundleError: not a bundle, changed since it was written, not signed with `key`, or older than
            `min_version`.
        BackendUnavailable: no backend can run.
        ToolkitError: an unknown backend or precision, or a backend that failed.
    """
    opened = bundle_from_folder(Path(bundle), wanted=requirement(key, min_version))
    if backend != "auto" and backend not in BACKENDS:
        raise ToolkitError("unknown backend", found=backend, allowed="auto, " + ", ".join(BACKENDS))
    if precision != "best":
        opened.onnx_file(precision)  # refuses what the bundle lacks
    if not (isinstance(threads, int) and 0 <= threads <= MOST_THREADS):
        raise ToolkitError("unknown number of threads", found=threads, allowed=f"0 (every core) to {MOST_THREADS}")
    names = BACKENDS if backend == "auto" else (backend,)
    passed_over: dict[str, str] = {}
    for name in names:
        try:
            chosen = _precision(opened, name, precision)
            return Net(opened, _opened(opened, name, chosen, threads, wait), name, chosen, passed_over)
        except BackendUnavailable as error:
            if backend != "auto":
                raise
            passed_over[name] = error.in_one_line()
        except ToolkitError as error:
            if backend != "auto" or strict:
                raise
            passed_over[name] = error.in_one_line()
            warnings.warn(f"{name} failed and was passed over: {error.what}", RuntimeWarning, stacklevel=2)
    raise BackendUnavailable(
        "no backend can run this bundle here",
        found="; ".join(f"{name}: {reason}" for name, reason in passed_over.items()),
        fix="pip install onnxruntime",
    )


def _precision(bundle: Bundle, backend: str, wanted: str) -> str:
    if wanted != "best":
        return wanted
    built = tuple(entry["precision"] for entry in bundle.engines()) if backend == "trt" else ()
    there, best = built or bundle.precisions, best_first(on_cpu=backend == "ort")
    found = next((precision for precision in best if precision in there), None)
    if found is None:
        raise BackendUnavailable(
            f"the bundle has no {' or '.join(best)} model, which {backend} runs unless told otherwise",
            found=", ".join(bundle.precisions),
            fix="toolkit.load(..., precision=) names another",
        )
    return found


def _opened(bundle: Bundle, backend: str, precision: str, threads: int, wait: str) -> Runner:
    """The runner of one backend."""
    if backend == "ort":
        return open_ort(bundle, precision, threads)
    wait_for_gpu_by(wait)
    return OPENERS[backend](bundle, precision)
