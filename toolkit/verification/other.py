"""A second bundle, or an ONNX file by itself, beside the first: which runner is held against which."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from toolkit.bundle.onnx_bytes import has_external_data
from toolkit.bundle.reading import Bundle, bundle_from_folder
from toolkit.deployment.runners import open_runners
from toolkit.errors import ToolkitError
from toolkit.graph.user.bounds import require_bounded
from toolkit.graph.user.trial import require_runs
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.runtime.runner import Runner
from toolkit.runtime.runner_id import SECOND, RunnerId
from toolkit.storage.external_data import take_in
from toolkit.storage.files import Content, content_of, read_onnx
from toolkit.storage.limits import FILE_BYTES


@dataclass(frozen=True)
class Other:
    """What is held against the first bundle.

    Attributes:
        bundle: None for an ONNX file.
        runners: its runners, by names that the first has not.
        against: for each of them the runner of the first; None where that is the reference, whichever it is.
        unavailable: what cannot run here, with the reason.
    """

    path: Path
    bundle: Bundle | None
    runners: dict[RunnerId, Runner]
    against: dict[RunnerId, RunnerId | None]
    unavailable: dict[RunnerId, str]


def other_bundle(path: Path, first: Bundle) -> Bundle | Content:
    """The second bundle, opened and checked; or an ONNX file's bytes with all its weights, counted and tried.

    Raises:
        BundleError: not a bundle. ToolkitError: neither, or of other images or labels than the first.
    """
    if path.suffix == ".onnx":
        if not path.is_file():
            raise ToolkitError(f"there is no file {path}", fix="check the path")
        content = content_of(path, FILE_BYTES)
        outside = has_external_data(content, ToolkitError)
        if outside or find_spec("onnx"):  # a device may have none; then the trial takes the longer to find out
            model = read_onnx(content)
            require_bounded(path, model)
            content = Content(path, model.SerializeToString()) if take_in(path, model) else content
        require_runs(path, content.data, (1, *first.preprocessing.shape), "uint8")
        return content
    second = bundle_from_folder(path, wanted=first.wanted.of_any_version())
    if second.labels != first.labels or second.preprocessing.shape != first.preprocessing.shape:
        raise ToolkitError(
            f"{path} is no variant of {first.folder}: they take other images or have other labels",
            found=f"{_kind(second)} and {_kind(first)}",
            allowed="two bundles of one task",
        )
    return second


def _kind(bundle: Bundle) -> str:
    height, width, channels = bundle.preprocessing.shape
    return f"{height}x{width}x{channels} with {len(bundle.labels)} labels ({', '.join(bundle.labels[:3])}, ...)"


@contextmanager
def opened_other(
    path: Path,
    second: Bundle | Content,
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    first: dict[RunnerId, Runner],
    run_builder: bool,
    by_name: bool,
) -> Iterator[Other]:
    """Opens what can be compared with the runners of the `first` bundle, and closes it.

    Raises:
        BackendUnavailable: none of it runs here. ToolkitError: no runner of the two is alike, or no ONNX file.
    """
    if isinstance(second, Content):
        with OrtRunner(second) as runner:
            file, like = RunnerId(path.name), next((one for one in first if by_name and one.backend == "ort"), None)
            yield Other(path, None, {file: runner}, {file: like}, {})
        return
    opened = open_runners(
        second, backends, tuple(p for p in precisions if p in second.precisions), run_builder, by_name, slow=True
    )
    try:
        shared = [one for one in opened.runners if one in first]
        if not shared:
            raise ToolkitError(
                f"no runner of {path} has its like in the first bundle",
                found=f"{', '.join(map(str, opened.runners))} and {', '.join(map(str, first))}",
                fix="name a `precisions=` that both hold",
            )
        runners = {_second(one): opened.runners[one] for one in shared}
        unavailable = {_second(one): why for one, why in opened.unavailable.items()}
        yield Other(path, second, runners, {_second(one): one for one in shared}, unavailable)
    finally:
        opened.close()


def _second(one: RunnerId) -> RunnerId:
    return replace(one, side=SECOND)
