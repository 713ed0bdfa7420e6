"""Texts of other scripts as a figure can draw them: one line, right-to-left words in the order in which the eye meets them.

Matplotlib sets one letter after the other from left to right. A browser needs none of this: it gets the text as it is.

Reordering follows the Unicode bidirectional algorithm (UAX #9) as far as single lines of a left-to-right text need it; Arabic
letters are joined by the presentation forms whose decompositions Unicode lists.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from functools import lru_cache

from matplotlib.font_manager import FontProperties, findfont, get_font

UNKNOWN = "□"
"""Stands for a character that the figures' typeface lacks."""

_FORMS_BLOCKS = (range(0xFB50, 0xFE00), range(0xFE70, 0xFF00))
_LAM = "\u0644"
_RIGHT = {"R", "AL"}
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn"}
_OPENING, _CLOSING = "([{«", ")]}»"
_MIRRORED = str.maketrans(_OPENING + _CLOSING, _CLOSING + _OPENING)
_DIGITS = re.compile(r"\d+(?:[.,:/–-]\d+)*")


def drawable(text: str) -> str:
    """Return a text as one line of characters that can be drawn; no-break spaces stay, Arabic letters are joined.

    Control and direction characters are left out. What the typeface lacks becomes `UNKNOWN`.
    """
    line = re.sub(r"[^\S\u00a0]+", " ", text).strip(" ")
    kept = (c for c in line if unicodedata.category(c) not in _INVISIBLE and not _is_selector(c))
    return "".join(c if _has(c) else UNKNOWN for c in _joined("".join(kept)))


def in_reading_order(line: str) -> str:
    """Return a line with its right-to-left stretches turned, so that drawing from left to right shows them rightly.

    A stretch runs from a right-to-left letter to the last one before a left-to-right letter, with brackets that it opens and a
    number that follows.
    """
    kinds = [unicodedata.bidirectional(c) for c in line]
    turned, start = [], 0
    while start < len(line):
        if kinds[start] not in _RIGHT:
            turned.append(line[start])
            start += 1
            continue
        stop = _end_of_stretch(line, kinds, start)
        turned.append(_reversed(line[start:stop]))
        start = stop
    return "".join(turned)


def _end_of_stretch(line: str, kinds: list[str], start: int) -> int:
    stop, brackets = start, 0
    for i in range(start, len(line)):
        brackets += (line[i] in _OPENING) - (line[i] in _CLOSING)
        # What was opened before the stretch is closed behind it.
        if kinds[i] == "L" or brackets < 0:
            break
        if kinds[i] in {*_RIGHT, "NSM"} or line[i] in _CLOSING:
            stop = i + 1
    number = re.match(rf" +{_DIGITS.pattern}", line[stop:])
    return stop + (number.end() if number else 0)


def _reversed(stretch: str) -> str:
    """Turn a stretch round: letters with the marks on them, but numbers as they stand."""
    pieces: list[str] = []
    for part in re.split(f"({_DIGITS.pattern})", stretch):
        if _DIGITS.fullmatch(part):
            pieces.append(part)
            continue
        for c in part.translate(_MIRRORED):
            if pieces and unicodedata.combining(c):
                pieces[-1] += c
            else:
                pieces.append(c)
    return "".join(reversed(pieces))


def _joined(text: str) -> str:
    """Replace Arabic letters by the forms that they take beside their neighbours."""
    forms = _forms()
    if not any(c in forms for c in text):
        return text
    made, skip = [], False
    for i, c in enumerate(text):
        if skip or c not in forms:
            made.append("" if skip else c)
            skip = False
            continue
        before = next((p for p in reversed(text[:i]) if not unicodedata.combining(p)), "")
        after = next((n for n in text[i + 1 :] if not unicodedata.combining(n)), "")
        back = "initial" in forms.get(before, {}) and "final" in forms[c]
        # Lam and a following alef are one sign.
        skip = c == _LAM and c + text[i + 1 : i + 2] in forms
        own = forms[c + text[i + 1]] if skip else forms[c]
        on = not skip and "initial" in own and "final" in forms.get(after, {})
        kind = "medial" if back and on else "final" if back else "initial" if on else "isolated"
        made.append(own.get(kind, c))
    return "".join(made)


@lru_cache(maxsize=1)
def _forms() -> dict[str, dict[str, str]]:
    """Return letter (or lam and alef) → kind of form → its character, of those that the typeface has."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for code in (code for block in _FORMS_BLOCKS for code in block):
        kind, *parts = unicodedata.decomposition(chr(code)).split() or [""]
        letters = "".join(chr(int(part, 16)) for part in parts)
        if (
            kind.strip("<>") in {"isolated", "initial", "medial", "final"}
            and _is_one_sign(letters)
            and _has(chr(code))
        ):
            found[letters][kind.strip("<>")] = chr(code)
    return dict(found)


def _is_one_sign(letters: str) -> bool:
    return len(letters) == 1 or (
        len(letters) == 2 and letters[0] == _LAM and letters[1] in "\u0622\u0623\u0625\u0627"
    )


def _is_selector(c: str) -> bool:
    return 0xFE00 <= ord(c) <= 0xFE0F


@lru_cache(maxsize=4096)
def _has(c: str) -> bool:
    return get_font(findfont(FontProperties(family="DejaVu Sans"))).get_char_index(ord(c)) > 0
