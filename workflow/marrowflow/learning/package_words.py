"""The words in a model package: its README with the model card, the licences, the licence of the code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from marrowflow.licences import non_commercial

NOT_PROVIDED = "NOT PROVIDED"

CODE_LICENCE = """\
MIT License

Copyright (c) 2026 the marrowflow authors

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
"""The project's LICENSE (a test compares them), which must go with its code."""

_HOW = """\
## How to run it

Nothing but Python {python} and the packages of `requirements.txt` is needed, and no network once they are installed.
No image leaves the machine.

    python -m venv venv && venv/bin/pip install -r requirements.txt
    sha256sum -c checksums.sha256
    PYTHONPATH=code venv/bin/python -B -m marrowflow learning.apply --package . --manifest /images/manifest.csv --out /results

The manifest is a CSV beside the images with a column `image` (path relative to the manifest) and a column `patient_id`
(a pseudonym). Without `patient_id` near duplicates stand in for patients. {labels}
Images are excluded by the limits that the networks were developed with, each with its reason, and colours are corrected by
the same recipe ({colour}).

`--out` receives `predictions.parquet` and `predictions.csv` (a row an image), {results}
`inventory.parquet` (all images, with the reason of each exclusion) and `run.json` (versions, this package's digest). A
package in which a file is missing, changed or added is refused (`-B` keeps Python from adding compiled modules). Whoever can change a file can change the list of checksums
as well: compare the digest in `package.json` with the one that you were told by those who made the package.

Where the manifest has the true classes (column `label`), accuracy with confidence intervals comes from

    PYTHONPATH=code venv/bin/python -B -m marrowflow statistics.accuracy --options "$(cat accuracy.json)" \\
        --predictions /results/predictions.parquet --lock threshold.json --out /results/accuracy
"""

_FILES = """\
## What is in it

| file | what it is |
|---|---|
| `networks/<model>/<fold>/model.safetensors` | weights of each network, and beside them the card of its training |
| `preprocessing.json` | limits of the intake, side of the images, colour recipe with what its target measures |
| `threshold.json` | calibration (temperature) and cut-offs, as they were locked on development patients, with their digest |
| `card.json` | this card for programs |
| `LICENCES.md`, `code/LICENSE` | licences of the weights that training started from, and of the code |
| `requirements.txt` | Python packages, to the version |
| `accuracy.json` | classes, endpoints and units, for `statistics.accuracy` |
| `code/` | the program |
| `checksums.sha256`, `package.json` | SHA-256 of every file, and of that list: the package's digest |
"""


def readme(card: Mapping[str, Any]) -> str:
    """Return the text of README.md: what the index test is for, how to run it, what is known of its accuracy."""
    notice = f"**{card['notice']}**\n\n" if card["notice"] else ""
    warned = "".join(f"**{line}**\n\n" for line in licence_warnings(card))
    return (
        f"# {card['index_test']}: {card['title']}\n\n{notice}{warned}"
        + "".join(f"- {name}: {words}\n" for name, words in _facts(card))
        + f"\n{_how(card)}\n{_accuracy(card)}\n{_training(card)}\n{_FILES}"
    )


def licences(card: Mapping[str, Any]) -> str:
    """Return the text of LICENCES.md."""
    lines = [
        "# Licences",
        "",
        "The code below `code/` is under the licence in `code/LICENSE`.",
        "",
        "Training started from these weights. What their licence asks for may bind the networks of this package too.",
        "",
        "| models | weights | licence | SHA-256 |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {', '.join(w['models'])} | {w['source']} | {w['licence'] or 'none needed'} | {w['sha256'] or '–'} |"
        for w in card["start_weights"]
    ]
    warnings = licence_warnings(card)
    return "\n".join([*lines, *(f"\n**{line}**" for line in warnings)]) + "\n"


def licence_warnings(card: Mapping[str, Any]) -> list[str]:
    """Return a warning for each licence of start weights that keeps commerce out."""
    return [
        f"No commercial use: {', '.join(w['models'])} started from {w['source']}, whose licence is {w['licence']}."
        for w in card["start_weights"]
        if non_commercial(w["licence"])
    ]


def _facts(card: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, key in (("Intended use", "intended_use"), ("End user", "end_user")):
        yield name, card[key] or f"{NOT_PROVIDED}: study.{key}"
    yield "Images", card["acquisition"] or f"{NOT_PROVIDED}: acquisition"
    yield "Known limitations", card["limitations"] or f"{NOT_PROVIDED}: limitations"
    yield "Classes", ", ".join(card["classes"])
    for name, endpoint in card["endpoints"].items():
        yield f"Endpoint {name}", f"present in {', '.join(endpoint['positive'])}"
    networks = sum(len(member["folds"]) for member in card["members"])
    models = ", ".join(member["model"] for member in card["members"])
    yield "Answers by", f"the mean of {networks} networks ({models}), calibrated; protocol {card['protocol']}"
    yield "Cut-offs", f"`threshold.json`, digest {card['lock_digest']}"


def _how(card: Mapping[str, Any]) -> str:
    files = [f"`{'patients' if unit == 'patient' else 'images'}.csv`" for unit in card["units"]]
    results = f"{' and '.join(files)} (scores and results at the locked cut-offs),"
    labels = (
        "A column `label` with the true class may be left out."
        if card["labels"] == "classes"
        else "A column `label` with the true label (those of `label_map.csv`) may be left out."
    )
    return _HOW.format(python=card["python"], labels=labels, colour=card["colour"], results=results)


def _accuracy(card: Mapping[str, Any]) -> str:
    fitted = card["cutoffs_fitted_on"]
    lines = [
        "## Accuracy on development patients",
        "",
        "Each patient was answered for by networks that had not been trained on the patient "
        f"({card['development_answers']}); the package answers by the mean of all networks. "
        + (
            "The cut-offs were fitted on these same predictions, which flatters sensitivity and specificity. "
            if str(fitted).startswith("out-of-fold")
            else f"The cut-offs were {f'fitted on {fitted}' if fitted else 'fixed beforehand'}. "
        )
        + "Other hospitals' results are no part of the package.",
        "",
        "| endpoint | unit | metric | estimate (interval) | patients | images |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['endpoint']} | {'patient' if r['unit'] == 'patient' else 'image'} "
        f"| {r['metric']}{', mean over classes' if r['class'] else ''} | {_estimate(r)} | {r['n_patients']} | {r['n_cases']} |"
        for r in card["accuracy"]
    ]
    return "\n".join(lines) + "\n"


def _estimate(row: Mapping[str, Any]) -> str:
    if row["estimate"] is None:
        return "undefined"
    interval = "" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['estimate']:.3f}{interval}"


def _training(card: Mapping[str, Any]) -> str:
    lines = [
        "## Training data",
        "",
        "Images (patients) of each network, by class.",
        "",
        f"| model | fold | partition | {' | '.join(card['classes'])} |",
        f"|---|---|---|{'---|' * len(card['classes'])}",
    ]
    for member in card["members"]:
        for fold in member["folds"]:
            for partition in ("train", "validation", "test"):
                counts = fold["data"].get(partition, {})
                cells = [_count(counts.get(name)) for name in card["classes"]]
                lines.append(f"| {member['model']} | {fold['fold']} | {partition} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _count(count: Mapping[str, int] | None) -> str:
    return "0" if count is None else f"{count['images']} ({count['patients']})"
