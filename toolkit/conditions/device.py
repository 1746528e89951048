"""Which device this is: what must be equal for two latencies to be comparable."""

from __future__ import annotations

import platform

from toolkit.conditions.host import cpu_name
from toolkit.runtime.driver import Driver


def device_fingerprint(driver: Driver) -> dict[str, str]:
    """Processor and GPUs, not versions: an upgrade of the same device may be measured against the time before it."""
    gpus = ", ".join(device.name for device in driver.devices) if driver.available else ""
    return {"machine": platform.machine(), "cpu": cpu_name() or "", "gpu": gpus}
