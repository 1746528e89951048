"""Tables of latencies measured on a GPU: rows of `benchmarks/gpu_backend.py` as Markdown, milliseconds."""

from __future__ import annotations

from typing import Any

from gpu import FIGURES

DASH = "-"
GPU_FIGURES = FIGURES[:3]  # only TensorRT's are without the launch
NAMES = {"torch": "PyTorch eager", "compile": "torch.compile"}
ORDER = ("torch", "compile", "trt")
PRECISIONS = ("fp32", "fp16", "int8", "int8-fp16")
SEAM = {
    "enter_leave": "entering and leaving the context", "record": "recording an event",
    "wait_for_nothing": "waiting for an idle stream", "launch_and_wait": "launching a graph of one copy, and waiting",
    "replay_p50_us": "a replayed graph of three copies, with waiting", "replay_p99_us": "the same, p99",
}  # fmt: skip


def cell(value: Any, digits: int = 4) -> str:
    """A figure, or a dash."""
    if value is None or isinstance(value, list):
        return DASH
    return f"{value:,.{digits}f}" if isinstance(value, float) else str(value)


def markdown(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A table; nothing where it has no rows."""
    if not rows:
        return ""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(entry) for entry in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def name_of(row: dict[str, Any]) -> str:
    """What answered: TensorRT's version and precision, PyTorch's mode."""
    if row["backend"] == "trt":
        return f"TensorRT {row.get('tensorrt', '').partition(' ')[2]} {row['precision']}"
    return str(NAMES.get(row["backend"], row["backend"]))


def rank(precision: str) -> int:
    """Where a precision stands in a table."""
    return PRECISIONS.index(precision) if precision in PRECISIONS else len(PRECISIONS)


def precision_of(file: Any) -> str:
    """Of a file's name: fp16 of model.fp16.onnx, fp32 of model.onnx."""
    return str(file).removeprefix("model.").removesuffix("onnx").rstrip(".") or "fp32"


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By model, batch, backend, version and precision."""
    backends = {name: at for at, name in enumerate(ORDER)}

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        version, backend = row.get("tensorrt", ""), backends.get(row["backend"], len(ORDER))
        return row["model"], row["batch"], backend, version, rank(row["precision"])

    return sorted(rows, key=key)


def alone(rows: list[dict[str, Any]], *variants: str) -> list[dict[str, Any]]:
    """Rows of one caller; of the variants named, or of all."""
    return in_order([row for row in rows if row["threads"] == 1 and (not variants or row["variant"] in variants)])


def pair(row: dict[str, Any], *names: str) -> list[str]:
    """Figures; the GPU's own only where they are without the launch."""
    pure = row["backend"] == "trt"
    return [cell(row.get(name) if pure or name not in GPU_FIGURES else None) for name in names]


def latency_table(rows: list[dict[str, Any]]) -> str:
    """One caller: TensorRT with a graph, PyTorch, ONNX Runtime."""
    body = []
    for row in alone(rows, "graph", "eager", "compile", "session"):
        times = DASH if row.get("times_eager") is None else f"{row['times_eager']:.1f}"
        note = "" if row.get("stable", True) else ", unsteady"
        body.append((row["model"], row["batch"], name_of(row) + note, *pair(row, *FIGURES),
                     f"{row['images_per_s']:,.0f}", times, f"{row['calls']:,}", row["run"]))  # fmt: skip
    heads = ("model", "batch", "runner", "GPU p50", "GPU p99", "enqueue", "call p50", "call p99", "images/s", "x eager",
             "calls", "run")  # fmt: skip
    return markdown(heads, body)


def phases_table(rows: list[dict[str, Any]]) -> str:
    """Copy in, compute, copy out and launch, beside the whole call."""
    body = []
    for row in alone(rows, "graph"):
        if phases := row.get("phases_p50_ms"):
            shown = (cell(phases.get(name)) for name in ("h2d", "gpu", "d2h", "enqueue"))
            body.append((row["model"], row["batch"], name_of(row), *shown, cell(row["call_p50_ms"])))
    return markdown(("model", "batch", "runner", "copy in", "GPU", "copy out", "enqueue", "call p50"), body)


def graph_table(rows: list[dict[str, Any]]) -> str:
    """The same engine as one graph, and enqueued kernel by kernel; the smallest and the largest batch."""
    plain = {key_of(row): row for row in alone(rows, "no graph")}
    body, batches = [], {row["batch"] for row in rows}
    for row in alone(rows, "graph"):
        other = plain.get(key_of(row))
        if other and row["batch"] in (min(batches), max(batches)):
            figures = [cell(one.get(name)) for name in ("gpu_p50_ms", "enqueue_p50_ms", "call_p50_ms", "call_p99_ms")
                       for one in (row, other)]  # fmt: skip
            body.append((row["model"], row["batch"], name_of(row), *figures))
    heads = ("model", "batch", "runner", "GPU, graph", "without", "enqueue, graph", "without", "call p50, graph",
             "without", "call p99, graph", "without")  # fmt: skip
    return markdown(heads, body)


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What two variants of one engine have in common."""
    return row["model"], row["batch"], row["precision"], row.get("tensorrt")


def waiting_table(rows: list[dict[str, Any]]) -> str:
    """The calling thread asks again and again, or sleeps until the GPU is done."""
    ways = {name: {key_of(row): row for row in alone(rows, f"graph{tail}")}
            for name, tail in (("auto", ""), ("spin", ", spin"), ("block", ", block"))}  # fmt: skip
    body = []
    for key, row in ways["block"].items():
        chosen = (way.get(key, {}) for way in ways.values())
        figures = [cell(one.get(name)) for one in chosen for name in ("call_p50_ms", "call_p99_ms")]
        body.append((row["model"], name_of(row), *figures))
    heads = ("model", "runner", "auto p50", "p99", "spin p50", "p99", "block p50", "p99")
    return markdown(heads, body)


def callers_table(rows: list[dict[str, Any]]) -> str:
    """Threads that call one runner, each as soon as it is answered."""
    body = []
    for row in in_order([row for row in rows if row["threads"] > 1]):
        note = "" if row.get("stable", True) else ", unsteady"
        figures = (cell(row["call_p50_ms"]), cell(row["call_p99_ms"]), f"{row['images_per_s']:,.0f}")
        calls = f"{row['calls']:,}"
        body.append((row["model"], row["batch"], row["threads"], name_of(row) + note, *figures, calls, row["run"]))
    return markdown(("model", "batch", "callers", "runner", "call p50", "call p99", "images/s", "calls", "run"), body)


def seam_table(found: dict[str, Any]) -> str:
    """What the parts of a call cost the host, without TensorRT."""
    known: dict[str, Any] = {}
    for line in found["seam"]:
        known |= line
    known |= known.get("host_us", {})
    rows = [(words, cell(known[name], 2)) for name, words in SEAM.items() if name in known]
    return markdown(("medians", "us"), rows)


def short_table(found: dict[str, Any]) -> str:
    """Medians of whole calls at batch 1 and the largest batch, and how many times as fast as eager, by runner."""
    rows = [row for row in alone(found["rows"], "graph", "eager", "compile") if row["model"] != "tiny"]
    most = max((row["batch"] for row in rows), default=0)
    columns = [(model, batch) for model in sorted({row["model"] for row in rows}) for batch in (1, most)]
    runners = list(dict.fromkeys(name_of(row) for row in in_order(rows)))
    known = {(name_of(row), row["model"], row["batch"]): row for row in rows}
    body = []
    for runner in runners:
        shown = [known.get((runner, *column)) for column in columns]
        body.append((runner, *(with_times(row) for row in shown)))
    return markdown((found["card"], *(f"{model}, batch {batch}" for model, batch in columns)), body)


def with_times(row: dict[str, Any] | None) -> str:
    """A call's median, and how many times as fast as PyTorch eager."""
    if row is None:
        return DASH
    times = row.get("times_eager")
    ratio = "" if times is None or row["variant"] == "eager" else f" ({times:.1f}x)"
    return f"{row['call_p50_ms']:.3f}{ratio}"
