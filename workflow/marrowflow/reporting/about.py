"""What only the team knows, printed as it wrote it: two sections of a page that its checklists lead to."""

from __future__ import annotations

from collections.abc import Mapping

from marrowflow.checklists import text_of
from marrowflow.config import About, Texts
from marrowflow.reporting import page

ABOUT, CONDUCT = "about", "conduct"
"""Anchors of the two sections."""

NOT_PROVIDED = "NOT PROVIDED: "
"""What stands in place of a missing text, before its key."""

_ABOUT: Mapping[str, Mapping[str, str]] = {
    "Purpose and design": {
        "study.abstract": "Abstract, without its numbers",
        "study.intended_use": "Background and intended use",
        "study.hypotheses": "Objectives and hypotheses",
        "study.design": "Design",
        "study.end_user": "End user",
        "study.intended_prevalence": "Classes among the patients it is meant for",
    },
    "Participants": {
        "eligibility": "Eligibility",
        "recruitment.basis": "How they were identified",
        "recruitment.setting": "Where and when",
        "recruitment.series": "Kind of series",
    },
    "Images and reference standard": {
        "acquisition": "Smears and photographs",
        "reference.method": "Reference standard",
        "reference.rationale": "Why this one",
        "reference.categories": "Its cut-offs or categories",
        "annotation": "Annotators",
        "blinding.index": "Blinding, index test",
        "blinding.reference": "Blinding, reference standard",
        "interval": "Between the two tests",
    },
    "Analysis": {
        "sample_size.rationale": "Sample size",
        "policy.indeterminate": "Indeterminate results",
        "policy.missing": "Missing data",
        "analyses": "Analyses of variability",
        "severity": "Severity of disease",
        "adverse_events": "Adverse events",
    },
    "Discussion": {
        "limitations": "Limitations",
        "discussion.implications": "Implications",
        "discussion.fairness": "Ethics and fairness of use",
    },
}
_CONDUCT: Mapping[str, str] = {
    "ethics": "Ethics approval",
    "involvement": "Patients and the public",
    "registration": "Registration",
    "protocol": "Protocol",
    "funding": "Funding",
    "interests": "Competing interests",
    "availability.data": "Availability of the data",
    "availability.code": "Availability of code and networks",
}

PLACES: Mapping[str, str] = {
    **{key: f"{ABOUT}-{i}" for i, keys in enumerate(_ABOUT.values()) for key in keys},
    **dict.fromkeys(_CONDUCT, CONDUCT),
}
"""Anchor of the part that prints a key's text."""


def about_sections(about: About, texts: Texts, unneeded: frozenset[str] = frozenset()) -> list[page.Section]:
    """Return the sections "About the study" and "Funding, registration, ethics".

    Parameters
    ----------
    about, texts
        The team's sentences. What is missing is printed as NOT PROVIDED with its key.
    unneeded
        Keys whose text may be missing because the data answer for it: left out where it is.
    """

    def facts(labels: Mapping[str, str]) -> page.Facts:
        given = {key: text_of(key, about, texts) for key in labels}
        return page.Facts(
            {
                labels[key]: text or NOT_PROVIDED + key
                for key, text in given.items()
                if text or key not in unneeded
            }
        )

    parts = [
        page.Section(title, f"{ABOUT}-{i}", [facts(labels)])
        for i, (title, labels) in enumerate(_ABOUT.items())
    ]
    said = page.Text(
        ["In the words of the team, as the configuration has them. Nothing is filled in for what is missing."]
    )
    return [
        page.Section("About the study", ABOUT, [said], parts),
        page.Section("Funding, registration, ethics", CONDUCT, [facts(_CONDUCT)]),
    ]
