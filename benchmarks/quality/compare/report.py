"""A comparison as a table for people, and as JSON. Knows no files."""

import json

import numpy as np

from benchmarks.quality.compare.agreement import Cosines, Values
from benchmarks.quality.compare.comparison import Comparison
from benchmarks.quality.compare.retrieval import CONFIDENCE


def format_comparison(found: Comparison) -> str:
    """The table, as lines of text."""
    a_bytes, b_bytes = found.document_bytes
    lines = [
        f"A  {found.a}",
        f"B  {found.b}",
        f"on {found.data}: {found.num_documents:,} documents, {found.num_queries:,} queries",
        "",
        _row(
            "bytes a document", f"A {a_bytes:,.0f}, B {b_bytes:,.0f} ({_times(a_bytes, b_bytes)})"
        ),
        *_cosine_rows(found.cosines),
        _row("same document first", f"{found.agreement.top1.mean():.1%} of queries"),
        *(
            _row(f"overlap@{k}", f"{values.mean():.4f}")
            for k, values in found.agreement.overlap.items()
            if k > 1
        ),
        _row("Kendall's tau", _figure(found.agreement.kendall)),
        _row("Spearman's rho", _figure(found.agreement.spearman)),
        *_ndcg_rows(found),
    ]
    return "\n".join(lines)


def comparison_json(found: Comparison) -> str:
    """The same as one line of JSON; means, with values by query where they were paired."""
    agreement, cosine = found.agreement, found.cosines
    document: dict[str, object] = {
        "a": found.a,
        "b": found.b,
        "data": found.data,
        "num_documents": found.num_documents,
        "num_queries": found.num_queries,
        "document_bytes": {"a": found.document_bytes[0], "b": found.document_bytes[1]},
        "cosine": (
            {"percentiles": cosine.percentiles, "mean": _mean(cosine.values)}
            if isinstance(cosine, Cosines)
            else {"not_comparable": cosine}
        ),
        "rank": {
            "top1": _mean(agreement.top1),
            "overlap": {k: _mean(values) for k, values in agreement.overlap.items()},
            "kendall": _mean(agreement.kendall),
            "spearman": _mean(agreement.spearman),
        },
        "ndcg": None,
    }
    if found.ndcg is not None:
        document["ndcg"] = {
            "k": found.k,
            "a": _mean(found.ndcg.a),
            "b": _mean(found.ndcg.b),
            "difference": found.ndcg.mean,
            "interval": [found.ndcg.low, found.ndcg.high],
            "confidence": CONFIDENCE,
            "by_query": {"a": found.ndcg.a.tolist(), "b": found.ndcg.b.tolist()},
        }
    return json.dumps(document, allow_nan=False, ensure_ascii=False)


def _cosine_rows(cosine: Cosines | str) -> list[str]:
    if not isinstance(cosine, Cosines):
        return [_row("cosine of A and B", f"not comparable: {cosine}")]
    names = {0: "least", 1: "1 %", 5: "5 %", 50: "median", 95: "95 %"}
    said = ", ".join(f"{names[at]} {value:.6f}" for at, value in cosine.percentiles.items())
    return [_row("cosine of A and B", said)]


def _ndcg_rows(found: Comparison) -> list[str]:
    if found.ndcg is None:
        return [_row("nDCG", "no judgments here; A's rankings are the reference")]
    name, (a, b) = f"nDCG@{found.k}", (found.ndcg.a.mean(), found.ndcg.b.mean())
    low, high = found.ndcg.low, found.ndcg.high
    interval = "one query has no interval"
    if low is not None and high is not None:
        interval = f"{CONFIDENCE:.0%} of resampled query sets {low:+.5f} to {high:+.5f}"
    return [
        _row(name, f"A {a:.5f}, B {b:.5f}"),
        _row(f"{name}, B - A", f"{found.ndcg.mean:+.5f} ({interval})"),
    ]


def _row(name: str, value: str) -> str:
    return f"  {name:<22} {value}"


def _times(a: float, b: float) -> str:
    return f"{a / b:.3g} times smaller" if a >= b else f"{b / a:.3g} times larger"


def _figure(values: Values) -> str:
    mean = _mean(values)
    return "not defined: all documents score alike" if mean is None else f"{mean:.4f}"


def _mean(values: Values) -> float | None:
    """Of the values that are defined; None where none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
