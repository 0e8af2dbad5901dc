"""The page's arithmetic in a real browser against that of `pooling/`, number by number."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pooling import dequantise, int8, maxsim, truncate, ubinary, unit, unpack
from tests.http.playground.browser import Visit, Visits

PRECISIONS = ["float32", "int8", "binary"]

EVALUATE = """
async ({ query, page, dim, precision }) => {
  const v = await import("/playground/vectors.js");
  const rows = (given) => v.rowsOf(Float32Array.from(given.flat()), given.length);
  const [q, p] = [query, page].map((given) => v.pack(v.truncate(rows(given), dim), precision));
  const i = v.int8(v.truncate(rows(page), dim));
  return {
    cut: [...v.truncate(rows(page), dim).values],
    integers: [...i.values],
    scales: [...i.scales],
    similarities: [...v.similarities(q, p)],
    maxsim: v.maxsim(q, p),
  };
}
"""


@pytest.fixture(scope="module")
def vectors() -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    page = torch.randn(37, 96)
    page[5], page[6, ::2] = (
        0.0,
        0.0,
    )  # no direction at all, and values that are neither above nor below
    return torch.randn(9, 96), page


def kept(vectors: Tensor, precision: str) -> Tensor:
    """What a store of `precision` compares."""
    match precision:
        case "int8":
            return dequantise(int8(vectors))
        case "binary":
            return unit(unpack(ubinary(vectors), vectors.shape[1]))
        case _:
            return vectors


def evaluated(visit: Visit, query: Tensor, page: Tensor, dim: int, precision: str) -> Any:
    given = {"query": query.tolist(), "page": page.tolist(), "dim": dim, "precision": precision}
    return visit.page.evaluate(EVALUATE, given)


def test_every_precision_and_cut_has_the_numbers_of_pooling(
    visits: Visits, vectors: tuple[Tensor, Tensor]
) -> None:
    visit = visits.open()
    for dim in (96, 64, 33, 8, 1):
        query, page = (truncate(one, dim) for one in vectors)
        for precision in PRECISIONS:
            found = evaluated(visit, *vectors, dim, precision)
            q, p = kept(query, precision), kept(page, precision)
            assert torch.allclose(
                torch.tensor(found["cut"], dtype=torch.float32), page.flatten(), atol=1e-7
            )
            expected = (q @ p.T).flatten()
            assert torch.allclose(
                torch.tensor(found["similarities"], dtype=torch.float32), expected, atol=2e-6
            )
            assert found["maxsim"] == pytest.approx(float(maxsim(q, p)), abs=1e-5)


def test_integers_and_scales_are_those_of_pooling(
    visits: Visits, vectors: tuple[Tensor, Tensor]
) -> None:
    # Halves between two integers, which are rounded to the even one, and no vector of length one.
    halves = torch.tensor([[127.0, 0.5, 1.5, -0.5, -1.5, 2.5, -2.5, 126.5]])
    visit = visits.open()
    script = """
    async (given) => {
      const v = await import("/playground/vectors.js");
      const found = v.int8(v.rowsOf(Float32Array.from(given.flat()), given.length));
      return [[...found.values], [...found.scales]];
    }
    """
    for given in (halves, *vectors):
        values, scales = visit.page.evaluate(script, given.tolist())
        expected = int8(given)
        assert values == expected.values.flatten().tolist()
        assert torch.equal(torch.tensor(scales, dtype=torch.float32), expected.scales)


def test_the_sizes_of_vectors_are_those_that_are_sent(visits: Visits) -> None:
    script = """
    async ([dim, precision]) =>
      (await import("/playground/vectors.js")).vectorBytes(dim, precision)
    """
    visit = visits.open()
    assert visit.page.evaluate(script, [100, "float32"]) == 400
    assert visit.page.evaluate(script, [100, "int8"]) == 104
    assert visit.page.evaluate(script, [100, "binary"]) == ubinary(torch.ones(1, 100)).shape[1]
