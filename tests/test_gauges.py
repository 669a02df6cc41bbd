"""The metrics of real nodes, beside what they did."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from intelnav.cli.swarm_files import Member
from tests.sandbox import Sandbox, sandbox
from tests.waiting import until

pytestmark = pytest.mark.timeout(120)


def metrics(swarm: Sandbox, member: Member) -> dict[str, float]:
    """Each metric of a node; those with labels are added up."""
    with swarm.client(member) as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                name = sample.name.removeprefix("intelnav_")
                found[name] = found.get(name, 0) + sample.value
    return found


def test_what_nodes_did_is_what_they_count(tmp_path: Path) -> None:
    with sandbox(tmp_path / "s") as swarm:
        entry, *hosts = swarm.swarm.members
        before = metrics(swarm, entry)
        assert (before["answers_total"], before["tokens_total"], before["decode_seconds_count"]) == (0, 0, 0)
        # The prompt's tokens are told by the API, and not to the metrics.
        with swarm.client() as client:
            body = client.post("/v1/completions", json=swarm.body("Once upon a time", max_tokens=12)).json()
            refused = client.post("/v1/completions", json=swarm.body("word " * 20_000))
        prompt, tokens = body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]
        assert (tokens, refused.status_code) == (12, 400)

        def closed() -> bool:
            return all(metrics(swarm, each)["sessions_open"] == 0 for each in hosts)

        until(closed, 20)
        after = metrics(swarm, entry)
        assert after["answers_total"] == 2
        assert after["answer_failures_total"] == 1
        assert after["tokens_total"] == tokens
        assert after["prefill_seconds_count"] == 1
        assert after["decode_seconds_count"] == tokens - 1
        timing = body["intelnav"]["timing"]
        assert after["prefill_seconds_sum"] + after["decode_seconds_sum"] <= timing["total"]
        assert after["prefill_seconds_sum"] <= timing["first_token"]
        assert (after["answers_open"], after["slice_queue"], after["peers"]) == (0, 0, len(hosts))
        for host in hosts:
            counted = metrics(swarm, host)
            assert counted["sessions_total"] == 1
            # Every row of prompt and answer but the last token, which is not run again.
            assert counted["rows_total"] == prompt + tokens - 1
            assert counted["forwards_total"] == counted["compute_seconds_count"] >= tokens
            assert 0 < counted["compute_seconds_sum"] < timing["total"]
            assert counted["tokens_total"] == 0
            # A hidden state of 576 floats for each row.
            assert counted["link_received_bytes_total"] > counted["rows_total"] * 576 * 4
        sent = [metrics(swarm, each)["link_sent_bytes_total"] for each in hosts]
        assert sent[0] > sent[-1]


def test_metrics_are_served_where_the_api_is_and_not_to_foreign_pages(tmp_path: Path) -> None:
    with sandbox(tmp_path / "s", cuts="15") as swarm:
        with swarm.client() as client:
            refused = client.get("/metrics", headers={"host": "evil.example"})
            assert refused.status_code == 403
            states = [
                sample
                for family in text_string_to_metric_families(client.get("/metrics").text)
                for sample in family.samples
                if sample.name == "intelnav_slices" and sample.value
            ]
        assert [each.labels for each in states] == [{"kind": "entry", "state": "ready"}]
