"""Several processes, one run: torchrun's environment, shards of a batch, norms over all shards, one voice.

Each process holds all images and takes its part of every global batch, in the order and with the augmentation of a
single process. The gradients are averaged by DistributedDataParallel; `norms.py` shares the moments of batch norms.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from toolkit.errors import ToolkitError

T = TypeVar("T")
# A rank waits while rank 0 measures the held-out images or loads a slow disk; longer than this, something has died.
PATIENCE = timedelta(minutes=30)


class PeerLost(ToolkitError):
    """Another process of the run has ended: interrupted, killed, or its machine is gone."""

    def __init__(self, found: object) -> None:
        super().__init__(
            "another process of this run has ended",
            found=found,
            fix="read what that process printed, and start again; `resume=True` goes on after the last whole epoch",
        )


@dataclass(frozen=True)
class World:
    """Which process this is, of how many.

    Attributes:
        rank: 0 to size - 1; rank 0 alone prints, measures and writes.
        local_rank: the same, among the processes of this machine: the index of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def shard(self, batch: int) -> slice:
        """The part of a global batch that this process takes.

        Raises:
            ToolkitError: the batch cannot be shared evenly.
        """
        each, rest = divmod(batch, self.size)
        if rest or not each:
            nearest = max(self.size, batch - rest)
            raise ToolkitError(
                f"a batch of {batch} images cannot be shared evenly by {self.size} processes",
                found=f"{batch} = {self.size} x {each} + {rest}",
                allowed="a `batch=`, of all processes together, that is a multiple of the number of processes",
                fix=f"`batch={nearest}`",
            )
        return slice(self.rank * each, (self.rank + 1) * each)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.size == 1:
            return value
        with lost_peers():
            total = value.clone()
            dist.all_reduce(total)
        return total / self.size

    def from_first(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, for everyone; an error of rank 0 is everyone's error."""
        if self.size == 1:
            return make()
        box: list[Any] = [None, None]
        if self.first:
            try:
                box[0] = make()
            except ToolkitError as error:
                box[1] = error
        with lost_peers():
            dist.broadcast_object_list(box)
        if box[1] is not None:
            raise box[1]
        return cast("T", box[0])

    def together(self, make: Callable[[], T]) -> T:
        """What every process makes for itself; where one fails, all end with its error, and rank 0 can say it."""
        if self.size == 1:
            return make()
        made: T | None = None
        fault: ToolkitError | None = None
        try:
            made = make()
        except ToolkitError as error:
            fault = error
        everyone: list[Any] = [None] * self.size
        with lost_peers():
            dist.all_gather_object(everyone, fault)
        first = next((error for error in everyone if error is not None), None)
        if first is not None:
            raise first
        return cast("T", made)

    def agree(self, facts: dict[str, str]) -> None:
        """Refuses processes that are about to train on other images or with other options.

        Raises:
            ToolkitError: names the first rank that differs, and in what.
        """
        if self.size == 1:
            return
        everyone: list[Any] = [None] * self.size
        with lost_peers():
            dist.all_gather_object(everyone, facts)
        for rank, theirs in enumerate(everyone):
            other = [name for name, value in everyone[0].items() if theirs.get(name) != value]
            if other:
                raise ToolkitError(
                    f"process {rank} of {self.size} was started with another {', '.join(other)} than process 0",
                    allowed="the same command and the same images on every machine",
                    fix="copy the images, or put them on a shared disk",
                )

    def parallel(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The module whose backward pass averages the gradients of all processes; the module itself where it is one."""
        if self.size == 1:
            return model
        # The shared norms keep the buffers equal: nothing needs to send them at every step. The switch has two names.
        kind = nn.parallel.DistributedDataParallel
        new = "forward_sync_buffers" in inspect.signature(kind).parameters
        options: dict[str, Any] = {"forward_sync_buffers" if new else "broadcast_buffers": False}
        if device.type == "cuda":
            options["device_ids"] = [device.index]
        with lost_peers():
            return kind(model, gradient_as_bucket_view=True, **options)


ALONE = World()


def world_from_environment(environment: Mapping[str, str] = os.environ) -> World:
    """The process's place as torchrun says it in RANK, WORLD_SIZE and LOCAL_RANK; alone where it says nothing.

    Raises:
        ToolkitError: WORLD_SIZE is above 1 and the rest is missing or makes no sense.
    """
    text = {name: environment.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if text["WORLD_SIZE"] in ("", "1"):
        return ALONE
    wanted = ("MASTER_ADDR", "MASTER_PORT")
    numbers = all(value.isdecimal() for value in text.values())
    if not numbers or int(text["RANK"]) >= int(text["WORLD_SIZE"]) or not all(environment.get(n) for n in wanted):
        found = " ".join(f"{name}={environment.get(name, '')}" for name in (*text, *wanted))
        raise ToolkitError(
            "WORLD_SIZE asks for several processes, and the rest of their environment is not there",
            found=found,
            allowed="what torchrun sets: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT",
            fix="start it with torchrun --nproc-per-node 2 PROGRAM ..., or unset WORLD_SIZE",
        )
    return World(int(text["RANK"]), int(text["WORLD_SIZE"]), int(text["LOCAL_RANK"]))


@contextmanager
def joined(world: World, device: torch.device) -> Iterator[torch.device]:
    """The process group of a run; yields this process's own device.

    Raises:
        ToolkitError: more processes than GPUs on this machine, or the others cannot be reached.
    """
    if world.size == 1:
        yield device
        return
    if device.type == "cuda":
        if world.local_rank >= torch.cuda.device_count():
            raise ToolkitError(
                "there are more processes than GPUs on this machine",
                found=f"local rank {world.local_rank}, {torch.cuda.device_count()} GPUs",
                fix=f"--nproc-per-node {torch.cuda.device_count()}",
            )
        device = torch.device("cuda", world.local_rank)
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            timeout=PATIENCE,
            device_id=device if device.type == "cuda" else None,
        )
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise ToolkitError(
            "the processes of this run do not find each other",
            found=str(error).splitlines()[0],
            fix="start them with torchrun; between machines, check --rdzv-endpoint and the firewall",
        ) from error
    before = _listen_once(world)
    try:
        yield device
    finally:
        # After Ctrl-C the others hang in a collective that will never end, and saying goodbye could wait for it: then
        # the end of this process is what ends them.
        if signal.getsignal(signal.SIGINT) is not _only_heard:
            dist.destroy_process_group()
            for number, handler in before.items():
                signal.signal(number, handler)


def end_at_once(world: World, code: int) -> None:
    """Ends one of several processes without the interpreter's tidying up; does nothing where there is only one.

    With PyTorch 2.13 gloo's threads can outlive the group and abort the process while Python tears down ("terminate
    called without an active exception", seen in 1 of 12 runs of two processes); torchrun then kills the others.
    """
    if world.size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


STOPS = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
HEARD: list[int] = []  # of this process, in order: what it ends by is the first


def _listen_once(world: World) -> dict[signal.Signals, Any]:
    """Rank 0 hears the first Ctrl-C and writes its best epoch undisturbed; the others end on the spot.

    A terminal signals torchrun and every process, and torchrun then signals every process again: the second one must
    not hit rank 0 while it writes. The others have nothing to write, and a handler in Python would never run in a
    process that waits for a collective.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    HEARD.clear()
    before = {number: signal.getsignal(number) for number in STOPS}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}  # as nohup sets

    def stop(number: int, frame: object) -> None:
        HEARD.append(number)
        _undisturbed()
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, stop if world.first else signal.SIG_DFL)
    return before


def _undisturbed() -> None:
    if threading.current_thread() is threading.main_thread():
        for number in STOPS:
            signal.signal(number, _only_heard)


def _only_heard(number: int, frame: object) -> None:
    HEARD.append(number)


@contextmanager
def lost_peers() -> Iterator[None]:
    """Turns a broken collective into `PeerLost`: gloo says "Connection closed by peer" in a plain RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        signs = ("gloo", "Connection closed", "Connection reset", "NCCL", "Socket", "process group")
        if not isinstance(error, dist.DistError) and not any(sign in str(error) for sign in signs):
            raise
        _undisturbed()  # torchrun sees the other's end too, and is about to stop this one
        raise PeerLost(str(error).splitlines()[0]) from error
