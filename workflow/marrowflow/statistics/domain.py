"""Can a classifier tell one hospital's patients from those of development? The AUC with which it can measures the shift.

A regularised logistic regression is fitted to patients' mean features, both sides weighing the same, and scores patients
whom it was not fitted to: standardisation, weights and coefficients come from the other folds. Only patients of one fold are
compared with each other, by one classifier's scores. Pooling all folds' scores before ranking them would be biased
downwards, most where patients are few: each fold's classifier leans away from what it was not shown (Parker, Günter and
Bedo 2007, BMC Bioinformatics 8:326; Airola et al. 2011, Comput Stat Data Anal 55:1828). Averaged over folds the AUC is .5
on average where nothing differs.

Limits. The classifier is fitted to fewer patients than there are, and it is linear: a shift that only more patients, or a
curved boundary, would show is missed, and the AUC is too low for it. Below .5 is chance; it never means that patients are
more alike than alike.

The interval leaves out a twentieth of the patients at a time and fits all classifiers anew. It is wide on purpose: simulated
without a shift (40 and 20 patients, 6 features; 20 and 20, 200 features) it left .5 out in 0 of 120 studies, where
intervals that take the classifiers as given (LeDell, Petersen and van der Laan 2015, Electron J Stat 9:1583) did in 14 to
21 of 100, because classifiers that learn from one another's test patients err together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit
from sklearn.linear_model import LogisticRegression

from marrowflow.statistics.bootstrap import Interval
from marrowflow.statistics.intervals import auc_separated, logit_limits
from marrowflow.statistics.ranking import rank

FEWEST = 10
"""Patients on a side below which nothing is fitted."""

FOLDS, DIVISIONS = 5, 5
"""Folds that patients are dealt into, and how often they are dealt anew; the pairs of all divisions are counted together."""

GROUPS = 20
"""Groups of patients that are left out in turn for the interval; fewer where a side has fewer patients."""

HALVINGS = 20
"""Random halvings of the development patients, each measured as if one half were a hospital."""


@dataclass(frozen=True)
class Units:
    """What is told apart: patients, or the parts of patients that lie in different strata.

    Attributes
    ----------
    features
        Float64 [units, features].
    patient
        Int64 [units], 0..``n_patients`` - 1.
    hospital
        Bool [units]: of the hospital, else of development. All units of a patient are on one side.
    stratum
        Int64 [units]: only units of one stratum are compared, and the sides are weighed alike in each.
    n_patients
        Patients of both sides.
    """

    features: np.ndarray
    patient: np.ndarray
    hospital: np.ndarray
    stratum: np.ndarray
    n_patients: int

    def only(self, kept: np.ndarray) -> Units:
        """Return the units of a mask [units], their patients numbered anew."""
        patients, patient = np.unique(self.patient[kept], return_inverse=True)
        return Units(self.features[kept], patient, self.hospital[kept], self.stratum[kept], len(patients))

    def comparable(self) -> Units:
        """Return the units of strata that both sides have."""
        both = np.intersect1d(self.stratum[self.hospital], self.stratum[~self.hospital])
        return self.only(np.isin(self.stratum, both))

    def patients_of(self, side: bool) -> int:
        """Return how many patients the hospital (True) or development (False) has."""
        return len(np.unique(self.patient[self.hospital == side]))


@dataclass(frozen=True)
class Separation:
    """An AUC and its interval; ``reason`` says why one is missing, or is empty."""

    estimate: float
    interval: Interval
    reason: str = ""


_NO_INTERVAL = Interval("none", np.nan, np.nan)


def separation(units: Units, confidence: float, seed: int) -> Separation:
    """Return the out-of-fold AUC with which units of the hospital are told from those of development.

    Parameters
    ----------
    units
        Of strata that both sides have; see `Units.comparable`.
    confidence
        Coverage of the interval.
    seed
        Of the divisions into folds, and of the groups that are left out.

    Notes
    -----
    Delete-a-group jackknife (Kott 2001, J Off Stat 17:521): with G groups that hold their share of each side, and patients
    who keep their folds, the variance is (G - 1)/G Σ (AUC without group g - their mean)². Limits: logit AUC ± t √variance /
    (AUC (1 - AUC)), G - 1 degrees of freedom. At 0 and 1 see `intervals.auc_separated`.
    """
    patients = {"development": units.patients_of(False), "the hospital": units.patients_of(True)}
    fewest = min(patients.values())
    if fewest < FEWEST:
        return Separation(np.nan, _NO_INTERVAL, _too_few(patients))
    divisions = [_dealt(units, FOLDS, [seed, division]) for division in range(DIVISIONS)]
    auc = _auc(units, divisions)
    groups = min(GROUPS, fewest)
    group = _dealt(units, groups, [seed, DIVISIONS])
    left_out = np.array(
        [_auc(units.only(group != g), [fold[group != g] for fold in divisions]) for g in range(groups)]
    )
    variance = float((groups - 1) / groups * ((left_out - left_out.mean()) ** 2).sum())
    limits = logit_limits(auc, variance, float(stdtrit(groups - 1, (1 + confidence) / 2)))
    if limits is not None:
        return Separation(auc, Interval("jackknife_refitted", *limits))
    of_hospital, of_development = (
        np.bincount(units.patient[units.hospital == side], minlength=units.n_patients).astype(np.float64)
        for side in (True, False)
    )
    separated = auc_separated(auc, of_hospital, of_development, confidence)
    if separated is None:
        return Separation(
            auc, _NO_INTERVAL, "no interval: the AUC is undefined, or does not move, without some patients"
        )
    return Separation(auc, separated)


def separation_of_halves(units: Units, seed: int) -> Separation:
    """Return what `separation` gives where there is no shift: development patients, halved at random.

    The estimate is the mean of `HALVINGS` halvings, the limits are their smallest and largest.

    Parameters
    ----------
    units
        As for `separation`; those of the hospital are left out.
    seed
        Of the halvings and of their folds.
    """
    own = units.only(~units.hospital)
    if own.n_patients < 2 * FEWEST:
        return Separation(np.nan, _NO_INTERVAL, _too_few({"half of development": own.n_patients // 2}))
    found = []
    for halving in range(HALVINGS):
        order = np.random.default_rng([seed, halving]).permutation(own.n_patients)
        halved = replace(own, hospital=(order < own.n_patients // 2)[own.patient]).comparable()
        found.append(_auc(halved, [_dealt(halved, FOLDS, [seed, halving])]))
    found = [auc for auc in found if not np.isnan(auc)]
    if not found:
        return Separation(np.nan, _NO_INTERVAL, "no two development patients can be compared")
    return Separation(float(np.mean(found)), Interval("halvings", min(found), max(found)))


def _too_few(patients: Mapping[str, int]) -> str:
    few = [f"{n} patient{'' if n == 1 else 's'} of {side}" for side, n in patients.items() if n < FEWEST]
    return f"suppressed: {' and '.join(few)}, fewer than {FEWEST}"


def _auc(units: Units, divisions: Sequence[np.ndarray]) -> float:
    """Return the share of pairs, within folds and strata of all divisions, that the hospital's unit wins; NaN without pairs."""
    won = pairs = 0.0
    for fold in divisions:
        scores = _scores(units, fold)
        for number, stratum in np.unique(np.column_stack([fold, units.stratum]), axis=0):
            own = (fold == number) & (units.stratum == stratum)
            ranking = rank(scores[own], units.hospital[own], units.patient[own], units.n_patients, 0)
            if ranking is not None:
                won += ranking.won.sum()
                pairs += 2 * ranking.positives.sum() * ranking.negatives.sum()
    return float(won / pairs) if pairs else float("nan")


def _dealt(units: Units, parts: int, key: Sequence[int]) -> np.ndarray:
    """Deal patients into parts, those of a side and stratum in turn, so that each part has its share; int64 [units]."""
    generator = np.random.default_rng(list(key))
    _, first = np.unique(units.patient, return_index=True)
    of_patient = np.empty(units.n_patients, np.int64)
    for side in (False, True):
        mine = np.flatnonzero(units.hospital[first] == side)
        order = np.lexsort([generator.random(len(mine)), units.stratum[first][mine]])
        of_patient[mine[order]] = np.arange(len(mine)) % parts
    return of_patient[units.patient]


def _scores(units: Units, fold: np.ndarray) -> np.ndarray:
    """Return each unit's log odds of the hospital, float64 [units], by the classifier that did not see its fold."""
    scores = np.zeros(len(fold))
    for own in range(FOLDS):
        shown = fold != own
        weights = _weights(units.hospital[shown], units.stratum[shown])
        if not weights.any() or shown.all():
            continue
        x = units.features[shown]
        mean = np.average(x, axis=0, weights=weights)
        deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))
        # What does not vary tells nothing; a deviation of rounding would make it the loudest.
        varies = deviation > 1e-9 * np.maximum(np.abs(mean), 1e-9)
        scale = np.where(varies, 1 / np.where(varies, deviation, 1.0), 0.0)
        classifier = _classifier(x.shape[1]).fit((x - mean) * scale, units.hospital[shown], weights)
        scores[~shown] = classifier.decision_function((units.features[~shown] - mean) * scale)
    return scores


def _weights(hospital: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """Weigh the two sides alike in each stratum [units]; 0 where a stratum has one side only. They sum to the units that count."""
    weights = np.zeros(len(hospital))
    for value in np.unique(stratum):
        sides = [(stratum == value) & (hospital == side) for side in (False, True)]
        if all(side.any() for side in sides):
            for side in sides:
                weights[side] = sum(s.sum() for s in sides) / 2 / side.sum()
    return weights


def _classifier(features: int) -> LogisticRegression:
    """Return a classifier whose prior is the same however many features there are: log odds of variance 1.

    A ridge penalty |w|² / (2C) is a normal prior of variance C on each coefficient (Le Cessie and van Houwelingen 1992,
    Appl Stat 41:191, section 2), and the features are standardised.
    """
    return LogisticRegression(C=1 / features, solver="lbfgs", max_iter=1000, tol=1e-6)
