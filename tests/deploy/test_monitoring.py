import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from serving.http.app import INGRESS_LABEL
from serving.http.metrics import Rejection
from serving.settings import ServerSettings
from tests.deploy.files import DEPLOY, RUNBOOK, documents, every_value
from tests.deploy.named import Use, gauges_of_ray, samples_of_polyvec, uses_in

PROMETHEUS = DEPLOY / "prometheus"
GRAFANA = DEPLOY / "grafana"
EMBEDDINGS = "/v1/embeddings"
TASKS = ["retrieval", "text-matching", "code"]
(RULES,) = documents(PROMETHEUS / "alerts.yml")
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
SCRAPES = {name: documents(PROMETHEUS / name)[0] for name in ("prometheus.yml", "kubernetes.yml")}
DASHBOARD = json.loads((GRAFANA / "dashboards" / "polyvec.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {
    **{name: [rule["expr"]] for name, rule in ALERTS.items()},
    **{panel["title"]: [target["expr"] for target in panel["targets"]] for panel in PANELS},
}

# What Prometheus adds to a sample, and what an ingress does.
ADDED = frozenset({"job", "instance", INGRESS_LABEL})
RELABELLED = frozenset({"job", "instance", "pod", "group"})


@pytest.fixture(scope="module")
def known() -> Mapping[str, frozenset[str]]:
    """Every sample there is to ask for, with the labels that it may have."""
    ours = {
        name: labels | ADDED for name, labels in samples_of_polyvec([EMBEDDINGS], TASKS).items()
    }
    rays = {name: labels | RELABELLED for name, labels in gauges_of_ray().items()}
    return {**ours, **rays, "up": RELABELLED}


def unknown(uses: list[Use], known: Mapping[str, frozenset[str]]) -> list[Use]:
    return [
        use
        for use in uses
        if not use.labels <= known.get(use.metric, frozenset()) or use.metric not in known
    ]


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_every_metric_and_label_that_is_asked_for_exists(
    title: str, known: Mapping[str, frozenset[str]]
) -> None:
    for expression in EXPRESSIONS[title]:
        uses = uses_in(expression)
        assert uses
        assert not unknown(uses, known), expression


@pytest.mark.parametrize(
    "wrong",
    [
        "sum(rate(polyvec_request_total[5m]))",
        "sum(rate(polyvec_requests[5m]))",
        "sum by (tusk) (polyvec_engine_up)",
        'rate(polyvec_requests_total{state="200"}[5m])',
        "polyvec_request_seconds",
        "ray_serve_deployment_replicas_healthy",
    ],
)
def test_a_misspelt_metric_or_label_is_found(
    wrong: str, known: Mapping[str, frozenset[str]]
) -> None:
    assert unknown(uses_in(wrong), known)


def test_what_is_not_promql_is_found() -> None:
    with pytest.raises(ValueError, match="parenthesis"):
        uses_in("sum by (task (polyvec_engine_up)")


def test_values_of_labels_that_are_asked_for_exist() -> None:
    text = "\n".join(expression for found in EXPRESSIONS.values() for expression in found)
    reasons = "|".join(re.findall(r'reason=~?"([a-z_|]+)', text)).split("|")
    assert set(reasons) <= set(Rejection)
    jobs = {s["job_name"] for scrape in SCRAPES.values() for s in scrape["scrape_configs"]}
    assert set(re.findall(r'job="(\w+)', text)) == jobs
    assert set(re.findall(r'route="([^"]+)', text)) == {EMBEDDINGS}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_the_runbook_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"deploy/README.md#{name.lower()}"
    assert f"\n### {name}\n" in RUNBOOK.read_text(encoding="utf-8")


def test_the_runbook_has_no_alert_that_is_none() -> None:
    headings = re.findall(r"^### (Polyvec\w+)$", RUNBOOK.read_text(encoding="utf-8"), flags=re.M)
    assert headings == list(ALERTS)


def test_thresholds_are_those_of_the_settings() -> None:
    queued = ServerSettings.model_fields["max_queued_tokens"].default
    assert f"0.8 * {queued}" in ALERTS["PolyvecQueueLong"]["expr"]


@pytest.mark.parametrize("name", SCRAPES)
def test_a_scrape_shows_a_key_and_reads_the_alerts(name: str) -> None:
    scrape = SCRAPES[name]
    assert scrape.keys() == {"global", "rule_files", "scrape_configs"}
    assert scrape["rule_files"] == ["alerts.yml"]
    jobs = {job["job_name"]: job for job in scrape["scrape_configs"]}
    assert jobs["polyvec"]["authorization"] == {
        "type": "Bearer",
        "credentials_file": "prometheus.key",
    }
    (config,) = jobs["polyvec"]["static_configs"]
    assert [target.partition(":")[2] for target in config["targets"]] == ["8000"]


def test_the_dashboard_is_found_and_its_panels_lie_side_by_side() -> None:
    (compose,) = documents(DEPLOY / "compose.yaml")
    (provider,) = documents(GRAFANA / "provisioning" / "dashboards" / "polyvec.yml")[0]["providers"]
    mounts = [volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts
    (source,) = documents(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")[0][
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert {s["uid"] for s in every_value(DASHBOARD, "datasource")} == {source["uid"]}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        covered = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not covered & cells
        assert place["x"] + place["w"] <= 24
        cells |= covered


def test_the_dashboards_variable_is_a_label(known: Mapping[str, frozenset[str]]) -> None:
    variables: list[Any] = DASHBOARD["templating"]["list"]
    assert [variable["name"] for variable in variables] == ["task"]
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables[0]["definition"])
    assert found is not None
    assert found[2] in known[found[1]]
