"""Two specs' vectors of the same inputs, with as few runs of engines as they need.

Knows specs, inputs and sources; not what is compared.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from benchmarks.quality.adapters import Choice
from benchmarks.quality.compare.data import Data, Inputs
from benchmarks.quality.compare.spec import EngineRun, Spec
from benchmarks.quality.inputs import embedded, fused
from benchmarks.quality.local import Load, LocalSource, load_embedder
from benchmarks.quality.representation import Vectors
from benchmarks.quality.source import Item
from serving.engine.protocol import Pooled, Want


@dataclass(frozen=True, slots=True)
class Side:
    """What a spec made of the inputs, as an index of its representation would hold it.

    Attributes:
        spec: of these vectors.
        queries: float32, [dim] or [token, dim] each.
        documents: the same.
        document_bytes: that an index holds for a document, on average.
    """

    spec: Spec
    queries: list[Tensor]
    documents: list[Tensor]
    document_bytes: float


@dataclass(frozen=True, slots=True)
class _Kinds:
    """Vectors of each kind that was asked for, by input."""

    queries: dict[Vectors, list[Tensor]]
    documents: dict[Vectors, list[Tensor]]


def embed_sides(
    a: Spec,
    b: Spec,
    data: Data,
    *,
    max_pixels: int | None = None,
    load: Load = load_embedder,
    on_run: Callable[[EngineRun], None] = lambda run: None,
) -> tuple[Side, Side]:
    """Embed the inputs for both specs; engines run one after the other, once for what can share a run.

    Args:
        a: one spec.
        b: the other.
        data: documents and queries.
        max_pixels: area to which pages are reduced; None is the checkpoint's own.
        load: starts engines; a test gives others.
        on_run: hears of each run before it starts.

    Raises:
        PolyvecError: an engine does not start or fails, or an input cannot be embedded.
    """
    made: dict[EngineRun, _Kinds] = {}
    for run in dict.fromkeys([a.run, b.run]):
        specs = [spec for spec in (a, b) if spec.run == run]
        on_run(run)
        made[run] = _run(run, specs, data, max_pixels, load)
    return _side(a, made[a.run]), _side(b, made[b.run])


def _run(
    run: EngineRun, specs: list[Spec], data: Data, max_pixels: int | None, load: Load
) -> _Kinds:
    task = specs[0].task
    kinds = sorted({spec.representation.vectors for spec in specs})
    want = Want(single="single" in kinds, multi="multi" in kinds)
    source = LocalSource.of(run.directory, dtype=run.dtype, max_pixels=max_pixels, load=load)

    def embed(inputs: Inputs, *, is_document: bool) -> dict[Vectors, list[Tensor]]:
        prompt = Choice().prompt_of(task, is_document=is_document)

        def pooled(items: "list[Item] | tuple[Item, ...]") -> list[Pooled]:
            return source.pooled(items, task, prompt, want)

        parts = list(embedded(inputs, lambda items: pooled(list(items))))
        return {kind: [fused([_of(one, kind) for one in some]) for some in parts] for kind in kinds}

    try:
        source.start([task])
        return _Kinds(
            queries=embed(data.queries, is_document=False),
            documents=embed(data.documents, is_document=True),
        )
    finally:
        source.close()


def _of(pooled: Pooled, kind: Vectors) -> Tensor:
    vector = pooled.multi if kind == "multi" else pooled.single
    assert vector is not None  # it was asked for
    return vector


def _side(spec: Spec, kinds: _Kinds) -> Side:
    kept = spec.representation
    documents = [kept.cut(vector) for vector in kinds.documents[kept.vectors]]
    return Side(
        spec=spec,
        queries=[kept.quantised(kept.cut(vector)) for vector in kinds.queries[kept.vectors]],
        documents=[kept.quantised(vector) for vector in documents],
        document_bytes=sum(map(kept.num_bytes, documents)) / len(documents),
    )
