import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.api.bodies import parse
from intelnav.api.errors import ApiError
from intelnav.api.openai import ChatBody, TextBody
from intelnav.chain.interface import Request
from intelnav.domain.sampling import Sampling

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def chat(**fields: Any) -> Request:
    return parse(ChatBody, json.dumps(CHAT | fields).encode()).request()


def refusal(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    assert caught.value.status == 400
    return caught.value


def test_messages_become_role_and_text() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    request = chat(messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}])
    assert request.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one\ntwo"},
    )


def test_an_answer_may_be_sent_back_as_the_official_client_has_it() -> None:
    said = {"role": "assistant", "content": "Paris.", "refusal": None, "annotations": None, "audio": None}
    said |= {"function_call": None, "tool_calls": None}
    asked = {"role": "user", "content": "And Spain?", "name": "ada"}
    messages = [{"role": "developer", "content": "Be brief."}, said, asked]
    assert chat(messages=messages).messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And Spain?"},
    )
    assert refusal(messages=[said | {"tool_calls": [{"id": "1"}]}]).param == "messages.0.tool_calls"
    assert refusal(messages=[said | {"content": None}]).param == "messages.0.content"


def test_sampling_is_passed_on() -> None:
    request = chat(temperature=2, top_p=0.5, top_k=40, min_p=0.05, repeat_penalty=1.1, seed=7)
    assert request.sampling == Sampling(
        seed=7, temperature=2.0, top_k=40, top_p=0.5, min_p=0.05, repeat_penalty=1.1
    )


def test_a_silent_client_gets_the_documented_sampling_and_a_fresh_seed() -> None:
    first, second = chat().sampling, chat().sampling
    assert (first.temperature, first.top_p, first.top_k, first.min_p, first.repeat_penalty) == (
        0.7,
        0.95,
        0,
        0,
        1,
    )
    assert first.seed != second.seed


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_seed_of_64_bits_is_taken_and_means_the_same_again(seed: int) -> None:
    assert chat(seed=seed).sampling == chat(seed=seed).sampling


@pytest.mark.parametrize(
    ("stop", "expected"), [("a", ("a",)), (["a", "b"], ("a", "b")), ([], ()), (None, ())]
)
def test_stop_is_a_string_or_a_list(stop: Any, expected: tuple[str, ...]) -> None:
    assert chat(stop=stop).stop == expected


def test_the_newer_name_of_max_tokens_wins() -> None:
    assert chat().max_tokens is None
    assert chat(max_tokens=5).max_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=6).max_tokens == 6


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"},
        {"n": 1, "frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}, "logprobs": False},
        {"n": None, "tools": None, "stop": None, "seed": None, "temperature": None, "stream": None},
        {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    ],
)
def test_what_asks_for_nothing_is_accepted(fields: dict[str, Any]) -> None:
    assert chat(**fields).messages == ({"role": "user", "content": "hi"},)


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("n", 2),
        ("frequency_penalty", 0.5),
        ("presence_penalty", -1),
        ("logit_bias", {"50256": -100}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("tools", [{"type": "function"}]),
        ("response_format", {"type": "json_object"}),
        ("max_token", 5),
    ],
)
def test_what_is_not_offered_is_refused_by_name(param: str, value: Any) -> None:
    error = refusal(**{param: value})
    assert (error.code, error.param) == ("unsupported_parameter", param)


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("model", ""),
        ("messages", []),
        ("messages.0.role", [{"role": "tool", "content": "x"}]),
        ("max_tokens", 0),
        ("max_tokens", 2**40),
        ("max_tokens", "5"),
        ("max_tokens", True),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", -0.1),
        ("top_k", 2**21),
        ("min_p", 2),
        ("repeat_penalty", 0),
        ("seed", 2**63),
        ("seed", 1.5),
        ("stream", "yes"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(param: str, value: Any) -> None:
    error = refusal(**{param.partition(".")[0]: value})
    assert (error.code, error.param) == ("invalid_value", param)


@pytest.mark.parametrize(
    ("stop", "param"),
    [("", "stop.0"), (["a", ""], "stop.1"), (["a"] * 5, "stop"), ("x" * 257, "stop.0"), (5, "stop")],
)
def test_a_wrong_stop_is_refused(stop: Any, param: str) -> None:
    assert refusal(stop=stop).param == param


def test_a_part_that_is_no_text_is_refused() -> None:
    image = [{"type": "image_url", "image_url": {"url": "data:"}}]
    assert refusal(messages=[{"role": "user", "content": image}]).param == "messages.0.content.0.type"


def test_stream_options_need_a_stream() -> None:
    assert "stream_options" in str(refusal(stream_options={"include_usage": True}))


def test_a_raw_prompt_is_a_string_or_a_list_of_one() -> None:
    for prompt in ("once", ["once"]):
        body = parse(TextBody, json.dumps({"model": "m", "prompt": prompt, "echo": False}).encode())
        assert (body.request().prompt, body.request().messages) == ("once", None)
    for wrong in ([], ["a", "b"], [1, 2], None):
        with pytest.raises(ApiError) as caught:
            parse(TextBody, json.dumps({"model": "m", "prompt": wrong}).encode())
        assert str(caught.value.param).startswith("prompt")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_only_yield_an_api_error(data: bytes) -> None:
    with pytest.raises(ApiError):
        parse(ChatBody, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(ChatBody.model_fields)), JSON)
def test_any_value_of_any_field_is_taken_or_refused(field: str, value: Any) -> None:
    with suppress(ApiError):
        assert isinstance(chat(**{field: value}), Request)
