from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from serving.http.metrics_merge import merged_metrics


def page(num_requests: int) -> str:
    registry = CollectorRegistry()
    Counter("polyvec_requests", "Requests.", ["route"], registry=registry).labels("/a").inc(
        num_requests
    )
    seconds = Histogram("polyvec_seconds", "Time.", buckets=[1, 2], registry=registry)
    seconds.observe(1.5)
    return generate_latest(registry).decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_sample_of_every_page_is_there_once_with_its_name() -> None:
    pages = {"one": page(3), "two": page(5)}
    merged = samples(merged_metrics(pages, "ingress").decode())
    expected = {
        (name, tuple(sorted([*labels, ("ingress", process)]))): value
        for process, text in pages.items()
        for (name, labels), value in samples(text).items()
    }
    assert merged == expected
    assert merged[("polyvec_requests_total", (("ingress", "two"), ("route", "/a")))] == 5


def test_types_and_words_are_those_of_the_pages() -> None:
    text = merged_metrics({"one": page(1)}, "ingress").decode()
    assert "# TYPE polyvec_requests_total counter" in text
    assert "# HELP polyvec_seconds Time." in text
    assert "# TYPE polyvec_seconds histogram" in text
