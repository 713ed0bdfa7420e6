"""Which printed figures can come from whole units, against enumeration and published values."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marrowflow.errors import UserError
from marrowflow.statistics import attainable
from marrowflow.statistics.attainable import TwoByTwo, counts_of, printed, tables_of


@pytest.mark.parametrize(
    ("text", "value", "half"),
    [
        ("95.3 %", Fraction(953, 1000), Fraction(1, 2000)),
        (".953", Fraction(953, 1000), Fraction(1, 2000)),
        ("0.5", Fraction(1, 2), Fraction(1, 20)),
        ("1", Fraction(1), Fraction(1, 2)),
        ("95 %", Fraction(95, 100), Fraction(1, 200)),
        ("95,92%", Fraction(9592, 10000), Fraction(1, 20000)),
    ],
)
def test_the_digits_of_a_printed_figure_say_how_far_it_was_rounded(text, value, half):
    assert (printed(text).value, printed(text).half) == (value, half)


@pytest.mark.parametrize("text", ["", "%", "n/a", "95.3.1", "."])
def test_what_is_no_figure_is_refused(text):
    with pytest.raises(UserError, match="quotation marks"):
        printed(text)


@given(st.integers(1, 400), st.integers(0, 4), st.data())
def test_every_share_of_whole_units_is_attainable_as_python_rounds_it(n, digits, data):
    k = data.draw(st.integers(0, n))
    assert k in counts_of(printed(f"{k / n:.{digits}f}"), n)


def test_a_share_between_two_whole_numbers_is_not_attainable():
    # 315/331 = .95166, 316/331 = .95468
    assert not counts_of(printed("95.3 %"), 331)
    assert list(counts_of(printed("95.2 %"), 331)) == [315]
    assert attainable.neighbours(printed("95.3 %"), 331) == (315, 316)


def test_a_half_may_be_rounded_up_or_down():
    assert list(counts_of(printed(".12"), 8)) == [1]
    assert list(counts_of(printed(".13"), 8)) == [1]


def test_all_tables_that_give_some_figures_are_found():
    # By hand: sensitivity .8 of 5 is 4; specificity .75 of 4 is 3; ppv 4/5 = .8.
    figures = {
        name: printed(text)
        for name, text in {"sensitivity": ".80", "specificity": ".75", "ppv": ".80"}.items()
    }
    assert list(tables_of(figures, 5, 4)) == [TwoByTwo(tp=4, fn=1, tn=3, fp=1)]
    assert not list(tables_of({**figures, "ppv": printed(".67")}, 5, 4))


def test_a_ppv_of_nobody_called_positive_is_undefined_and_fits_nothing():
    assert TwoByTwo(0, 3, 2, 0).shares()["ppv"] is None
    assert not list(
        tables_of(
            {"sensitivity": printed("0.00"), "specificity": printed("1.00"), "ppv": printed("0.00")}, 3, 2
        )
    )


def test_the_standard_error_of_an_auc_is_that_of_hanley_and_mcneil():
    """Their data: A = .893, 51 abnormal and 58 normal, .032 from the ranks; equation 1 by hand: √(3.126151/2958)."""
    assert attainable.hanley_mcneil(0.893, 51, 58) == pytest.approx(0.032509, abs=5e-6)
    assert attainable.hanley_mcneil(0.8, 1, 1) == pytest.approx((0.8 * 0.2) ** 0.5)


def test_a_wald_interval_gives_its_size_back():
    low, high = attainable.wald(0.9, 250, 0.95)
    assert attainable.implied_size(0.9, (high - low) / 2, 0.95) == pytest.approx(250)
    # 1.959964 · √(.9 · .1/250) = .0371876
    assert (low, high) == pytest.approx((0.8628124, 0.9371876), abs=1e-6)


def test_rounded_means_have_a_range():
    low, high = attainable.mean_of([printed(t) for t in ("90 %", "99 %", "97 %", "95 %")])
    assert (low, high) == (Fraction("0.9475"), Fraction("0.9575"))
