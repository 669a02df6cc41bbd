from hypothesis import given
from hypothesis import strategies as st

from intelnav.chain.text import TextStream


def test_a_split_character_waits_until_it_is_whole() -> None:
    stream = TextStream()
    euro = "€".encode()
    assert [stream.feed(euro[:1]), stream.feed(euro[1:2]), stream.feed(euro[2:])] == ["", "", "€"]


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    stream = TextStream()
    assert stream.feed(b"a\xffb") == "a\ufffdb"
    assert stream.feed("€".encode()[:2]) == ""
    assert stream.finish() == "\ufffd"


def test_a_stop_string_is_cut_out_even_when_split() -> None:
    stream = TextStream(["END", "\n\n"])
    assert stream.feed(b"one E") == "one "
    assert stream.feed(b"N") == ""
    assert stream.feed(b"D two") == ""
    assert stream.stopped
    assert stream.finish() == ""


def test_text_that_only_began_like_a_stop_string_comes_out() -> None:
    stream = TextStream(["END"])
    assert stream.feed(b"EN") == ""
    assert stream.feed(b"G") == "ENG"
    assert stream.feed(b"E") == ""
    assert stream.finish() == "E"
    assert not stream.stopped


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=4), max_size=3), st.data())
def test_chunking_does_not_matter(text: str, stops: list[str], data: st.DataObject) -> None:
    raw = text.encode("utf-8", "replace")
    whole = raw.decode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    stream = TextStream(stops)
    out = (
        "".join(stream.feed(raw[a:b]) for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True))
        + stream.finish()
    )
    found = [at for stop in stops if (at := whole.find(stop)) >= 0]
    assert out == whole[: min(found, default=len(whole))]
