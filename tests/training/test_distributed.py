"""Claims about several processes: the arithmetic is one process's, and what does not fit is said in words."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.warm import python
from toolkit.errors import ToolkitError
from toolkit.training.augment import augment
from toolkit.training.distributed import ALONE, HEARD, World, _listen_once, world_from_environment
from toolkit.training.norms import CrossRankBatchNorm2d, shared_norms

STEPS = """
import sys
import torch
from torch import nn
from toolkit.training.augment import augment
from toolkit.training.distributed import ALONE, end_at_once, joined, world_from_environment
from toolkit.training.norms import shared_norms
from toolkit.models.resnet import ResNet, ResNetConfig

world, cpu = world_from_environment(), torch.device("cpu")
torch.manual_seed(0)
net = ResNet(ResNetConfig(widths=(4, 8), blocks=(1, 1), strides=(1, 2), in_channels=1, classes=4)).double()
images, labels = torch.randint(256, (20, 16, 12, 12, 1), dtype=torch.uint8), torch.randint(4, (20, 16))
draws = torch.Generator().manual_seed(0)
with joined(world, cpu), shared_norms(net, world if sys.argv[2] == "shared" else ALONE, cpu):
    model, mine = world.parallel(net, cpu), world.shard(16)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for batch, wanted in zip(images, labels):
        seen = augment(batch[mine], 2, True, draws, part=mine, of=16).permute(0, 3, 1, 2).double() / 255
        loss = nn.functional.cross_entropy(model(seen), wanted[mine])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
if world.first:
    torch.save(net.state_dict(), sys.argv[1])
end_at_once(world, 0)
"""


def trained(folder: Path, processes: int, norms: str) -> dict[str, torch.Tensor]:
    """Float64 weights after 20 steps on global batches of 16, by so many processes."""
    script, out = folder / "steps.py", folder / f"{processes}-{norms}.pt"
    script.write_text(STEPS)
    launch = ["-m", "torch.distributed.run", "--standalone", "--no-python", "--nproc-per-node"]
    launched = [*python(), *launch, str(processes)] * (processes > 1)
    words = [*launched, *python(), str(script), str(out), norms]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    weights: dict[str, torch.Tensor] = torch.load(out, weights_only=True)
    return weights


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Over all tensors of two equal sets of names."""
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


@pytest.mark.slow
@pytest.mark.usefixtures("every_core")
def test_two_processes_do_the_arithmetic_of_one_and_only_with_shared_norms(tmp_path: Path) -> None:
    # In float64, because training amplifies rounding: float32 starts at 1e-6 apart and is at 1e-3 after 16 steps.
    one = trained(tmp_path, 1, "shared")
    assert largest_difference(one, trained(tmp_path, 2, "shared")) < 1e-10
    assert largest_difference(one, trained(tmp_path, 2, "own")) > 1e-3


def test_the_shards_of_a_batch_are_augmented_like_the_batch() -> None:
    images = torch.randint(256, (12, 6, 5, 3), dtype=torch.uint8)
    whole = augment(images, 2, True, torch.Generator().manual_seed(3))
    parts = []
    for rank in range(3):
        mine = World(rank, 3, rank).shard(12)
        parts.append(augment(images[mine], 2, True, torch.Generator().manual_seed(3), part=mine, of=12))
    assert torch.equal(torch.cat(parts), whole)


def test_shards_cover_a_batch_once_and_an_uneven_batch_is_refused() -> None:
    assert [World(rank, 4).shard(8) for rank in range(4)] == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
    assert ALONE.shard(7) == slice(0, 7)
    with pytest.raises(ToolkitError, match="10 images cannot be shared evenly by 4") as caught:
        World(0, 4).shard(10)
    assert caught.value.fix == "`batch=8`"
    with pytest.raises(ToolkitError, match="cannot be shared"):
        World(0, 4).shard(3)


def test_norms_are_swapped_for_a_block_and_share_their_tensors() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    norm, before = model[1], list(model.state_dict())
    with shared_norms(model, World(0, 2), torch.device("cpu")):
        twin = model[1]
        assert isinstance(twin, CrossRankBatchNorm2d)
        assert list(model.state_dict()) == before
        assert twin.weight is norm.weight
        assert twin.running_var is norm.running_var
    assert model[1] is norm
    with shared_norms(model, ALONE, torch.device("cpu")):
        assert model[1] is norm


def test_the_world_is_what_torchrun_says() -> None:
    whole = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}
    assert world_from_environment(whole) == World(3, 4, 1)
    assert world_from_environment({}) == world_from_environment({"WORLD_SIZE": "1", "RANK": "0"}) == ALONE
    for change in ({"RANK": "4"}, {"RANK": ""}, {"WORLD_SIZE": "many"}, {"MASTER_ADDR": ""}):
        with pytest.raises(ToolkitError, match="WORLD_SIZE asks for several processes"):
            world_from_environment(whole | change)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_rank_0_hears_one_signal_and_remembers_which_it_was(number: signal.Signals) -> None:
    before = _listen_once(World(0, 2, 0))
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)  # torchrun's, which comes after: rank 0 is writing
        assert HEARD[0] == number
    finally:
        HEARD.clear()
        for each, handler in before.items():
            signal.signal(each, handler)
