"""The configuration's JSON schema and its reference in Markdown, both made from the models.

Nothing here is written by hand: a key's sentence is its docstring in `config`, its default and its
limits are the model's. A test compares the committed files with what this module makes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marrowflow.cli import step_parser
from marrowflow.config import Study
from marrowflow.files import write_text


def json_schema() -> str:
    """Return the JSON schema of a whole configuration; editors use it to complete and check keys."""
    return json.dumps(Study.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def markdown() -> str:
    """Return the reference: a table for the top level and one for each section."""
    schema = Study.model_json_schema()
    definitions = schema["$defs"]
    parts = [_HEAD, _table(schema, definitions)]
    for name, section in _sections(schema):
        parts += [f"## {name}\n", f"{section.get('description', '')}\n", _table(section, definitions)]
    return "\n".join(parts)


_HEAD = """# Configuration reference

Made from the models in `workflow/marrowflow/config.py` by `make docs`; do not edit.

A configuration is one YAML file. Unknown keys are errors. A key without a default must be given.

## Top level
"""


def _sections(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the sections in the order in which the top level mentions them, each with its place in the file."""
    definitions = schema["$defs"]
    found: list[tuple[str, dict[str, Any]]] = []
    waiting = [("", schema)]
    while waiting:
        prefix, section = waiting.pop(0)
        for key, value in section.get("properties", {}).items():
            for place, name in _references(value):
                path = f"{prefix}{key}{place}"
                # `training` stands in two places; once is enough.
                if all(known is not definitions[name] for _, known in found):
                    found.append((f"`{path}`", definitions[name]))
                    waiting.append((f"{path}.", definitions[name]))
    return found


def _references(value: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the sections that a key holds, each with what stands between: nothing, or a name."""
    if "$ref" in value:
        return [("", value["$ref"].rpartition("/")[2])]
    found = [reference for part in value.get("anyOf", []) for reference in _references(part)]
    if isinstance(value.get("items"), dict):
        found += [(f"[]{place}", name) for place, name in _references(value["items"])]
    inner = value.get("additionalProperties")
    if isinstance(inner, dict):
        found += [(f".<name>{place}", name) for place, name in _references(inner)]
    for pattern in value.get("patternProperties", {}).values():
        found += [(f".<name>{place}", name) for place, name in _references(pattern)]
    return found


def _table(section: dict[str, Any], definitions: dict[str, Any]) -> str:
    needed = section.get("required", [])
    rows = ["| key | kind | default | what it decides |", "|---|---|---|---|"]
    for key, value in section.get("properties", {}).items():
        default = "**needed**" if key in needed else _default(value)
        described = [value, *(definitions[name] for _, name in _references(value))]
        text = next((d["description"] for d in described if "description" in d), "")
        text = text.replace("\n", " ").replace("|", "\\|")
        rows.append(f"| `{key}` | {_kind(value)} | {default} | {text} |")
    return "\n".join(rows) + "\n"


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    if isinstance(default, dict) and _references(value) and default:
        return "see its section"
    return f"`{json.dumps(default, ensure_ascii=False)}`"


def _kind(value: dict[str, Any]) -> str:
    if "enum" in value:
        return " · ".join(f"`{item}`" for item in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if "anyOf" in value:
        return " or ".join(_kind(part) for part in value["anyOf"])
    if "$ref" in value:
        return "section"
    kind = value.get("type", "any")
    if kind == "array":
        items = value.get("items", {})
        return "list of sections" if "$ref" in items else f"list of {_kind(items)}"
    if kind == "object":
        patterns = list(value.get("patternProperties", {}).values())
        inner = patterns[0] if patterns else value.get("additionalProperties")
        return f"names with a {_kind(inner)}" if isinstance(inner, dict) else "section"
    return {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(
        kind, kind
    ) + _limits(value)


def _limits(value: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {value[name]}" for name, sign in signs.items() if name in value]
    return f" {', '.join(limits)}" if limits else ""


def main(argv: Sequence[str]) -> None:
    """Write the schema and the reference."""
    parser = step_parser("reference", "Write the configuration's JSON schema and its reference.")
    parser.add_argument("--schema", type=Path, required=True)
    parser.add_argument("--markdown", type=Path, required=True)
    args = parser.parse_args(argv)
    write_text(args.schema, json_schema())
    write_text(args.markdown, markdown())
