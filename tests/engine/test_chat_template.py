import pytest

from intelnav.domain.errors import EngineError, PeerError
from intelnav.engine.chat_template import ChatTemplate

CHATML = """{% for message in messages %}
    {% if loop.first and message['role'] == 'assistant' %}{{ raise_exception('the user speaks first') }}{% endif %}
    {% if message['role'] == 'tool' %}{% continue %}{% endif %}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def test_messages_become_a_prompt_as_hugging_face_renders_it() -> None:
    messages = [{"role": "user", "content": "<b>Hi</b>"}, {"role": "tool", "content": "no"}]
    prompt = ChatTemplate(CHATML, "", "<|im_end|>").render(messages)
    assert prompt == "<|im_start|>user\n<b>Hi</b><|im_end|>\n<|im_start|>assistant\n"


def test_the_begin_token_json_and_the_date_are_at_hand() -> None:
    template = ChatTemplate(
        "{{ bos_token }}{{ messages | tojson }}{{ strftime_now('%Y') | length }}", "<s>", ""
    )
    assert template.render([{"role": "user", "content": "è <"}]) == '<s>[{"role": "user", "content": "è <"}]4'


def test_messages_that_the_template_refuses_are_the_askers_fault() -> None:
    with pytest.raises(PeerError, match="the user speaks first"):
        ChatTemplate(CHATML, "", "").render([{"role": "assistant", "content": "I"}])


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ 1 / 0 }}",
        "{{ messages[9]['role'] }}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_a_template_that_misbehaves_is_stopped(source: str) -> None:
    with pytest.raises(PeerError, match="chat template"):
        ChatTemplate(source, "", "").render([])


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "-" * 5000 + "x }}",
        "{% if x %}" * 2000 + "{% endif %}" * 2000,
        "{% for x in y %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "9" * 5000 + " }}",
    ],
    ids=["syntax", "parentheses", "signs", "conditions", "loops", "digits"],
)
def test_a_broken_template_says_what_to_do_instead(source: str) -> None:
    with pytest.raises(EngineError, match=r"broken \(.+\): send it a raw prompt"):
        ChatTemplate(source, "", "")
