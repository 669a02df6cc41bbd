import json
import signal
from pathlib import Path

import anyio
import pytest

from intelnav.domain.errors import Code, PeerError
from tests.cli.conftest import Cli, Served
from tests.waiting import until


def test_the_answer_is_printed(cli: Cli, served: Served) -> None:
    result = cli("ask", "--node", str(served.socket), "How far can you count?")
    assert (result.returncode, result.stdout, result.stderr) == (0, "0 1 2 3 \n", "")
    (request,) = served.completer.requests
    assert request.model == "counting"
    assert request.messages == ({"role": "user", "content": "How far can you count?"},)


def test_a_folder_an_address_and_a_variable_name_the_node(cli: Cli, served: Served, tmp_path: Path) -> None:
    for where in (str(tmp_path), f"http://{served.address}"):
        assert cli("ask", "--node", where, "hi").stdout == "0 1 2 3 \n"
    assert cli("ask", "hi", INTELNAV_NODE=str(tmp_path)).stdout == "0 1 2 3 \n"
    assert cli("ask", "hi", INTELNAV_DATA_DIR=str(tmp_path)).stdout == "0 1 2 3 \n"


def test_settings_reach_the_node(cli: Cli, served: Served) -> None:
    result = cli(
        *("ask", "--node", str(served.socket), "--model", "b3-counting", "--system", "Be brief."),
        *("--temperature", "0.5", "--seed", "7", "--max-tokens", "2", "hi"),
    )
    assert result.stdout == "0 1 \n"
    (request,) = served.completer.requests
    assert request.model == "b3-counting"
    assert request.messages == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"})
    assert (request.sampling.temperature, request.sampling.seed, request.max_tokens) == (0.5, 7, 2)


def test_a_raw_prompt_goes_in_as_it_is(cli: Cli, served: Served) -> None:
    assert cli("ask", "--node", str(served.socket), "--raw", "Once upon").stdout == "0 1 2 3 \n"
    (request,) = served.completer.requests
    assert (request.prompt, request.messages) == ("Once upon", None)


def test_what_is_piped_in_is_the_prompt_or_follows_it(cli: Cli, served: Served) -> None:
    cli("ask", "--node", str(served.socket), "--raw", stdin="piped ü\n")
    cli("ask", "--node", str(served.socket), "--raw", "Translate:", stdin="piped ü\n")
    assert [request.prompt for request in served.completer.requests] == [
        "piped ü\n",
        "Translate:\n\npiped ü\n",
    ]


def test_json_has_all_that_is_known(cli: Cli, served: Served) -> None:
    result = cli("ask", "--node", str(served.socket), "--json", "--max-tokens", "3", "hi")
    assert json.loads(result.stdout) == {
        "text": "0 1 2 ",
        "tokens": [0, 10, 20],
        "finish_reason": "length",
        "chain": [
            {"peer": "peer-a", "layers": "0..8", "milliseconds": 1.5},
            {"peer": "peer-b", "layers": "8..30", "milliseconds": 2.5},
        ],
        "timing": {"open": 0.25, "first_token": 0.5, "total": 1.0, "tokens_per_second": 8.0},
    }


def test_a_refusal_is_told(cli: Cli, served: Served) -> None:
    result = cli("ask", "--node", str(served.socket), "--model", "other", "hi")
    assert result.returncode == 1
    assert result.stderr == "intelnav: no model 'other' here; this node serves counting\n"


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_an_error_in_mid_answer_is_told(cli: Cli, served: Served, flags: list[str]) -> None:
    served.completer.fail_after = 2, PeerError(Code.ENGINE_FAILED, "the worker of peer-b died")
    result = cli("ask", "--node", str(served.socket), *flags, "hi")
    assert result.returncode == 1
    assert result.stdout == ("" if flags else "0 1 ")
    assert result.stderr.endswith("intelnav: the worker of peer-b died\n")


def test_text_is_streamed_and_an_interrupt_cancels_the_answer(cli: Cli, served: Served) -> None:
    served.completer.holds[2] = anyio.Event()
    process = cli.start("ask", "--node", str(served.socket), "hi")
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        assert process.stdout.read(4) == "0 1 "
        assert served.completer.open == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    until(lambda: served.completer.open == 0)


def test_a_reader_that_has_enough_is_no_error(cli: Cli, served: Served) -> None:
    served.completer.length = 100_000
    with cli.start("ask", "--node", str(served.socket), "hi") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.close()
        process.stdout.read(4)
        process.stdout.close()
        process.wait(20)
        assert process.stderr.read() == ""
    until(lambda: served.completer.open == 0)
