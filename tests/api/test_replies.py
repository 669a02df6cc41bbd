import json

import httpx
import pytest

from intelnav.api.replies import Reply, event


@pytest.mark.parametrize(
    "text", ["one\u2028two", "one\x85two", "one\ntwo\r\n\r\n", "data: [DONE]", "é 漢 🙂"]
)
def test_an_event_is_one_line_to_every_client(text: str) -> None:
    data = event(Reply("model", chat=False).chunk(text))
    # httpx ends lines where str.splitlines() does.
    lines = list(httpx.Response(200, content=data).iter_lines())
    assert len(lines) == 2
    assert lines[1] == ""
    assert json.loads(lines[0].removeprefix("data: "))["choices"][0]["text"] == text


def test_answers_have_ids_of_their_own() -> None:
    first, second = (Reply("model", chat=True).opening()["id"] for _ in range(2))
    assert first != second
    assert first.startswith("chatcmpl-")
