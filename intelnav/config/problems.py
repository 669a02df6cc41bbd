"""What pydantic finds wrong, in sentences that name the key, the value and the fix."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from intelnav.config.conflicts import Conflict
from intelnav.config.schema import NodeConfig

Place = tuple[int | str, ...]

_SENTENCES = {
    "literal_error": "write {expected}",
    "enum": "write {expected}",
    "greater_than_equal": "write a number from {ge} on",
    "less_than_equal": "write a number up to {le}",
    "greater_than": "write a number above {gt}",
    "int_type": "write a whole number",
    "float_type": "write a number",
    "finite_number": "write a finite number",
    "bool_type": "write true or false",
    "string_type": "write text",
    "string_pattern_mismatch": "write letters, digits, dot, dash and underscore only, 128 at most",
    "tuple_type": "write a list",
    "model_type": "write a mapping of keys to values",
    "too_long": "write at most {max_length} items",
}


def sentences(error: ValidationError, origins: Mapping[Place, str]) -> Iterator[str]:
    """One sentence a problem. `origins` names the environment variable that a key came from."""
    for detail in error.errors(include_url=False):
        place, context = detail["loc"], detail.get("ctx", {})
        source = _source(place, origins)
        key, value = _key(place), f"{_key(place)} = {_shown(detail['input'])}{source}"
        reason = context.get("error")
        if isinstance(reason, Conflict):
            yield from (f"{key}.{conflict}" if key else str(conflict) for conflict in reason.args)
        elif isinstance(reason, ValueError):
            yield f"{value}: {reason}"
        elif detail["type"] == "extra_forbidden":
            yield f"{key}: unknown key{source}; {_suggestion(str(place[-1]), _fields(place[:-1]))}"
        elif detail["type"] == "invalid_key":
            yield f"{_shown(detail['input'])}: a key must be a word"
        elif detail["type"] == "missing":
            example = (_fields(place[:-1])[str(place[-1])].examples or [""])[0]
            yield f"{key}: is missing; write {place[-1]}: {example}"
        else:
            yield f"{value}: {_SENTENCES.get(detail['type'], detail['msg']).format_map(context)}"


def _key(place: Place) -> str:
    """`("slices", 0, "layers")` as `slices[0].layers`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:60]}" for part in place)
    return text.removeprefix(".")


def _source(place: Place, origins: Mapping[Place, str]) -> str:
    """Which variable wrote the value at `place`, a part of it, or what it is part of."""
    for written, variable in origins.items():
        if place and all(one == other for one, other in zip(place, written, strict=False)):
            return f" (from {variable})"
    return ""


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _fields(place: Place) -> dict[str, FieldInfo]:
    """The keys of the section at `place`."""
    section: type[NodeConfig] = NodeConfig
    for part in place:
        if isinstance(part, str):
            annotation = section.model_fields[part].annotation
            section = (get_args(annotation) or (annotation,))[0]
    return section.model_fields


def _suggestion(word: str, known: Mapping[str, FieldInfo]) -> str:
    close = get_close_matches(word.lower(), known, n=1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
