"""The study's configuration: one pydantic model a section, defaults written once, here.

`Study` is the whole file. Steps never see it whole: a rule passes the sections that it uses as one
canonical JSON string (`option_string`), and the step validates them with a small model of its own that
is made of the sections below. Unknown keys are refused with the nearest known one.

This module is left out of the rules' code digests (see `provenance`): all that it can change about a
result is the option strings, and those are compared by themselves.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from marrowflow.errors import UserError, enumerate_problems

# Ids become folder names, wildcards and column names.
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
# A class name becomes a column `p_<class>`; it may hold spaces, and must not read like a missing value.
ClassName = Annotated[str, Field(min_length=1, pattern=r"^[^\s,/].*$")]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
OpenShare = Annotated[float, Field(gt=0.0, lt=1.0)]

RESERVED_TRUTHS = ("missing", "inconclusive")
RESERVED_CLASSES = ("macro", "micro")
RESERVED_ANSWERS = ("indeterminate", "not_done")
RESERVED_COHORTS = ("development", "external", "all")

Unit = Literal["patient", "case"]
Protocol = Literal["sound", "as_published"]
LEAKY = "leaky protocol — not comparable"
"""What every output of the protocol as_published bears."""


class Section(BaseModel):
    """A section of the configuration: unknown keys are errors, values cannot be changed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class About(Section):
    """What the study is called, and what its readers must know before the first figure."""

    key: Identifier
    """Short name; results go to `results/<key>/`."""
    title: str
    """Title of the reports."""
    notice: str = ""
    """A sentence printed at the top of every report, such as "demo images are painted"."""


class Endpoint(Section):
    """A yes/no question that the index test answers: is the patient in one of the positive classes?"""

    positive: list[ClassName] = Field(min_length=1)
    """Classes that count as target condition present; all others count as absent."""


class Intake(Section):
    """How images are taken in, and which are excluded."""

    on_unreadable: Literal["exclude", "stop"] = "exclude"
    """An image that cannot be decoded is excluded with its reason and counted in the flow diagram, or stops the run."""
    allow_identifiers: list[str] = []
    """Manifest columns that look like names, birth dates or record numbers and may be kept all the same."""
    near_duplicate_distance: int = Field(default=3, ge=0, le=15)
    """Two images are near duplicates when their 64-bit perceptual hashes differ in at most this many bits and their thumbnails agree; half of the bits are always set, so distances are even and 3 means 2."""
    min_side: int = Field(default=32, ge=1)
    """Images with a side shorter than this, in pixels, are excluded."""
    min_focus: float | None = None
    """Exclude images whose focus measure (variance of the Laplacian of the grey image scaled to 0-255) is lower; null keeps all."""
    min_brightness: float | None = Field(default=None, ge=0, le=255)
    """Exclude images whose mean grey level is lower; null keeps all."""
    max_brightness: float | None = Field(default=None, ge=0, le=255)
    """Exclude images whose mean grey level is higher; null keeps all."""


class Images(Section):
    """The packed pixels that all networks of the study read."""

    size: int = Field(default=224, ge=16, le=2048)
    """Side of the stored square image in pixels; each network resizes from it to its own input on the device."""
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    """How an oblong image becomes square: stretched, padded with its edge pixels, or cropped at its centre."""


class ColourRecipe(Section):
    """One way of correcting colour before the pixels are packed."""

    method: Literal["none", "reflection_median", "reinhard", "macenko"] = "none"
    """none: as it comes; reflection_median: perfect reflection, then adaptive median (huang2020); reinhard or macenko: stain normalisation."""
    fraction: float = Field(default=0.05, gt=0, le=1)
    """reflection_median: share of brightest pixels by R+G+B whose mean is the white point."""
    max_window: Literal[3, 5, 7] = 7
    """reflection_median: largest window of the adaptive median, in pixels."""
    order: Literal["paper", "fast"] = "paper"
    """reflection_median: paper = reflection, median, resize; fast = median, resize, reflection (a fifth of the time, about one grey level apart)."""
    target: str | None = None
    """reinhard, macenko: an image file whose stain is the target; null uses the published H&E values, which tint Giemsa smears: name a typical smear."""


class AsPublished(Section):
    """The split of the study as it was published, run beside the sound one to show its optimism."""

    scheme: Literal["kfold", "monte_carlo", "holdout", "column"] = "holdout"
    """kfold, monte_carlo, holdout: by image, whatever patient it is of; column: as a manifest column says."""
    column: str | None = None
    """scheme column: the manifest column with train, validation (or val) and test in it."""
    folds: int = Field(default=5, ge=1, le=100)
    """kfold: number of folds; monte_carlo: number of repeats."""
    test: Share = 0.25
    """monte_carlo, holdout: share of images tested on."""
    validation: Share = 0.2
    """Share of the remaining images that choose the epoch."""

    @model_validator(mode="after")
    def _column_is_named(self) -> AsPublished:
        if self.scheme == "column" and not self.column:
            raise ValueError(
                "scheme: column needs column: <the manifest column that says train, validation, test>"
            )
        return self


class Splits(Section):
    """How development patients are divided. Patients and near-duplicate clusters are never divided."""

    protocol: Protocol = "sound"
    """sound: by patient. as_published: by the rule under as_published as well, stamped "leaky protocol", beside the sound one."""
    scheme: Literal["kfold", "monte_carlo", "holdout"] = "kfold"
    """kfold: each patient is tested once; monte_carlo: `folds` random divisions; holdout: one division."""
    folds: int = Field(default=5, ge=1, le=100)
    """kfold: number of folds (at least 2); monte_carlo: number of repeats; holdout: not used."""
    test: Share = 0.25
    """monte_carlo, holdout: share of patients tested on, in each stratum."""
    validation: Share = 0.2
    """Share of the patients not tested on that choose the epoch, in each stratum."""
    seed: int = 0
    """Key of the hash that orders patients within their stratum (cohort, class)."""
    as_published: AsPublished | None = None
    """Needed when protocol is as_published."""

    @model_validator(mode="after")
    def _published_rule_is_given(self) -> Splits:
        if self.protocol == "as_published" and self.as_published is None:
            raise ValueError(
                "protocol: as_published needs a section as_published: that says how the paper split"
            )
        if self.scheme == "kfold" and self.folds < 2:
            raise ValueError("scheme: kfold needs folds: 2 or more")
        return self

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """Protocols to run; the one that the study is reported under stands first."""
        return ("as_published", "sound") if self.protocol == "as_published" else ("sound",)


class Augmentation(Section):
    """The plan of augmented training images; drawn after the split, for training patients only."""

    plan: Literal["off", "eight", "balanced"] = "off"
    """off: each image once; eight: the eight transforms of aamds2022; balanced: class targets of bt5153."""
    copies: int = Field(default=3, ge=1, le=50)
    """eight: random draws of each transform (flips and whitening have one outcome and are drawn once)."""
    targets: dict[ClassName, Annotated[int, Field(ge=1)]] = {}
    """balanced: training images wanted of each class; classes not named keep their number."""
    rotation: float = Field(default=35.0, ge=0, le=180)
    """Largest rotation to either side, degrees."""
    shift: float = Field(default=0.35, ge=0, le=1)
    """Largest shift in width or height, as a share of the side."""
    shear: float = Field(default=35.0, ge=0, lt=90)
    """Largest shear angle, degrees."""
    zoom: float = Field(default=0.35, ge=0, lt=1)
    """Largest zoom in, as a share of the side."""
    zca_epsilon: float = Field(default=1e-2, gt=0)
    """eight: regularisation of the whitening; the published 1e-6 amplifies unseen images 40 to 70 times."""
    seed: int = 0
    """Seed of the plan."""
    materialise: bool = False
    """Write the augmented pictures of the plan as PNG files beside it, for those who want files."""

    @field_validator("plan", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        """YAML reads a bare ``off`` as false."""
        return "off" if value is False else value


class Training(Section):
    """The training loop; a model may override any of these under its own `training:`."""

    epochs: int = Field(default=30, ge=1)
    """Largest number of passes over the training images (or over the plan)."""
    batch_size: int = Field(default=32, ge=1)
    """Images a step."""
    optimiser: Literal["adam", "adamw", "radam", "sgd"] = "adam"
    """sgd has momentum .9."""
    rate: float = Field(default=1e-3, gt=0)
    """Learning rate at the start."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """cosine: the rate falls to 0 over `epochs`."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled for adamw, else an L2 penalty."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target probability spread over all classes."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Before the last layer."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: each class weighs the inverse of its number of training images."""
    patience: int | None = Field(default=10, ge=1)
    """Stop after this many epochs without a lower validation loss; null runs all epochs. The best epoch's weights are kept either way."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on a GPU, float32 on a CPU."""
    threads: int = Field(default=2, ge=1)
    """Threads of a training job; part of the result (sums are rounded in another order), so a setting and not what the scheduler hands out."""
    seed: int = 0
    """Seed of initial weights, order of batches and dropout; the fold's number is mixed in."""


class Model(Section):
    """A network and how it is trained."""

    network: str
    """Any name that timm knows; for example tf_efficientnet_lite0, resnet50, densenet121, inception_v3, vit_base_patch32_224. torchvision's squeezenet1_1 is known as torchvision/squeezenet1_1."""
    mode: Literal["scratch", "frozen", "finetune"] = "finetune"
    """scratch: random weights, all trained; frozen: features of the given weights, new last layer trained; finetune: given weights, all trained."""
    weights: str = "imagenet"
    """imagenet: timm's (downloaded); none: random; otherwise a local file of weights (.safetensors, .pth)."""
    input_size: int | None = Field(default=None, ge=16)
    """Side of the network's input in pixels; null takes the network's own."""
    colours: list[Identifier] | None = Field(default=None, min_length=1)
    """Colour recipes that this model is trained on; null means all."""
    training: Training = Training()
    """This model's training loop: the study's `training:` with what is overridden here."""

    @model_validator(mode="after")
    def _mode_fits_weights(self) -> Model:
        if self.mode == "scratch" and self.weights not in ("none", "imagenet"):
            raise ValueError("mode: scratch starts from random weights; leave weights: out")
        if self.mode != "scratch" and self.weights == "none":
            raise ValueError(
                f"mode: {self.mode} starts from given weights; name weights: or take mode: scratch"
            )
        return self


class Threshold(Section):
    """How each endpoint's cut-off is fixed on out-of-fold development predictions."""

    rule: Literal["youden", "sensitivity", "specificity", "fixed"] = "youden"
    """youden: largest sensitivity + specificity - 1; sensitivity or specificity: the best other one at no less than `value`; fixed: `value` itself."""
    value: float | None = Field(default=None, gt=0, lt=1)
    """Needed by every rule but youden."""

    @model_validator(mode="after")
    def _value_is_given(self) -> Threshold:
        if (self.rule == "youden") != (self.value is None):
            raise ValueError(
                "value: belongs to rule: sensitivity, specificity or fixed, and each of these needs it"
            )
        return self


class Calibration(Section):
    """How probabilities are recalibrated on out-of-fold development predictions."""

    method: Literal["none", "temperature"] = "temperature"
    """temperature: probabilities to the power 1/T, renormalised; T minimises the log loss."""


class Accuracy(Section):
    """Point estimates and their intervals."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Coverage of the intervals."""
    replicates: int = Field(default=2000, ge=100, le=100_000)
    """Bootstrap resamples of patients."""
    seed: int = 0
    """Seed of the resampling."""
    prevalences: list[OpenShare] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    """Prevalences of the target condition at which PPV and NPV are given, beside those of the sample."""
    at_specificity: list[OpenShare] = [0.9, 0.95]
    """Specificities at which the largest sensitivity of any cut-off is given."""
    at_sensitivity: list[OpenShare] = [0.9, 0.95]
    """Sensitivities at which the largest specificity of any cut-off is given."""
    partial_auc_from: OpenShare | None = 0.8
    """Specificity from which on the partial AUC is taken; null leaves it out."""


class Report(Section):
    """What the reports print."""

    primary: str | None = None
    """The index test that is reported first, as <model>-<colour>; null takes the first model on its first colour. Declared before the run: no result chooses it."""
    errors_shown: int = Field(default=12, ge=0, le=60)
    """Thumbnails of the most confident errors in each report; 0 prints no patient image."""


class Study(Section):
    """A study, whole: the file that `snakemake --configfile` reads."""

    study: About
    cohorts: str = "resources/cohorts.tsv"
    """The cohort table: one line a hospital. Adding a hospital is adding a line."""
    classes: list[ClassName] = Field(min_length=2)
    """Class names in the order in which all tables print them."""
    label_map: str | None = None
    """A CSV with columns label and class, when manifests use finer labels than the study's classes."""
    units: list[Unit] = Field(default=["patient", "case"], min_length=1)
    """Units of analysis; the first is the primary one. Case-level intervals are clustered by patient."""
    endpoints: dict[Identifier, Endpoint] = {}
    """Yes/no endpoints beside the classification into all classes."""
    intake: Intake = Intake()
    images: Images = Images()
    colour: dict[Identifier, ColourRecipe] = Field(default={"raw": ColourRecipe()}, min_length=1)
    """Colour recipes by name; each is run, so that a study can compare raw with corrected."""
    splits: Splits = Splits()
    augmentation: Augmentation = Augmentation()
    training: Training = Training()
    models: dict[Identifier, Model] = Field(min_length=1)
    """Networks by name; each is trained on each of its colour recipes."""
    threshold: Threshold = Threshold()
    calibration: Calibration = Calibration()
    accuracy: Accuracy = Accuracy()
    report: Report = Report()

    @model_validator(mode="before")
    @classmethod
    def _models_inherit_training(cls, data: Any) -> Any:
        """Lay each model's own training keys over the study's, so that a model is complete by itself."""
        if not isinstance(data, dict) or not isinstance(data.get("models"), dict):
            return data
        shared = data.get("training") or {}
        models = {
            name: {**model, "training": {**shared, **(model.get("training") or {})}}
            if isinstance(model, dict) and isinstance(shared, dict)
            else model
            for name, model in data["models"].items()
        }
        return {**data, "models": models}

    @model_validator(mode="after")
    def _names_refer(self) -> Study:
        _refuse_bad_classes(self.classes)
        for name, endpoint in self.endpoints.items():
            unknown = [c for c in endpoint.positive if c not in self.classes]
            if unknown:
                raise ValueError(f"endpoints.{name}.positive: {_not_among(unknown[0], self.classes)}")
            if set(endpoint.positive) == set(self.classes):
                raise ValueError(
                    f"endpoints.{name}.positive names every class: nothing is left to be negative"
                )
        for name in self.augmentation.targets:
            if name not in self.classes:
                raise ValueError(f"augmentation.targets: {_not_among(name, self.classes)}")
        for name, model in self.models.items():
            for colour in model.colours or []:
                if colour not in self.colour:
                    raise ValueError(f"models.{name}.colours: {_not_among(colour, list(self.colour))}")
        self._something_to_lock_on()
        if self.report.primary is not None and self.report.primary not in self.index_tests:
            raise ValueError(f"report.primary: {_not_among(self.report.primary, self.index_tests)}")
        return self

    def _something_to_lock_on(self) -> None:
        """Without k folds, choices are made on validation patients: said now, not after the training."""
        chosen = self.calibration.method != "none" or (self.endpoints and self.threshold.rule != "fixed")
        rules: list[tuple[str, Splits | AsPublished]] = [("splits", self.splits)]
        if self.splits.protocol == "as_published" and self.splits.as_published is not None:
            rules.append(("splits.as_published", self.splits.as_published))
        for place, rule in rules:
            if chosen and rule.scheme in ("holdout", "monte_carlo") and rule.validation == 0:
                raise ValueError(
                    f"{place}: scheme {rule.scheme} fits calibration and thresholds on validation patients, and "
                    "validation: 0 leaves none; set a share such as 0.2, or calibration: {method: none} and "
                    "threshold: {rule: fixed, value: …}"
                )

    @property
    def index_tests(self) -> list[str]:
        """All `<model>-<colour>` of the study, in the order of the file; the primary one first."""
        tests = [f"{name}-{colour}" for name in self.models for colour in self.colours_of(name)]
        first = self.report.primary
        return tests if first is None or first not in tests else [first, *(t for t in tests if t != first)]

    @property
    def fold_names(self) -> dict[str, list[str]]:
        """Each protocol's folds, as the wildcard names them: "0", "1", …"""
        return {
            protocol: [str(i) for i in range(self._fold_count(protocol))]
            for protocol in self.splits.protocols
        }

    def _fold_count(self, protocol: Protocol) -> int:
        rule = self.splits if protocol == "sound" else self.splits.as_published
        assert rule is not None  # the validator of Splits saw to it
        return rule.folds if rule.scheme in ("kfold", "monte_carlo") else 1

    def colours_of(self, model: str) -> list[str]:
        """Return the colour recipes that a model is trained on."""
        return self.models[model].colours or list(self.colour)


S = TypeVar("S", bound=BaseModel)


def load_study(config: Mapping[str, Any], source: str = "the configuration") -> Study:
    """Validate a whole configuration; raise `UserError` with every problem, its place and a remedy."""
    return _validate(Study, dict(config), source)


def read_study(path: Path) -> Study:
    """Read and validate a configuration file (YAML)."""
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no configuration: expected `key: value` lines")
    return load_study(config, str(path))


def read_options(model: type[S], text: str) -> S:
    """Validate a step's ``--options`` (a JSON object of sections) with the step's own model."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--options is not valid JSON: {error}") from error
    return _validate(model, value, "--options")


def option_string(study: Study, names: Sequence[str], wildcards: Mapping[str, str]) -> str:
    """Return the one JSON string that stands for the sections a rule uses: sorted keys, defaults filled in.

    Snakemake compares ``params`` as an unnamed set of texts, so that two swapped values, or values of
    unknown types, would pass unseen. One string with the names in it does not.

    Parameters
    ----------
    study
        The whole configuration.
    names
        Sections by name; besides those of `Study` the ones of `derived_sections`.
    wildcards
        The job's wildcards. ``model`` and ``colour`` add the sections ``model`` and ``recipe``: one entry of
        ``models`` and of ``colour``, so that editing one retrains that one only; ``protocol`` adds ``scheme``
        and narrows ``splits`` to that protocol.
    """
    whole = study.model_dump(mode="json")
    known = {**whole, **derived_sections(study)}
    if "model" in wildcards:
        # Which colour recipes a model runs on decides which jobs there are, not what any of them makes.
        known["model"] = {k: v for k, v in whole["models"][wildcards["model"]].items() if k != "colours"}
    if "colour" in wildcards:
        known["recipe"] = whole["colour"][wildcards["colour"]]
    if "protocol" in wildcards:
        known["scheme"] = scheme_of(study, wildcards["protocol"])
        known["splits"] = _splits_of(whole["splits"], wildcards["protocol"])
    return json.dumps({n: known[n] for n in names}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _splits_of(splits: dict[str, Any], protocol: str) -> dict[str, Any]:
    """Return what one protocol's division depends on: changing the other must not retrain its networks."""
    if protocol == "sound":
        return {key: value for key, value in splits.items() if key not in ("protocol", "as_published")}
    return {key: splits[key] for key in ("protocol", "as_published", "seed")}


def derived_sections(study: Study) -> dict[str, Any]:
    """Return the values that steps need and that follow from several sections or from a part of one."""
    return {
        # Whether pictures are written too decides which rules run, not what any of them makes.
        "augmentation": study.augmentation.model_dump(mode="json", exclude={"materialise"}),
        "distance": study.intake.near_duplicate_distance,
        "index_tests": study.index_tests,
        "protocols": list(study.splits.protocols),
    }


def scheme_of(study: Study, protocol: str) -> str:
    """Return how a protocol divides: kfold, monte_carlo, holdout or column."""
    if protocol == "sound":
        return study.splits.scheme
    assert study.splits.as_published is not None  # the validator of Splits saw to it
    return study.splits.as_published.scheme


def _validate(model: type[S], value: Any, source: str) -> S:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = [_explain(model, detail) for detail in error.errors()]
        raise UserError(enumerate_problems(f"{source} cannot be used:", problems)) from error


def _explain(model: type[BaseModel], detail: Any) -> str:
    """Put one pydantic error into the user's words: the key's path, what was found, what to do."""
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = sorted(_known_keys(model, detail["loc"][:-1]))
        return f"{place}: unknown key. {_suggestion(str(detail['loc'][-1]), known)}"
    if detail["type"] == "missing":
        return f"{place}: this key is needed and not given"
    message = re.sub(r"^Value error, ", "", detail["msg"])
    if detail["type"] == "value_error":
        return f"{place}: {message}" if place else message
    return f"{place}: {message}; found {detail['input']!r}"


def _known_keys(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Return the keys allowed at a path below a model, looking through dicts, lists and optional sections."""
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[part].annotation if part in current.model_fields else None
        else:
            current = (get_args(current) or (None,))[-1]
        current = _section_within(current)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []


def _section_within(annotation: Any) -> Any:
    """Unwrap ``Section | None``; leave ``dict[str, Section]`` for the next part of the path."""
    if isinstance(annotation, type):
        return annotation
    for argument in get_args(annotation):
        if (
            isinstance(argument, type)
            and issubclass(argument, BaseModel)
            and type(None) in get_args(annotation)
        ):
            return argument
    return annotation


def _suggestion(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known here: {', '.join(known) or 'nothing'}"


def _not_among(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"{name!r} is not one of {known}" + (f"; did you mean {near[0]!r}?" if near else "")


def _refuse_bad_classes(classes: list[str]) -> None:
    if len({name.casefold() for name in classes}) != len(classes):
        raise ValueError(f"classes: a name stands twice in {classes}, small and capital letters alike")
    reserved = {
        **dict.fromkeys(RESERVED_TRUTHS, "cases without a usable reference standard"),
        **dict.fromkeys(RESERVED_ANSWERS, "cases without an answer of the index test"),
        **dict.fromkeys(RESERVED_CLASSES, "averages over classes"),
    }
    for name in classes:
        if name.casefold() in reserved:
            raise ValueError(f"classes: {name!r} is reserved for {reserved[name.casefold()]}")
        if name != name.strip() or name.lower() in ("nan", "null", "none", "na", "n/a"):
            raise ValueError(
                f"classes: {name!r} reads like a missing value or ends in a space; choose another name"
            )
