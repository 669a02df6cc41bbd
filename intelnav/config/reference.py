"""What a config can hold, for editors and for readers: a JSON Schema and a page, both made from the models.

`python -m intelnav.config.reference` writes them to where the repository keeps them.
"""

import ast
import json
from collections.abc import Iterator
from inspect import cleandoc, getsource
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from intelnav.config import PREFIX, as_tree, schema

Json = dict[str, Any]

_HEAD = """\
# The config file

Made by `make docs-config` from `intelnav/config/schema.py`: change it there.

A node is told everything in one file, YAML or TOML, and needs none: every key can be left out.
[config/node.yaml](../config/node.yaml) shows all of them in their place. `intelnav config check FILE` says what is
wrong with one, and `intelnav config show FILE` what comes out of it. With a first line
`# yaml-language-server: $schema=node.schema.json` (in TOML `#:schema node.schema.json`) an editor completes and checks
it; `intelnav config schema` prints that schema.

A variable overrides a key, and is written as in YAML. A list is given as a whole, so that its items have no variables.
A section or a list of which everything is commented out is as if it were left out.
"""


class _Generator(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        return as_tree(dft)

    def field_title_should_be_set(self, schema: Any) -> bool:
        """A title made from the key would be the key once more."""
        return False


def json_schema() -> Json:
    """The JSON Schema of a config file. It takes whatever `load` takes, and refuses what can be seen to be wrong."""
    found = schema.NodeConfig.model_json_schema(schema_generator=_Generator)
    for name, texts in _texts().items():
        section = found if name == "NodeConfig" else found["$defs"].get(name)
        if section is None:
            continue
        section["description"] = cleandoc(getattr(schema, name).__doc__)
        if not section.get("required"):
            # All of it may be commented out.
            section["type"] = ["object", "null"]
        for key, value in section["properties"].items():
            for form in (value, *value.get("anyOf", ())):
                _tidy(form, found["$defs"])
            if key in texts:
                value["description"] = texts[key]
    found["$defs"] = {name: form for name, form in found["$defs"].items() if "enum" not in form}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "IntelNav node"}


def _tidy(form: Json, definitions: Json) -> None:
    """What a key can hold, as an editor is best told; changed in place."""
    words = definitions.get(form.get("$ref", "").rpartition("/")[2], {})
    if "enum" in words:
        del form["$ref"]
        form |= {"type": "string", "enum": words["enum"]}
    if form.get("type") == "array":
        # All of its items may be commented out.
        form["type"] = ["array", "null"]
    if form.get("default") == "" or isinstance(form.get("default"), dict | list):
        # An editor would write it out.
        del form["default"]


def page() -> str:
    """The page on all keys, as Markdown."""
    whole = json_schema()
    parts = [_HEAD]
    for place, section in _sections(schema.NodeConfig, ""):
        described = whole if section is schema.NodeConfig else whole["$defs"][section.__name__]
        parts.append(f"\n## {place or 'The file'}\n\n{described['description']}\n\n")
        parts.append("| key | type | default | meaning | variable |\n| --- | --- | --- | --- | --- |\n")
        for key, form in described["properties"].items():
            meaning = form.get("description") or f"See [{key}](#{key})."
            variable = (
                ""
                if "[]" in place
                else f"`{PREFIX}{f'{place}.{key}'.lstrip('.').upper().replace('.', '__')}`"
            )
            cells = (f"`{key}`", _kind(form), _default(section, key), " ".join(meaning.split()), variable)
            parts.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n")
    return "".join(parts)


def _texts() -> dict[str, dict[str, str]]:
    """For each class of the schema, the text below each key."""
    return {
        section.name: {
            key.target.id: cleandoc(text.value.value)
            for key, text in zip(section.body, section.body[1:], strict=False)
            if isinstance(key, ast.AnnAssign)
            and isinstance(key.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        }
        for section in ast.parse(getsource(schema)).body
        if isinstance(section, ast.ClassDef)
    }


def _sections(section: type[BaseModel], place: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section with its place in the file, `network.peers[]` for the items of a list."""
    yield place, section
    for key, field in section.model_fields.items():
        annotation = field.annotation
        kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        for kind in kinds:
            if issubclass(kind, BaseModel):
                mark = "" if kind is annotation or type(None) in kinds else "[]"
                yield from _sections(kind, f"{place}.{key}".lstrip(".") + mark)


def _kind(form: Json) -> str:
    """What may stand there, for people."""
    if "enum" in form or "const" in form:
        # The word is meant where YAML reads a bare `off` as false.
        words = [word for word in form.get("enum", [form.get("const")]) if isinstance(word, str)]
        return ", ".join(f"`{word}`" for word in words)
    if "title" in form:
        return str(form["title"])
    kinds = [form["type"]] if isinstance(form.get("type"), str) else list(form.get("type", ()))
    if "array" in kinds:
        return f"list of {_kind(form['items'])}" + ("s" if "$ref" in form["items"] else "")
    if "integer" in kinds or "number" in kinds:
        return ("whole number" if "integer" in kinds else "number") + _bounds(form)
    if "anyOf" in form:
        return " or ".join(filter(None, map(_kind, form["anyOf"])))
    if "$ref" in form:
        return "section"
    return "true or false" if "boolean" in kinds else "text" if "string" in kinds else ""


def _bounds(form: Json) -> str:
    low = f"{form['minimum']}" if "minimum" in form else f"above {form.get('exclusiveMinimum')}"
    return f", {low} to {form['maximum']:g}" if form["maximum"] < 10**6 else f", {low} to {form['maximum']}"


def _default(section: type[BaseModel], key: str) -> str:
    field = section.model_fields[key]
    if field.is_required():
        return "must be given"
    value = as_tree(field.default)
    if value in (None, []):
        return "none"
    # Of a section, each key has its own.
    return "" if value == "" or isinstance(value, dict) else f"`{json.dumps(value).strip(chr(34))}`"


def main() -> None:
    """Write both files."""
    root = Path(__file__).parents[2]
    (root / "config/node.schema.json").write_text(json.dumps(json_schema(), indent=2) + "\n")
    (root / "docs/config.md").write_text(page())


if __name__ == "__main__":
    main()
