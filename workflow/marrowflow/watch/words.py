"""Rules, jobs and times in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from marrowflow.watch.plan import PlannedJob

TRAINING = ("train_fold", "train_slides")
"""Rules whose jobs train."""

# The stages of a study in their order, and what a job of each rule makes: one of it, several.
STAGES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "material": {
        "paint_hospital": ("painted hospital", "painted hospitals"),
        "fetch_weights": ("file of open weights", "files of open weights"),
    },
    "intake": {
        "note_arrival": ("arrival note", "arrival notes"),
        "check_manifest": ("checked manifest", "checked manifests"),
        "measure_shard": ("measured archive", "measured archives"),
        "ingest_cohort": ("inventory", "inventories"),
        "ingest_slides": ("inventory of slides", "inventories of slides"),
        "take_reader": ("reader's table", "readers' tables"),
        "check_external": ("gate of an external hospital", "gates of external hospitals"),
    },
    "images": {
        "correct_shard": ("corrected archive", "corrected archives"),
        "correct_cohort": ("packed image store", "packed image stores"),
    },
    "tiles": {
        "survey_slides": ("survey of slides", "surveys of slides"),
        "place_tiles": ("table of tiles", "tables of tiles"),
        "picture_slides": ("set of slides' pictures", "sets of slides' pictures"),
        "extract_features": ("table of bags", "tables of bags"),
    },
    "splits": {
        "split_patients": ("split", "splits"),
        "plan_augmentation": ("augmentation plan", "augmentation plans"),
        "draw_contact_sheet": ("contact sheet", "contact sheets"),
        "materialise_plan": ("folder of augmented pictures", "folders of augmented pictures"),
        "check_leakage": ("leakage gate", "leakage gates"),
    },
    "training": {
        "train_fold": ("network", "networks"),
        "train_slides": ("aggregator", "aggregators"),
    },
    "predictions": {
        "predict_development": ("out-of-fold answer table", "out-of-fold answer tables"),
        "combine_development": ("ensemble's answer table", "ensembles' answer tables"),
        "predict_external": ("external answer table", "external answer tables"),
        "predict_slides": ("out-of-fold answer table of slides", "out-of-fold answer tables of slides"),
        "predict_external_slides": ("external answer table of slides", "external answer tables of slides"),
        "lock_choices": ("locked threshold", "locked thresholds"),
        "apply_lock": ("prediction table", "prediction tables"),
        "choose_primary": ("choice of the first index test", "choices of the first index test"),
        "seal_development": ("seal", "seals"),
        "package_model": ("model package", "model packages"),
        "embed_cohort": ("feature table", "feature tables"),
        "explain_cohort": ("set of explained cases", "sets of explained cases"),
        "embed_slides": ("table of slide vectors", "tables of slide vectors"),
        "explain_slides": ("set of explained slides", "sets of explained slides"),
    },
    "statistics": {
        "measure_accuracy": ("accuracy table", "accuracy tables"),
        "compare_index_tests": ("comparison", "comparisons"),
        "compare_protocols": ("comparison of protocols", "comparisons of protocols"),
        "measure_subgroups": ("subgroup table", "subgroup tables"),
        "pool_hospitals": ("pooled table", "pooled tables"),
        "measure_readers": ("comparison with readers", "comparisons with readers"),
        "measure_shift": ("table of shift", "tables of shift"),
        "audit_figures": ("audit", "audits"),
    },
    "reports": {
        "report_cohort": ("hospital's report", "hospitals' reports"),
        "report_study": ("study report", "study reports"),
        "view_slides": ("set of zoomable slides", "sets of zoomable slides"),
        "describe_run": ("run record", "run records"),
    },
}
_STAGE_OF = {rule: stage for stage, rules in STAGES.items() for rule in rules}
OTHER = "other"


def stage_of(rule: str) -> str:
    """Return the stage that a rule belongs to; one that is not known belongs to ``other``."""
    return _STAGE_OF.get(rule, OTHER)


def counted(rule: str, count: int) -> str:
    """Return what a number of a rule's jobs make, as ``9 accuracy tables``; for an unknown rule, its name."""
    names = STAGES.get(stage_of(rule), {}).get(rule)
    if names is None:
        return f"{count} of {rule}"
    return f"{count} {names[count != 1]}"


def jobs_in_words(count: int) -> str:
    """Return ``1 job`` or ``2 jobs``."""
    return f"{count} job" if count == 1 else f"{count} jobs"


def by_stage(jobs: Iterable[PlannedJob]) -> dict[str, list[PlannedJob]]:
    """Return jobs by stage, in the order of a study."""
    found: dict[str, list[PlannedJob]] = {stage: [] for stage in [*STAGES, OTHER]}
    for job in jobs:
        found[stage_of(job.rule)].append(job)
    return {stage: those for stage, those in found.items() if those}


def counted_by_rule(jobs: Iterable[PlannedJob]) -> str:
    """Return what jobs make, rule by rule in the order of a study."""
    counts = Counter(job.rule for job in jobs)
    order = [rule for rules in STAGES.values() for rule in rules]
    ranked = sorted(counts, key=lambda rule: (order.index(rule) if rule in order else len(order), rule))
    return ", ".join(counted(rule, counts[rule]) for rule in ranked)


def job_in_words(job: PlannedJob, hospitals: Mapping[str, str]) -> str:
    """Return a job's rule and wildcards, such as ``train_fold: protocol sound, model m, colour raw, fold 1``."""
    return f"{job.rule}: {described}" if (described := _wildcards(job, hospitals)) else job.rule


def job_in_brief(job: PlannedJob) -> str:
    """Return a job in a few words for a crowded line, such as ``train_fold sound m raw 1``."""
    return " ".join([job.rule, *job.wildcards.values()])


def _wildcards(job: PlannedJob, hospitals: Mapping[str, str]) -> str:
    return ", ".join(
        hospital_in_words(value, hospitals) if name == "cohort" else f"{name} {value}"
        for name, value in job.wildcards.items()
    )


def hospital_in_words(cohort: str, hospitals: Mapping[str, str]) -> str:
    """Return a cohort's id with its hospital's name."""
    if cohort == "development":
        return "development patients"
    return f"hospital {cohort} ({hospitals[cohort]})" if cohort in hospitals else f"hospital {cohort}"


def listed(names: Iterable[str], most: int = 4) -> str:
    """Join names with commas; past ``most`` only their number is given."""
    names = list(names)
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def time_in_words(seconds: float) -> str:
    """Return a time span as people say it: ``40 s``, ``4 min``, ``2 h 10 min``, ``3 d 2 h``."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        hours, rest = divmod(minutes, 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    days, hours = divmod(round(minutes / 60), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
