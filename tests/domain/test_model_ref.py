import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.domain.errors import ConfigError
from intelnav.domain.model_ref import ModelRef, looks_like_a_path, model_name, origin_url

CID = "b3-" + "a" * 52


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (CID, "cid"),
        ("qwen2.5-0.5b-instruct-q4_k_m", "name"),
        ("tiny", "name"),
        ("http://127.0.0.1:8080/m.gguf", "url"),
        ("https://[::1]/m.gguf?x=1", "url"),
        ("hf://Qwen/Qwen2.5-3B-Instruct-GGUF/sub/m.gguf", "hub"),
    ],
)
def test_a_text_tells_what_it_names(text: str, kind: str) -> None:
    ref = ModelRef.parse(text)
    assert (ref.kind, ref.value, str(ref)) == (kind, text, text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "write a path, a URL"),
        ("a b", "write a path, a URL"),
        ("../x", "write a path, a URL"),
        ("x" * 129, "write a path, a URL"),
        (CID + "a", "a CID is b3- and 52 characters"),
        (CID.upper(), None),
        ("file:///etc/passwd", "is read from http"),
        ("HTTP://h/m", "is read from http"),
        ("http://", "is no URL"),
        ("http:///m", "is no URL"),
        ("http://h:x/m", "is no URL"),
        ("http://h:0/m", "is no URL"),
        ("http://h/a b", "is no URL"),
        ("http://h/\n", "is no URL"),
        ("http://h/ü", "is no URL"),
        ("http://[::1/m", "is no URL"),
        ("http://h/" + "x" * 2048, "is no URL"),
        ("http://me@h/m", "a URL with a user"),
        ("http://h/m#x", "a URL with a user"),
        ("hf://", "is no file on the hub"),
        ("hf://a/b", "is no file on the hub"),
        ("hf://a/b/", "is no file on the hub"),
        ("hf://a/../b", "is no file on the hub"),
        ("hf://a/b/c?x", "is no file on the hub"),
        ("hf://a//b", "is no file on the hub"),
    ],
)
def test_what_names_no_model_is_refused(text: str, reason: str | None) -> None:
    if reason is None:
        assert ModelRef.parse(text).kind == "name"
        return
    with pytest.raises(ValueError, match=reason):
        ModelRef.parse(text)


@given(st.text())
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        ref = ModelRef.parse(text)
    except ValueError:
        return
    assert ref.value == text


@given(st.text())
def test_a_name_is_one_that_can_be_looked_up(text: str) -> None:
    assert ModelRef.parse(model_name(text)).kind in ("name", "cid")
    assert model_name(model_name(text)) == model_name(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/models/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct-q4_1"),
        ("https://h/a/Tiny.gguf?x=/y", "tiny"),
        ("Smollm2 135M 8k", "smollm2-135m-8k"),
        ("qwen2.5-3b", "qwen2.5-3b"),
        ("模型.gguf", "model"),
        ("/a/.gguf", "model"),
        ("b3-x y", "model"),
    ],
)
def test_names_are_made_from_what_a_model_is_known_by(text: str, name: str) -> None:
    assert model_name(text) == name


@pytest.mark.parametrize("text", ["./m", "m.gguf", "M.GGUF", "a/b", "/m", "~/m", "~m", ".."])
def test_a_path_is_told_from_a_name(text: str) -> None:
    assert looks_like_a_path(text)


@pytest.mark.parametrize("text", ["m", CID, "http://h/m.gguf", "hf://a/b/m.gguf", "qwen2.5-3b"])
def test_a_name_is_told_from_a_path(text: str) -> None:
    assert not looks_like_a_path(text)


def test_where_a_reference_leads() -> None:
    hub = ModelRef.parse("hf://Qwen/Repo/a/m.gguf")
    assert origin_url(hub, {}) == "https://huggingface.co/Qwen/Repo/resolve/main/a/m.gguf"
    assert origin_url(hub, {"HF_ENDPOINT": "http://h:1/"}) == "http://h:1/Qwen/Repo/resolve/main/a/m.gguf"
    assert origin_url(ModelRef.parse("https://h/m"), {}) == "https://h/m"
    with pytest.raises(ConfigError, match="HF_ENDPOINT = 'file:///x'"):
        origin_url(hub, {"HF_ENDPOINT": "file:///x"})
    with pytest.raises(ConfigError, match="no place to import from"):
        origin_url(ModelRef.parse("tiny"), {})
