"""Which device this is: what must be equal for two latencies to be comparable."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from toolkit.conditions.host import cpu_name
from toolkit.runtime.driver import Driver
from toolkit.storage.documents import Document


@dataclass(frozen=True)
class Device(Document):
    """What must be equal for two runs to be compared; empty where it is not there or not known."""

    machine: str
    cpu: str
    gpu: str


def device_fingerprint(driver: Driver) -> Device:
    """Processor and GPUs, not versions: an upgrade of the same device may be measured against the time before it."""
    gpus = ", ".join(device.name for device in driver.devices) if driver.available else ""
    return Device(platform.machine(), cpu_name() or "", gpus)
