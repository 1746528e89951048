"""What a report reads of the documents of verify, bench and sensitivity; what it can do without ends in "?"."""

from __future__ import annotations

from toolkit.documents import Above, Each, Maybe

NUMBER = Maybe(float)
SCORE = {"images": int, "top1_percent": float, "low_percent": float, "high_percent": float}
VERDICT = {"word?": Maybe(str), "images_needed?": Maybe(int)}
FLIP = {"index": int, "label": int, "reference_answer": int, "candidate_answer": int, "margin?": NUMBER}
PARITY = {
    "reference": str,
    "candidate": str,
    "candidate_score": SCORE,
    "reference_score": {"top1_percent": float},
    "agreement_percent": float,
    "flips": int,
    "lost": int,
    "gained": int,
    "mcnemar_p": float,
    "retention_percent": float,
    "verdict?": Maybe(VERDICT),
    "per_class?": Maybe([{"label": int, "images": int, "lost": int, "gained": int}]),
    "flipped?": Maybe([FLIP]),
}
SOURCE = {"kind": str, "reference": str, "candidate": str, "flips": int, "candidate_score": {"images": int}}
LATENCY = {
    "runner": str,
    "batch": int,
    "p50_ms": Above(0),
    "intervals_ms?": Maybe({"p50?": Maybe([Above(0)])}),
    "quantiles_ms?": Maybe([Above(0)]),
    "calls?": Maybe(int),
    "threads?": Maybe(int),
    "rate_hz?": NUMBER,
    "phases?": Maybe(dict),
}
SENSITIVITY = {
    "layers": [{"node": str, "relative_l2": float, "flips?": int, "images?": int}],
    "curve?": Maybe([{"int8_percent": float, "agreement_percent": float, "images?": Maybe(int)}]),
}
SHAPES = {
    "verify": {
        "parity": [PARITY],
        "passed?": Maybe(Each(bool)),
        "sources?": Maybe([SOURCE]),
        "likely_causes?": Maybe([dict]),
        "images?": Maybe({"source?": str, "count?": int, "sha256?": str}),
        "gate_percent?": NUMBER,
        "not_checked?": Maybe(Each(str)),
        "unavailable?": Maybe(Each(str)),
        "warnings?": Maybe(list),
        "runners?": Maybe(dict),
    },
    "bench": {
        "latency": [LATENCY],
        "device?": Maybe(dict),
        "settings?": Maybe(dict),
        "conditions?": Maybe({"host?": Maybe(dict), "absent?": Maybe(Each(str))}),
        "host?": Maybe(dict),
        "runners?": Maybe(dict),
        "warnings?": Maybe(list),
        "unavailable?": Maybe(Each(str)),
    },
    "sensitivity": SENSITIVITY,
}
