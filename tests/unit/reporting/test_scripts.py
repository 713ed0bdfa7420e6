"""Texts of other scripts against what other programs make of them."""

import pytest

from marrowflow.reporting.scripts import drawable, in_reading_order

# Made with arabic-reshaper 3.1.0 and python-bidi 0.6.12 (base direction left to right); none has brackets, which the latter
# leaves to the typeface.
SHOWN = {
    "not eligible: \u0639\u064a\u0646\u0629 \u0642\u0628\u0644 5 \u0623\u064a\u0627\u0645": (
        "not eligible: \ufee1\ufe8e\ufef3\ufe83 5 \ufede\ufe92\ufed7 \ufe94\ufee8\ufef4\ufecb"
    ),
    "\u0644\u0627 \u0625\u0644\u0647 \u0633\u0644\u0627\u0645": (
        "\ufee1\ufefc\ufeb3 \ufeea\ufedf\ufe87 \ufefb"
    ),
    "\u0628\u062f\u0648\u0646 \u062a\u0634\u062e\u06cc\u0635 \u067e\u0632\u0634\u06a9": (
        "\ufb8f\ufeb7\ufeb0\ufb58 \ufeba\ufbff\ufea8\ufeb8\ufe97 \ufee5\ufeed\ufeaa\ufe91"
    ),
    "PCR \u05d7\u05d9\u05d5\u05d1\u05d9, then more": "PCR \u05d9\u05d1\u05d5\u05d9\u05d7, then more",
    "in \u05d0\u05d1 5": "in 5 \u05d1\u05d0",
    "in 24-36 \u05e9\u05e2\u05d5\u05ea 2.5 \u05de": "in 24-36 \u05de 2.5 \u05ea\u05d5\u05e2\u05e9",
}


@pytest.mark.parametrize("text", SHOWN)
def test_right_to_left_words_stand_as_they_are_read(text: str) -> None:
    assert in_reading_order(drawable(text)) == SHOWN[text]


def test_brackets_of_a_turned_stretch_open_towards_what_they_hold() -> None:
    # Read from the right: aleph, in brackets beth 3, gimel.
    assert in_reading_order("\u05d0 (\u05d1 3) \u05d2") == "\u05d2 (3 \u05d1) \u05d0"
    assert in_reading_order("\u05d0 (\u05d1 \u05d2): 4") == "(\u05d2 \u05d1) \u05d0: 4"


def test_brackets_around_a_turned_stretch_stay() -> None:
    assert in_reading_order("not (\u05d0\u05d1) \u05d2\u05d3") == "not (\u05d1\u05d0) \u05d3\u05d2"


def test_a_count_behind_a_turned_reason_stays_behind_it() -> None:
    assert in_reading_order("\u05d0\u05d1: 4 patients") == "\u05d1\u05d0: 4 patients"


def test_marks_stay_on_their_letter() -> None:
    assert in_reading_order("\u05d0\u05b8\u05d1") == "\u05d1\u05d0\u05b8"


def test_one_line_without_controls() -> None:
    assert drawable(" a\n b\tc\u200d\u202e\ufe0f ") == "a b c"
    assert drawable("4\u00a0patients") == "4\u00a0patients"


def test_what_the_typeface_lacks_is_seen_to_lack() -> None:
    assert drawable("a \u691c\u4f53 é") == "a □□ é"
