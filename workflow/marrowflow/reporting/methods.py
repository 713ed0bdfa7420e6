"""How the intervals and p-values of a page were made, in words that stand on the page itself."""

from __future__ import annotations

from marrowflow.reporting import page
from marrowflow.reporting.reporter import CommonOptions
from marrowflow.reporting.tables import one_of
from marrowflow.statistics.bootstrap import MOST_UNDEFINED
from marrowflow.statistics.hypotheses import FEW_DISCORDANT

_METHODS = {
    "Who is counted": (
        "n counts units of analysis. Whatever they are, intervals are made of {noun}: images of one {one} are "
        "not taken for independent."
    ),
    "Proportions": (
        "Accuracy, sensitivity, specificity, PPV, NPV, shares of a count, percent agreement, observed shares in the bins of "
        "a calibration curve: Wilson’s score interval on the effective n, which is n over the design effect, with a t "
        "quantile (degrees of freedom: {noun} that count in the denominator, less one). At 0 % and 100 % "
        "the units of a {one} are taken to be all alike."
    ),
    "AUC": (
        "Of a question, of a class, macro and micro: variance by leaving out one {one} at a time, on the logit "
        "scale, with a t quantile (degrees of freedom: {noun} of the rarer class, less one). An AUC of exactly 0 or 1: "
        "Newcombe’s one-sided score interval on effective numbers of {noun}."
    ),
    "Likelihood and odds ratios, balanced accuracy, mean sensitivity and PPV of the classes": (
        "MOVER: the limits follow from the Wilson intervals of their proportions, and the correlation of these over {noun}. "
        "Likelihood and odds ratios where every {one} is one unit and no cell is empty: on the log scale (Simel, Woolf). None where a limit is infinite."
    ),
    "Bootstrap": (
        "F1, MCC, κ, Brier score and its parts but two, average precision, other means over classes, partial "
        "AUC, net benefit, calibration slope and intercept, observed over expected: BCa bootstrap of {noun}, {replicates} "
        "resamples, seed {seed}; the percentile interval where BCa is undefined. The bands of ROC curves, sensitivity at a "
        "specificity and the reverse: percentile intervals of the same resamples, as BCa has no acceleration for "
        "steps. Suppressed where more than {undefined:.0%} of the resamples are undefined or all are equal."
    ),
    "PPV and NPV at a prevalence": (
        "Bayes’ theorem; limits by MOVER from the Wilson intervals of sensitivity and specificity. The prevalence is "
        "taken as known."
    ),
    "Without an interval": (
        "Expected calibration error, reliability and resolution (the parts of the Brier score) are biased upwards, and "
        "resampling adds as much again."
    ),
}
_COMPARED = (
    "Differences of proportions: MOVER (Newcombe) from both Wilson intervals and their correlation; of AUCs: by leaving out one {one} "
    "at a time, with a t quantile; of other metrics: BCa bootstrap, both index tests on the same resamples. p-values, "
    "two-sided: AUC by the t-test of the same leave-one-out variance; sensitivity, specificity and accuracy by Obuchowski’s clustered "
    "McNemar test (McNemar where every {one} is one unit, exact below {discordant} discordant ones). Holm’s adjustment is over "
    "all p-values of an endpoint and unit; intervals are not adjusted. κ: BCa bootstrap."
)


def interval_section(options: CommonOptions, noun: str) -> page.Section:
    """Say how each printed interval and p-value was made; `noun` is what stands for patients on the page."""
    settings = options.accuracy
    texts = _METHODS | ({"Differences of index tests": _COMPARED} if len(options.index_tests) > 1 else {})
    words = {
        "noun": noun,
        "one": one_of(noun),
        "replicates": settings.replicates,
        "seed": settings.seed,
        "undefined": MOST_UNDEFINED,
        "discordant": FEW_DISCORDANT,
    }
    facts = {
        "Confidence": f"{settings.confidence:.0%}",
        **{name: text.format(**words) for name, text in texts.items()},
        "Equations and sources": "docs/statistics.md of marrowflow.",
    }
    return page.Section("How intervals and p-values were made", "intervals", [page.Facts(facts)])
