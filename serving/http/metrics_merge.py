"""The metrics of several processes as one page, each sample with the name of the process it came from."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class SharedMetrics:
    """The metrics page of a server that is one of several behind one address.

    Attributes:
        pages: of all of them, by name; in Prometheus' text format.
        own: this one's; set when the application is there.
    """

    pages: Callable[[], Awaitable[Mapping[str, str]]]
    own: Callable[[], str] | None = None


def merged_metrics(pages: Mapping[str, str], label: str) -> bytes:
    """One page in Prometheus' text format.

    Args:
        pages: of each process, in the same format, by the process's name.
        label: gets the name.
    """
    registry = CollectorRegistry()
    registry.register(_Pages(pages, label))
    return generate_latest(registry)


class _Pages(Collector):
    def __init__(self, pages: Mapping[str, str], label: str) -> None:
        self._pages = pages
        self._label = label

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for name, page in sorted(self._pages.items()):
            for family in text_string_to_metric_families(page):
                known = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, self._label: name}
                    known.samples.append(sample._replace(labels=labels))
        yield from families.values()
