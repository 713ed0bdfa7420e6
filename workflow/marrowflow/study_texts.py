"""What only the team knows about its study: the sentences that the reports and their checklists print.

None is needed for a run. What is left out is printed as NOT PROVIDED with its key, and never invented. The items are
those of STARD 2015 (Bossuyt et al., BMJ 351:h5527), STARD-AI 2025, TRIPOD+AI 2024 and CLAIM 2024.
"""

from __future__ import annotations

from pydantic import Field

from marrowflow.section import ClassName, OpenShare, Section


class About(Section):
    """What the study is called, what it is for, and what its readers must know before the first figure."""

    key: str = Field(pattern=r"^[A-Za-z0-9_]+$")
    """Short name; results go to `results/<key>/`."""
    title: str
    """Title of the reports. Journals want it to name a study of diagnostic accuracy."""
    notice: str = ""
    """A sentence printed at the top of every report, such as "demo images are painted"."""
    abstract: str = ""
    """Background, methods and conclusion for the structured abstract; its numbers are drafted from the results."""
    intended_use: str = ""
    """Scientific and clinical background, and the intended use and place of the index test in the clinical pathway."""
    hypotheses: str = ""
    """Objectives and hypotheses."""
    design: str = ""
    """Whether data were collected before (prospective) or after (retrospective) index test and reference standard were done."""
    end_user: str = ""
    """Who is meant to use the index test, and with which expertise."""
    intended_prevalence: dict[ClassName, OpenShare] = {}
    """Share of each class among the patients for whom the test is meant; printed beside the observed ones."""


class Recruitment(Section):
    """How the patients came into the study."""

    basis: str = ""
    """How potentially eligible participants were identified: symptoms, earlier results, inclusion in a registry."""
    setting: str = ""
    """Where and when participants were identified: setting, location, dates."""
    series: str = ""
    """Whether they formed a consecutive, random or convenience series."""


class Reference(Section):
    """The reference standard."""

    method: str = ""
    """What it is, in enough detail to repeat it."""
    rationale: str = ""
    """Why this one, if alternatives exist."""
    categories: str = ""
    """Its cut-offs or result categories, and whether they were fixed beforehand."""


class Blinding(Section):
    """Who knew what."""

    index: str = ""
    """Whether clinical information and reference results were available to those who ran or read the index test."""
    reference: str = ""
    """Whether clinical information and index test results were available to the assessors of the reference standard."""


class Policy(Section):
    """How unusable results were handled."""

    indeterminate: str = ""
    """How indeterminate results of index test or reference standard were handled."""
    missing: str = ""
    """How missing data were handled."""


class SampleSize(Section):
    """The planned size of the study."""

    rationale: str = ""
    """Intended sample size and how it was determined."""


class Discussion(Section):
    """What the results mean."""

    implications: str = ""
    """Implications for practice, including intended use and clinical role of the index test."""
    fairness: str = ""
    """Ethical considerations and fairness of use, such as groups in which the test does worse."""


class Availability(Section):
    """What others can get."""

    data: str = ""
    """Whether and where the data are available."""
    code: str = ""
    """Whether and where code and networks are available."""


class Texts(Section):
    """The team's sentences, each with the key that the checklists name when it is missing."""

    ethics: str = ""
    """Ethics approval: committee and number, or why none was needed; informed consent."""
    eligibility: str = ""
    """Criteria of eligibility, of participants and of images, in the order in which they were applied."""
    recruitment: Recruitment = Recruitment()
    annotation: str = ""
    """Who annotated or diagnosed: number, experience, procedure, how disagreement was settled."""
    acquisition: str = ""
    """How smears were prepared, stained and photographed; the processing by the workflow is described by itself."""
    reference: Reference = Reference()
    blinding: Blinding = Blinding()
    policy: Policy = Policy()
    analyses: str = ""
    """Which analyses of variability (subgroups, hospitals) were specified beforehand, and which are exploratory."""
    sample_size: SampleSize = SampleSize()
    severity: str = ""
    """Distribution of the severity of disease, where no manifest has a column severity."""
    interval: str = ""
    """Time and interventions between index test and reference standard."""
    adverse_events: str = ""
    """Adverse events of index test or reference standard."""
    limitations: str = ""
    """Limitations beside those that the reports find themselves: sources of bias, uncertainty, generalisability."""
    discussion: Discussion = Discussion()
    involvement: str = ""
    """How patients and the public were involved."""
    registration: str = ""
    """Registration number and registry."""
    protocol: str = ""
    """Where the full protocol can be had."""
    funding: str = ""
    """Sources of funding and other support; role of the funders."""
    interests: str = ""
    """Competing interests of the authors."""
    availability: Availability = Availability()
