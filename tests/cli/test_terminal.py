import io

from intelnav.cli.client import Reply
from intelnav.cli.terminal import printable, running, summary


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_no_commands_from_an_answer() -> None:
    text = "a\x1b]0;title\x07b\x9b2J\r\x08\tc\né€"
    assert printable(text, Screen()) == "a]0;titleb2J\tc\né€"
    assert printable(text, io.StringIO()) == text


def test_the_summary_says_when_an_answer_was_cut_off() -> None:
    timing = {"tokens_per_second": 12.34}
    whole = Reply("", iter(()), finish_reason="stop", tokens=[1, 2], chain=[{}, {}], timing=timing)
    assert summary(whole) == "2 tokens, 12.3 a second, 2 nodes"
    whole.finish_reason = "length"
    assert summary(whole).endswith(", cut off at the limit")


def test_answers_are_counted_as_people_do() -> None:
    assert [running(count) for count in (0, 1, 2)] == [
        "0 answers still run",
        "1 answer still runs",
        "2 answers still run",
    ]
