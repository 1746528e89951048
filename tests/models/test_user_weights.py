"""Claims about other people's checkpoints: found wherever they usually are, explained where they do not fit."""

from __future__ import annotations

import argparse
import os
import time
import warnings
import zipfile
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from toolkit.contracts import Preprocessing
from toolkit.errors import ModelError, ToolkitError
from toolkit.models.user_network import Source, classifier_of, network_from_source, source_from_dict
from toolkit.models.user_weights import load_user_weights, weights_from_checkpoint


def build(num_classes: int = 3, width: int = 4) -> nn.Sequential:
    """Convolution, norm, head."""
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), pool, nn.Linear(width, num_classes))


class Wrapped(nn.Module):
    """A net whose own names begin with `model.`."""

    def __init__(self) -> None:
        super().__init__()
        self.model = build()


@pytest.fixture
def trained() -> nn.Sequential:
    """A net whose every tensor differs from a fresh one's."""
    net = build()
    for value in net.state_dict().values():
        value.copy_(torch.rand(value.shape) + 1)
    return net


def load(path: Path, net: nn.Module | None = None, key: str | None = None) -> tuple[nn.Module, str]:
    net = build() if net is None else net
    return net, load_user_weights(net, weights_from_checkpoint(path), path, build, key).words


def same(one: nn.Module, other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.state_dict().items())


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    ("nest", "found_as"),
    [
        (lambda state: state, "the file itself"),
        (lambda state: {"state_dict": state, "epoch": 3, "lr": 0.1}, "state_dict"),
        (lambda state: {"model": state, "optimizer": {"lr": 1}}, "model"),
        (lambda state: {"model_state_dict": state}, "model_state_dict"),
        (lambda state: {"net": state, "acc": 93.1}, "net"),
        (lambda state: {"ema": {"state_dict": state}}, "ema.state_dict"),
        (
            lambda state: {
                "model": state,
                "args": argparse.Namespace(output=Path("x"), took=timedelta(1)),
                "best": np.float64(91.7),
                "history": defaultdict(list, loss=[np.float32(1)]),
                "random": np.random.get_state(),
            },
            "model",
        ),
        (lambda state: prefixed(state, "module."), "the file itself, without 'module.'"),
        (
            lambda state: prefixed(state, "module._orig_mod."),
            "the file itself, without 'module.', without '_orig_mod.'",
        ),
        (lambda state: {"state_dict": prefixed(state, "model.")}, "state_dict, without 'model.'"),
        (
            lambda state: prefixed(state, "module.") | {"n_averaged": torch.tensor(4)},
            "the file itself, without 'module.'",
        ),
    ],
)
def test_weights_are_found_where_training_scripts_put_them(
    trained: nn.Sequential, nest: Any, found_as: str, tmp_path: Path
) -> None:
    torch.save(nest(trained.state_dict()), tmp_path / "w.pth")
    net, words = load(tmp_path / "w.pth")
    assert same(net, trained.state_dict())
    assert words == found_as


def test_safetensors_and_half_precision_are_read(trained: nn.Sequential, tmp_path: Path) -> None:
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    assert same(load(tmp_path / "w.safetensors")[0], trained.state_dict())
    torch.save(trained.half().state_dict(), tmp_path / "half.pt")
    net, _ = load(tmp_path / "half.pt")
    assert {value.dtype for value in net.parameters()} == {torch.float32}


def test_a_prefix_that_is_the_networks_own_stays(tmp_path: Path) -> None:
    net = Wrapped()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    assert load(tmp_path / "w.pth", Wrapped())[1] == "the file itself"


def test_counters_that_old_checkpoints_lack_are_no_loss(trained: nn.Sequential, tmp_path: Path) -> None:
    state = trained.state_dict()
    del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "w.pth")
    load(tmp_path / "w.pth")


def worse(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Raw weights that are not the averaged ones."""
    return {name: value + 1 for name, value in state.items()}


def parameters_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What hand-written averages keep: no running means."""
    return {name: value for name, value in state.items() if name in dict(build().named_parameters())}


@pytest.mark.parametrize(
    ("nest", "place"),
    [
        (lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema, "epoch": 3}, "state_dict_ema"),
        (lambda raw, ema: {"model": raw, "ema": ema, "best_acc1": torch.tensor(91.7)}, "ema"),
        (
            lambda raw, ema: {
                "model": prefixed(raw, "module."),
                "model_ema": {"n_averaged": torch.tensor(9), **prefixed(ema, "module.module.")},
            },
            "model_ema",
        ),
        (lambda raw, ema: {"model": raw, "ema": {"module": ema, "updates": 5}}, "ema.module"),
        (lambda raw, ema: {"net": raw, "ema_model": {"state_dict": prefixed(ema, "module.")}}, "ema_model.state_dict"),
        (lambda raw, ema: {"params": raw, "params_ema": ema}, "params_ema"),
        (lambda raw, ema: {"model": raw, "swa_model": ema}, "swa_model"),
        (
            lambda raw, ema: {"state_dict": {**prefixed(raw, "model."), **prefixed(ema, "ema_model.module.")}},
            "state_dict.ema_model",
        ),
        (
            lambda raw, ema: {
                "meta": {"mmengine_version": "0.10.7"}, "state_dict": ema,
                "ema_state_dict": {"steps": torch.tensor(7), **prefixed(raw, "module.")},
            },
            "state_dict",
        ),
    ],
)  # fmt: skip
def test_a_moving_average_beside_raw_weights_is_taken_and_named(
    trained: nn.Sequential, nest: Any, place: str, tmp_path: Path
) -> None:
    ema = trained.state_dict()
    torch.save(nest(worse(ema), ema), tmp_path / "w.pth")
    net, words = load(tmp_path / "w.pth")
    assert same(net, ema)
    assert words.startswith(f"{place}, a moving average (others are in ")


@pytest.mark.parametrize("listed", [False, True])
def test_an_average_of_the_parameters_alone_is_completed_by_the_raw_buffers(
    trained: nn.Sequential, listed: bool, tmp_path: Path
) -> None:
    ema = trained.state_dict()
    raw, shadow = worse(ema), parameters_of(ema)
    torch.save({"model": raw, "ema": {"shadow": list(shadow.values()) if listed else shadow}}, tmp_path / "w.pth")
    net, words = load(tmp_path / "w.pth")
    assert same(net, {**raw, **shadow})
    assert words.startswith("ema.shadow with the buffers of model, a moving average")


def flattened(state: dict[str, Tensor], joint: str) -> dict[str, Tensor]:
    return {name.replace(".", joint): value for name, value in state.items()}


def test_an_average_that_is_kept_by_names_without_dots_is_read_by_its_own(
    trained: nn.Sequential, tmp_path: Path
) -> None:
    ema = trained.state_dict()
    raw, shadow = worse(ema), parameters_of(ema)
    kept = {**prefixed(flattened(shadow, ""), "model_ema."), "model_ema.decay": torch.tensor(0.99)}
    torch.save({"state_dict": {**prefixed(raw, "model."), **kept}}, tmp_path / "w.pth")
    net, words = load(tmp_path / "w.pth")
    assert same(net, {**raw, **shadow})
    assert words.startswith("state_dict.model_ema with the buffers of state_dict, a moving average")


@pytest.mark.parametrize(
    ("nest", "places"),
    [
        (lambda raw, ema: {"last_state_dict": raw, "best_state_dict": ema}, ("last_state_dict", "best_state_dict")),
        (lambda raw, ema: {"student": prefixed(raw, "module."), "teacher": ema}, ("student", "teacher")),
        (
            lambda raw, ema: {"state_dict": {**prefixed(raw, "module.q."), **prefixed(ema, "module.k.")}},
            ("state_dict.module.q", "state_dict.module.k"),
        ),
        (
            lambda raw, ema: {"state_dict": {**raw, **prefixed(flattened(parameters_of(ema), "_"), "ema_")}},
            ("state_dict.plain", "state_dict.ema_"),
        ),
    ],
)
def test_of_sets_that_are_as_likely_none_is_guessed(
    trained: nn.Sequential, nest: Any, places: tuple[str, str], tmp_path: Path
) -> None:
    ema = trained.state_dict()
    raw = worse(ema)
    torch.save(nest(raw, ema), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "does not say which is the model", *places, "`weights=`")
    for key, wanted in zip(places, (raw, ema), strict=True):
        net, _ = load(tmp_path / "w.pth", key=key)
        assert same(net, {**raw, **parameters_of(wanted)} if key.endswith("ema_") else wanted), key


def test_copies_of_one_another_are_no_choice(trained: nn.Sequential, tmp_path: Path) -> None:
    state = trained.state_dict()
    torch.save({"last": state, "best": {name: value.clone() for name, value in state.items()}}, tmp_path / "w.pth")
    assert same(load(tmp_path / "w.pth")[0], state)


@pytest.mark.parametrize("key", ["state_dict", "best.weights", "weights"])
def test_the_set_that_is_asked_for_is_taken(trained: nn.Sequential, key: str, tmp_path: Path) -> None:
    ema = trained.state_dict()
    raw = worse(ema)
    place = {"state_dict": {"state_dict": raw}}.get(key, {"best": {"weights": raw}})
    torch.save({"state_dict_ema": ema, **place}, tmp_path / "w.pth")
    assert same(load(tmp_path / "w.pth", key=key)[0], raw)


def test_a_set_that_is_not_there_is_refused_with_those_that_are(trained: nn.Sequential, tmp_path: Path) -> None:
    torch.save({"model": trained.state_dict(), "ema": trained.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"no weights called 'averaged'[^$]*model, ema[^$]*weights="):
        load(tmp_path / "w.pth", key="averaged")


def test_of_several_raw_sets_the_usual_place_is_taken_and_the_others_are_named(
    trained: nn.Sequential, tmp_path: Path
) -> None:
    state = trained.state_dict()
    torch.save({"best": worse(state), "state_dict": state}, tmp_path / "w.pth")
    net, words = load(tmp_path / "w.pth")
    assert same(net, state)
    assert words == "state_dict (others are in best: `weights=` takes them)"


@pytest.mark.parametrize("kind", ["int8", "uint8", "complex64", "bool", "float8_e4m3fn", "qint8"])
def test_weights_of_a_type_that_no_network_has_are_refused_by_its_name(
    trained: nn.Sequential, kind: str, tmp_path: Path
) -> None:
    state = trained.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are deprecated, and still in files
        value = state["3.weight"]
        state["3.weight"] = (
            torch.quantize_per_tensor(value, 0.1, 0, torch.qint8) if kind == "qint8" else value.to(getattr(torch, kind))
        )
    torch.save(state, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", f"'3.weight' is {kind}, and the network computes with float32", "int8=True")


def refused(path: Path, *parts: str, net: nn.Module | None = None) -> None:
    with pytest.raises(ModelError) as caught:
        load(path, net)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_missing_and_unknown_names_are_listed_and_counted(trained: nn.Sequential, tmp_path: Path) -> None:
    state = trained.state_dict()
    state["extra.weight"] = state.pop("0.weight")
    torch.save(state, tmp_path / "w.pth")
    refused(
        tmp_path / "w.pth",
        "another network",
        "1 of 9 tensors missing (0.weight)",
        "1 unknown (extra.weight)",
        "`kwargs=`",
    )


def test_other_shapes_are_listed(tmp_path: Path) -> None:
    torch.save(build(width=8).state_dict(), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "7 of 9: 0.weight (8, 1, 3, 3) instead of (4, 1, 3, 3); 0.bias (8,) instead", "...")


def test_a_head_of_another_number_of_classes_says_so(tmp_path: Path) -> None:
    torch.save(build(10).state_dict(), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "number of classes", "10 classes in the file (3.weight, 3.bias)", "3, as the network",
            "`kwargs={'num_classes': 10}`")  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused_by_name(trained: nn.Sequential, value: float, tmp_path: Path) -> None:
    state = trained.state_dict()
    state["3.weight"][0, 1] = value
    torch.save(state, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "tensor '3.weight' holds NaN or infinity", "1 of 12 values")


class Evil:
    """What a pickle can do."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.target),))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    trained: nn.Sequential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"state_dict": trained.state_dict(), "evil": Evil(tmp_path / "ran")}, tmp_path / "w.pth")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    refused(tmp_path / "w.pth", "would run code", "posix.mkdir", "where you trust the file")
    assert not (tmp_path / "ran").exists()


class Meter:
    """What a script counts with."""


@pytest.mark.parametrize(
    "nest",
    [
        lambda net: net,
        lambda net: {"model": build(), "ema": net, "train_args": {"lr": 0.1}},  # as YOLO does
        lambda net: {"state_dict": net.state_dict(), "optimizer": {"state": {}}, "meter": Meter()},
    ],
)
def test_what_is_advised_for_a_file_with_code_in_it_saves_the_weights(
    trained: nn.Sequential, nest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(nest(trained), "w.pth")
    with pytest.raises(ModelError, match="would run code") as caught:
        load(Path("w.pth"))
    exec(str(caught.value).split('python -c "')[1].split('"')[0], {})
    assert same(load(Path("weights.pth"))[0], trained.state_dict())


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.95])
@pytest.mark.parametrize("old", [False, True])
def test_a_truncated_checkpoint_is_no_whole_one(trained: nn.Sequential, part: float, old: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=not old)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    refused(path, "is not a whole PyTorch checkpoint")


def test_other_files_and_other_content_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not a checkpoint")
    refused(tmp_path / "text.pth", "is not a whole PyTorch checkpoint")
    torch.save({"history": [1, 2], "epoch": 3}, tmp_path / "log.pth")
    refused(tmp_path / "log.pth", "holds no weights", "a dict with history, epoch")
    torch.save([1, 2], tmp_path / "list.pth")
    refused(tmp_path / "list.pth", "holds no weights", "list")
    with pytest.raises(ToolkitError, match="does not exist"):
        weights_from_checkpoint(tmp_path / "nosuch.pth")


def test_layers_without_a_shape_are_refused(trained: nn.Sequential, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lazy = nn.Sequential(nn.LazyConv2d(4, 3))
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "torch.nn.Lazy", net=lazy)


def test_a_source_comes_back_from_its_record(trained: nn.Sequential, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    source = Source(f"{__name__}:build", tmp_path / "w.pth", {"width": 4})
    again = source_from_dict(source.as_dict())
    assert (again.builder, again.kwargs, again.checkpoint) == (source.builder, source.kwargs, source.checkpoint)
    network = network_from_source(again)
    assert same(network.net, trained.state_dict())
    assert not network.net.training
    with pytest.raises(ModelError, match="changed since the bundle was written"):
        network_from_source(again, "0" * 64)
    with pytest.raises(ModelError, match="cannot be read"):
        source_from_dict({"builder": "x:y"})


def test_a_view_behind_a_convolution_works_in_the_classifier() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            logits: Tensor = self.fc(x.view(x.size(0), -1))
            return logits

    classifier = classifier_of(Viewing(), Preprocessing(8, 8, 3, (0.5,) * 3, (0.25,) * 3))
    assert classifier(torch.zeros((2, 8, 8, 3), dtype=torch.uint8)).shape == (2, 2)


def hostile_checkpoints(folder: Path, net: nn.Sequential) -> dict[str, Path]:
    """Checkpoints that hold no numbers, never end, or go round in a circle."""
    state = net.state_dict()
    name = next(name for name, value in state.items() if value.ndim == 4)
    circle: dict[str, Any] = {"": state | {name: state[name].to_sparse()}}
    circle[""][""] = circle["again"] = circle
    many: dict[str, Any] = {}
    for _ in range(5):
        many = {f"k{n}": many for n in range(300)}
    packed = folder / "packed.pth"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(300 << 20))
    os.mkfifo(folder / "pipe.pth")
    os.mkfifo(folder / "pipe.safetensors")
    found = {"packed": packed, "pipe": folder / "pipe.pth", "pipe of safetensors": folder / "pipe.safetensors",
             "device": Path("/dev/zero")}  # fmt: skip
    contents = {"sparse": circle, "meta": state | {name: state[name].to("meta")}, "many": many,
                "quantized": state | {name: torch.quantize_per_tensor(state[name], 0.1, 0, torch.qint8)}}  # fmt: skip
    for kind, content in contents.items():
        found[kind] = folder / f"{kind}.pth"
        torch.save(content, found[kind])
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_hostile_checkpoint_is_one_error_in_two_seconds(trained: nn.Sequential, tmp_path: Path) -> None:
    for kind, path in hostile_checkpoints(tmp_path, trained).items():
        begun = time.monotonic()
        with pytest.raises(ModelError) as caught:
            load_user_weights(trained, weights_from_checkpoint(path), path)
        assert time.monotonic() - begun < 2, kind
        assert caught.value.found is not None, kind
