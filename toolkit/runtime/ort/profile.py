"""Where the nodes of an ONNX Runtime session really ran, read off its profile of one call.

`session.get_providers()` names what may run: a provider of the list that takes no node leaves them all to the CPU
without a word. The profile is the same from ONNX Runtime 1.20 to 1.32, JetPack's builds included; its newer
`get_provider_graph_assignment_info` (since 1.24) lists nodes of the file before they are fused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU = "CPUExecutionProvider"
# They handle shapes, not pixels; the CUDA provider leaves them on the CPU on purpose, where their inputs lie.
SHAPE_OPERATORS = frozenset(
    ("Shape", "Size", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "ConstantOfShape", "Range")
)
NAMED = 5  # nodes that a sentence names


@dataclass(frozen=True)
class Node:
    """A node that ran: its provider, operator and name; ONNX Runtime renames what it fuses."""

    provider: str
    operator: str
    name: str


def short(provider: str) -> str:
    """`CUDAExecutionProvider` is `CUDA`."""
    return provider.removesuffix("ExecutionProvider")


def kernels_in_profile(profile: Path) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Of every kernel that ran, in the order of time: its node's name, what is said of it, and milliseconds."""
    for event in json.loads(profile.read_bytes()):
        name, is_kernel, _ = event.get("name", "").rpartition("_kernel_time")
        if is_kernel:
            yield name, event.get("args", {}), event.get("dur", 0) / 1000


def nodes_from_profile(profile: Path) -> tuple[Node, ...]:
    """Every node of a profile once, in the order in which it ran first; copies between devices are left out."""
    found: dict[tuple[str, str], Node] = {}
    for name, facts, _ in kernels_in_profile(profile):
        if "provider" in facts and not facts.get("op_name", "").startswith("Memcpy"):
            node = Node(facts["provider"], facts.get("op_name", ""), name)
            found.setdefault((name, str(facts.get("node_index"))), node)
    return tuple(found.values())


def obstacle_to_trusting(nodes: tuple[Node, ...], provider: str) -> str:
    """Why a session does not run on the provider that was asked for, in one clause; empty where it does.

    The rule: the provider computes at least one node, and the CPU none but those of `SHAPE_OPERATORS`. Nodes that
    another GPU provider took are no obstacle; `placement_in_words` names them.
    """
    on_cpu = tuple(node for node in nodes if node.provider == CPU and node.operator not in SHAPE_OPERATORS)
    if on_cpu and provider != CPU:
        return f"the CPU computes {len(on_cpu)} of {len(nodes)} nodes: {_listed(on_cpu)}"
    if not any(node.provider == provider for node in nodes):
        return f"{short(provider)} computes none of {len(nodes)} nodes"
    return ""


def placement_in_words(nodes: tuple[Node, ...], provider: str) -> str:
    """`42 of 42 nodes on CUDA`, and those that ran elsewhere by name."""
    counts = Counter(node.provider for node in nodes)
    words = f"{counts[provider]} of {len(nodes)} nodes on {short(provider)}"
    for other in sorted(counts.keys() - {provider}):
        elsewhere = tuple(node for node in nodes if node.provider == other)
        words += f", {len(elsewhere)} on {short(other)} ({_listed(elsewhere)})"
    return words


def _listed(nodes: tuple[Node, ...]) -> str:
    named = ", ".join(f"{node.operator} {node.name}".strip() for node in nodes[:NAMED])
    return named + (f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else "")
