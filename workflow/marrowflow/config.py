"""The study's configuration: one pydantic model a section, defaults written once, here.

`Study` is the whole file. Steps never see it whole: a rule passes the sections that it uses as one
canonical JSON string (see `option_strings`), and the step validates them with a small model of its own that
is made of the sections below. Unknown keys are refused with the nearest known one.

This module is left out of the rules' code digests (see `provenance`): all that it can change about a
result is the option strings, and those are compared by themselves.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from marrowflow.config_problems import explain, not_among
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.grid import cells
from marrowflow.section import ClassName as ClassName
from marrowflow.section import Identifier as Identifier
from marrowflow.section import OpenShare as OpenShare
from marrowflow.section import Section as Section
from marrowflow.section import Share as Share
from marrowflow.study_slides import Aggregation as Aggregation
from marrowflow.study_slides import Slides as Slides
from marrowflow.study_texts import About as About
from marrowflow.study_texts import Texts as Texts

RESERVED_TRUTHS = ("missing", "inconclusive")
RESERVED_CLASSES = ("macro", "micro")
RESERVED_ANSWERS = ("indeterminate", "not_done")
RESERVED_COHORTS = ("development", "external", "all")

Unit = Literal["patient", "case"]
Protocol = Literal["sound", "as_published"]
Mode = Literal["scratch", "frozen", "finetune"]
DIAGNOSIS = "diagnosis"
"""Name of the head that tells the classes apart, beside those of endpoints."""
CLASSES = "classes"
"""Name of the classification into all classes, beside those of endpoints."""
LEAKY = "leaky protocol — not comparable"
"""What every output of the protocol as_published bears."""


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
    crop: Literal["none", "contour"] = "none"
    """contour: before all else cut a square round the most central cell (bt5153's variant); an image without a contour stays whole and is flagged."""
    min_contour: int = Field(default=100, ge=1)
    """crop contour: contours that enclose fewer pixels are dust and are passed over."""


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
    augmented: bool = False
    """holdout, monte_carlo: divide the augmented images instead of the images they were made of, so that copies of one image stand on both sides (aamds2022)."""

    @model_validator(mode="after")
    def _column_is_named(self) -> AsPublished:
        if self.scheme == "column" and not self.column:
            raise ValueError(
                "scheme: column needs column: <the manifest column that says train, validation, test>"
            )
        if self.augmented and self.scheme not in ("holdout", "monte_carlo"):
            raise ValueError("augmented: true divides at random; it goes with scheme: holdout or monte_carlo")
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
    """balanced: training images wanted of each class, or of each type; those not named keep their number."""
    targets_of: Literal["classes", "types"] = "classes"
    """types: the targets are those of the manifests' own labels, before the label map (bt5153's targets per cell type)."""
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
    class_weights: Literal["none", "balanced"] | dict[ClassName, Annotated[float, Field(gt=0)]] = "none"
    """balanced: each class weighs the inverse of its number of training images; or a number for each class, 1 where none is given."""
    batches: Literal["shuffled", "balanced"] = "shuffled"
    """shuffled: every training image once an epoch; balanced: every batch holds the classes in equal numbers, images of rare classes several times an epoch and some of frequent ones not at all."""
    patience: int | None = Field(default=10, ge=1)
    """Stop after this many epochs without a lower validation loss; null runs all epochs. The best epoch's weights are kept either way."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on a GPU, float32 on a CPU."""
    compile: bool = False
    """Compile the network's training step (torch.compile): pays on a GPU over long trainings; needs a C compiler, and its results differ in the last digits from those without."""
    threads: int = Field(default=2, ge=1)
    """Threads of a training job; part of the result (sums are rounded in another order), so a setting and not what the scheduler hands out."""
    seed: int = Field(default=0, ge=0)
    """Seed of initial weights, order of batches and dropout; the fold's number is mixed in."""

    @model_validator(mode="after")
    def _balanced_once(self) -> Training:
        if self.class_weights == "balanced" and self.batches == "balanced":
            raise ValueError(
                "class_weights: balanced and batches: balanced correct for the same imbalance twice; keep one of them"
            )
        return self


class Model(Section):
    """A network and how it is trained."""

    network: str
    """Any name that timm knows, with or without a tag of its weights; for example tf_efficientnet_lite0, resnet50, densenet121, inception_v3, resnext101_32x8d.fb_swsl_ig1b_ft_in1k, vit_base_patch32_224. torchvision's squeezenet1_1 is known as torchvision/squeezenet1_1; the networks of bt5153 as bt5153/cnn, bt5153/pre_cnn1, bt5153/pre_cnn2 and bt5153/vit."""
    profile: Literal["corrected", "as_published"] = "corrected"
    """Networks of bt5153: as_published feeds the pretrained parts levels of 0-255, as the study did; corrected feeds them what they were trained on. Other networks have one profile."""
    mode: Mode = "finetune"
    """scratch: random weights, all trained; frozen: features of the given weights, new last layer trained; finetune: given weights, all trained."""
    weights: str = "imagenet"
    """imagenet: timm's (downloaded); none: random; otherwise a local file of weights (.safetensors, .pth)."""
    licence: str = ""
    """Licence of a local file of weights; printed in the reports. That of timm's weights is known."""
    head: Literal["softmax", "one_vs_rest"] = "softmax"
    """softmax: one network answers for all classes; one_vs_rest: one yes/no network a class, and the class whose own network is surest is the answer."""
    heads: dict[Identifier, Annotated[float, Field(gt=0)]] = {}
    """Weights of the outcomes that the network learns together, by the endpoint's name, and `diagnosis` for the classes, such as {mds: 0.1, diagnosis: 0.9} (aamds2022); empty learns the classes alone. An endpoint with a head of its own is answered by it."""
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
        if self.profile != "corrected" and not self.network.startswith("bt5153/"):
            raise ValueError(f"profile: {self.profile} is known of the networks bt5153/… only")
        if self.heads and DIAGNOSIS not in self.heads:
            raise ValueError(f"heads: give {DIAGNOSIS}: a weight too, the head that tells the classes apart")
        if self.heads and self.head == "one_vs_rest":
            raise ValueError(
                "heads: belongs to head: softmax; one-vs-rest networks answer for one class each"
            )
        return self


class Aggregator(Aggregation):
    """How a slide's tiles become one answer, and how that is trained; equations in `marrowflow.slides.aggregators`."""

    training: Training = Training()
    """This aggregator's training loop: the study's `training:` with what is overridden here. A batch is so many slides."""


class Grid(Section):
    """Models by the dozen: every network in every mode, variant and seed is a model `<network>_<mode>[_<variant>][_seed<n>]`."""

    networks: dict[Identifier, dict[str, Any]] = Field(min_length=1)
    """Networks by short names, each with the keys of a model below it, such as {resnet50: {network: resnet50}}."""
    modes: list[Mode] | dict[Mode, dict[str, Any]] = Field(min_length=1)
    """Modes, as a list; or each with keys of a model that it sets, such as {frozen: {training: {rate: 0.003}}}."""
    variants: dict[Identifier, dict[str, Any]] = {}
    """Further keys to vary, by short names, such as {w19: {heads: {mds: 0.1, diagnosis: 0.9}}}."""
    seeds: list[int] = []
    """Seeds of the training; empty takes that of `training:`."""
    colours: list[Identifier] | None = Field(default=None, min_length=1)
    """Colour recipes of all cells; null means all recipes."""


class Ensemble(Section):
    """Several models that answer together: the mean of their probabilities is an index test of its own."""

    members: list[str] = Field(min_length=1)
    """Names of models; * stands for any characters, as in densenet121_finetune_seed*."""
    colours: list[Identifier] | None = Field(default=None, min_length=1)
    """Colour recipes; null means all that every member is trained on."""


class Head(Section):
    """One of several outcomes that a network learns together, as steps are told of it."""

    weight: float = Field(gt=0)
    """Of its loss in the sum."""
    positive: list[ClassName] | None = None
    """Classes in which the endpoint is present; null: the head tells all classes apart."""


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
    """temperature: probabilities to the power 1/T, renormalised, T being that of the least log loss; those of one-vs-rest networks and of endpoints with a head of their own are scaled on the logit."""


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


class Choice(Section):
    """How the index test that is reported first is chosen, on out-of-fold predictions of development patients."""

    metric: Literal[
        "auc", "accuracy", "balanced_accuracy", "mcc", "kappa", "f1", "average_precision", "brier"
    ] = "auc"
    """The best value wins: the largest, or the smallest Brier score. Averages over classes are macro averages; of equals the first in the file wins."""
    endpoint: Identifier | None = None
    """Endpoint that the metric is of; null takes the classification into all classes."""


class PublishedValue(Section):
    """A figure of the publication that the study repeats; printed beside ours, and never a test of it."""

    index_test: str
    """Ours that it is set beside, as <model>-<colour>."""
    metric: str
    """As in metrics.csv: accuracy, auc, sensitivity, …"""
    value: float
    """The published figure."""
    low: float | None = None
    """Lower end of the published interval."""
    high: float | None = None
    """Upper end of the published interval."""
    endpoint: str = CLASSES
    """As in metrics.csv: an endpoint's name, or classes."""
    class_name: str = ""
    """As in the column class of metrics.csv: a class, macro, micro or empty."""
    unit: Unit | None = None
    """Unit of analysis; null takes the first of `units:`."""
    cohort: str = "development"
    """development, or an external cohort."""
    where: str = ""
    """Where it stands in the publication, and what is odd about it."""

    @model_validator(mode="after")
    def _interval_has_two_ends(self) -> PublishedValue:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has two ends: give low: and high:, or neither")
        if self.low is not None and self.high is not None and not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value} does not lie in its interval, {self.low} to {self.high}")
        return self


class Subgroups(Section):
    """Groups of patients in whom accuracy is given by itself, for variability between them (STARD 2015, item 17)."""

    columns: list[str] = ["sex", "scanner", "severity"]
    """Manifest columns whose values are groups; a column that a hospital does not have is left out there."""
    age_bands: list[float] = [18, 40, 65]
    """Limits between age bands in years; each band starts with its limit. Empty: no age bands."""
    quality: bool = True
    """Groups by image quality: the thirds of the development patients by the mean focus of their images, applied unchanged to every hospital."""
    min_patients: int = Field(default=10, ge=2)
    """A group of fewer patients is named with its n, and its accuracy is suppressed."""

    @field_validator("age_bands")
    @classmethod
    def _ascending(cls, bands: list[float]) -> list[float]:
        if any(low >= high for low, high in pairwise(bands)) or any(b <= 0 for b in bands):
            raise ValueError("age_bands: positive limits in ascending order, such as [18, 40, 65]")
        return bands

    @field_validator("columns")
    @classmethod
    def _groups_of_patients(cls, columns: list[str]) -> list[str]:
        for name in columns:
            if name in ("cohort", "patient_id", "case_id", "image", "all", "focus") or name != name.strip():
                raise ValueError(
                    f"columns: {name!r} makes no groups of patients; name manifest columns such as sex"
                )
        _refuse_repeats(columns, "subgroups.columns")
        return columns


class ReaderShown(Section):
    """What reports are told of a reader."""

    title: str = ""
    """What the reports call it, such as "haematologist, 12 years of practice"; empty takes its key."""
    unit: Unit = "case"
    """case: one answer an image; patient: one answer a patient."""


class Reader(ReaderShown):
    """Another index test on the same patients: a haematologist, or another product."""

    table: str | dict[Identifier, str]
    """Its answers (CSV, TSV or Parquet): a prediction table, or one with cohort, image or patient_id, and predicted. Or a file for each cohort, {cohort: file}, so that answers for a new hospital leave the others as they were."""


Checklist = Literal["stard", "tripod_ai", "claim"]


class Report(Section):
    """What the reports print."""

    primary: str | None = None
    """The index test that is reported first, as <model>-<colour>; null takes the first model on its first colour, unless `choose:` says otherwise. Declared before the run: no result chooses it."""
    choose: Choice | None = None
    """Choose it by out-of-fold results instead: its figures are then a little too good, being the best of several, and the report says so."""
    errors_shown: int = Field(default=12, ge=0, le=60)
    """Thumbnails of the most confident errors in each report, and as many of inconclusive cases; 0 prints no patient image."""
    saliency: bool = True
    """Beside each thumbnail, where the network looked (Grad-CAM), and the same for a network of random weights."""
    require: list[Checklist] = []
    """Checklists that must be complete: stard (STARD 2015 with STARD-AI), tripod_ai, claim. A run with a missing text then fails and names every missing key."""

    @field_validator("require", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        """`require: stard` is a list of one."""
        return [value] if isinstance(value, str) else value


class Study(Texts):
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
    grid: Grid | None = None
    """Models by the dozen, beside those under `models:`; one listed there takes the place of the cell of the same name."""
    models: dict[Identifier, Model] = {}
    """Networks by name; each is trained on each of its colour recipes. Needed unless there is a `grid:`, or `slides:`."""
    slides: Slides | None = None
    """A study of whole slides; left out, a study of images."""
    aggregators: dict[Identifier, Aggregator] = {}
    """Of a study of whole slides: networks by name, each trained on each of its tilings."""
    ensembles: dict[Identifier, Ensemble] = {}
    """Index tests that are the mean of several models, by name."""
    threshold: Threshold = Threshold()
    calibration: Calibration = Calibration()
    accuracy: Accuracy = Accuracy()
    report: Report = Report()
    subgroups: Subgroups = Subgroups()
    readers: dict[Identifier, Reader] = {}
    """Readers and other products by name: index tests whose answers are a table, compared on the same patients."""
    published: list[PublishedValue] = []
    """Figures of the publication that the study repeats."""
    assumed: dict[str, str] = {}
    """Values of this file that the publication does not give, by their place (training.rate), with a word on why this one; printed as assumed."""

    @model_validator(mode="before")
    @classmethod
    def _models_are_spelt_out(cls, data: Any) -> Any:
        """Turn the grid's cells into models, and lay each model's own training keys over the study's."""
        if not isinstance(data, dict):
            return data
        listed = data.get("models") or {}
        if isinstance(data.get("grid"), dict) and isinstance(listed, dict):
            data = {**data, "models": {**cells(data["grid"]), **listed}}
        shared = data.get("training") or {}
        for place in ("models", "aggregators"):
            if isinstance(data.get(place), dict) and isinstance(shared, dict):
                data = {**data, place: {name: _with(shared, own) for name, own in data[place].items()}}
        return data

    @model_validator(mode="after")
    def _names_refer(self) -> Study:
        _refuse_bad_classes(self.classes)
        self._check_kind()
        self._refuse_unknown(self.study.intended_prevalence, self.classes, "study.intended_prevalence")
        for name, reader in self.readers.items():
            if reader.unit not in self.units and reader.unit == "patient":
                raise ValueError(f"readers.{name}.unit: the study counts no patients (units: {self.units})")
            if name in self.networks or name in self.ensembles:
                raise ValueError(
                    f"readers.{name}: a model or an ensemble has this name already; choose another"
                )
        for name, endpoint in self.endpoints.items():
            if name in (DIAGNOSIS, CLASSES):
                raise ValueError(
                    f"endpoints.{name}: the name stands for the classification into all classes; choose another"
                )
            unknown = [c for c in endpoint.positive if c not in self.classes]
            if unknown:
                raise ValueError(f"endpoints.{name}.positive: {not_among(unknown[0], self.classes)}")
            if set(endpoint.positive) == set(self.classes):
                raise ValueError(
                    f"endpoints.{name}.positive names every class: nothing is left to be negative"
                )
        rule = self.splits.as_published
        if rule is not None and rule.augmented and self.augmentation.plan == "off":
            raise ValueError(
                "splits.as_published.augmented divides augmented images, and augmentation.plan: off makes none"
            )
        if self.augmentation.targets_of == "classes":
            self._refuse_unknown(self.augmentation.targets, self.classes, "augmentation.targets")
        elif self.label_map is None:
            raise ValueError(
                "augmentation.targets_of: types are the labels before the label map, and there is none; name label_map:"
            )
        for name, model in self.models.items():
            self._refuse_unknown(model.colours or [], self.colour, f"models.{name}.colours")
            _refuse_repeats(model.colours or [], f"models.{name}.colours")
            if model.head == "one_vs_rest" and len(self.classes) == 2:
                raise ValueError(
                    f"models.{name}.head: one_vs_rest asks of two classes the same question twice; take head: softmax"
                )
            self._refuse_unknown(model.heads, [*self.endpoints, DIAGNOSIS], f"models.{name}.heads")
            if isinstance(model.training.class_weights, dict):
                self._refuse_unknown(
                    model.training.class_weights, self.classes, f"models.{name}.training.class_weights"
                )
        for name in self.ensembles:
            self._check_ensemble(name)
        self._something_to_lock_on()
        if self.report.primary is not None:
            self._refuse_unknown([self.report.primary], self.index_tests, "report.primary")
        if self.report.choose is not None:
            if self.report.primary is not None:
                raise ValueError("report: primary: declares what choose: would choose; keep one of them")
            self._check_choice(self.report.choose)
        for i, published in enumerate(self.published):
            self._refuse_unknown([published.index_test], self.index_tests, f"published.{i}.index_test")
            self._refuse_unknown([published.endpoint], self._measured, f"published.{i}.endpoint")
        for place in self.assumed:
            self._refuse_unknown_place(place)
        return self

    @property
    def _measured(self) -> list[str]:
        """Endpoints that are measured: with two classes a yes/no endpoint asks the same as both together."""
        return [*self.endpoints, *([CLASSES] if len(self.classes) > 2 or not self.endpoints else [])]

    def _check_kind(self) -> None:
        """A study is of images or of whole slides: keys of the other kind would be read by nobody."""
        if self.slides is None:
            if self.aggregators:
                raise ValueError(
                    "aggregators: sum up the tiles of whole slides; add slides:, or list networks under models:"
                )
            if not self.models:
                raise ValueError("models: name a network at least, or spell them out by grid:")
            return
        if self.models:
            raise ValueError("models: are trained on images; in a study of whole slides list aggregators:")
        for name in ("grid", "images", "colour", "augmentation"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: is of studies of images; in a study of whole slides leave it out")
        if not self.aggregators:
            raise ValueError("aggregators: name one at least, such as {paper: {kind: wang2022}}")
        for name, aggregator in self.aggregators.items():
            place = f"aggregators.{name}"
            self._refuse_unknown(aggregator.tilings or [], self.slides.tilings, f"{place}.tilings")
            _refuse_repeats(aggregator.tilings or [], f"{place}.tilings")
            if isinstance(aggregator.instances, dict):
                self._refuse_unknown(aggregator.instances, self.slides.tilings, f"{place}.instances")
                lacking = [t for t in self.colours_of(name) if t not in aggregator.instances]
                if lacking:
                    raise ValueError(f"{place}.instances: give a number for the tiling {lacking[0]!r} too")
            if isinstance(aggregator.training.class_weights, dict):
                self._refuse_unknown(
                    aggregator.training.class_weights, self.classes, f"{place}.training.class_weights"
                )

    def _check_choice(self, choice: Choice) -> None:
        self._refuse_unknown([choice.endpoint or CLASSES], self._measured, "report.choose.endpoint")
        if self.splits.scheme != "kfold":
            raise ValueError(
                f"report.choose: under scheme {self.splits.scheme} the test patients must choose nothing; declare "
                "report.primary, or take scheme: kfold, where all predictions are out of fold"
            )

    @staticmethod
    def _refuse_unknown(names: Iterable[str], known: Iterable[str], place: str) -> None:
        for name in names:
            if name not in known:
                raise ValueError(f"{place}: {not_among(name, list(known))}")

    def _refuse_unknown_place(self, place: str) -> None:
        """Walk down the whole configuration: what is marked as assumed must be in it."""
        here: Any = self.model_dump(mode="json")
        for part in place.split("."):
            if not isinstance(here, dict) or part not in here:
                known = list(here) if isinstance(here, dict) else []
                raise ValueError(
                    f"assumed.{place}: there is no such value; {not_among(part, known)}"
                    if known
                    else f"assumed.{place}: there is no such value; nothing stands below {place.rpartition('.')[0]}"
                )
            here = here[part]

    def _check_ensemble(self, name: str) -> None:
        place = f"ensembles.{name}"
        if name in self.networks:
            raise ValueError(f"{place}: a model has this name already; choose another")
        for pattern in self.ensembles[name].members:
            if not fnmatch.filter(self.networks, pattern):
                raise ValueError(f"{place}.members: {not_among(pattern, list(self.networks))}")
        members = self.members_of(name)
        if len(members) < 2:
            raise ValueError(
                f"{place}.members: an ensemble of {members[0]!r} alone is that model; name two or more"
            )
        answers = {
            (self.models[m].head, frozenset(self.models[m].heads)) for m in members if m in self.models
        }
        if len(answers) > 1:
            raise ValueError(
                f"{place}.members: {members} do not answer the same questions (head:, heads:), so that their "
                "probabilities cannot be averaged"
            )
        _refuse_repeats(self.ensembles[name].colours or [], f"{place}.colours")
        if not self.colours_of(name):
            raise ValueError(f"{place}: its members {members} have no colour recipe in common")
        for colour in self.colours_of(name):
            lacking = [m for m in members if colour not in self.colours_of(m)]
            if lacking:
                raise ValueError(f"{place}.colours: {lacking[0]!r} is not trained on {colour!r}")

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
        """All `<model>-<colour>` of the study, models before ensembles, in the order of the file; a declared primary one first."""
        names = [*self.networks, *self.ensembles]
        tests = [f"{name}-{colour}" for name in names for colour in self.colours_of(name)]
        first = self.report.primary
        return tests if first is None or first not in tests else [first, *(t for t in tests if t != first)]

    def members_of(self, ensemble: str) -> list[str]:
        """Return the models of an ensemble, each once, in the order of the file."""
        patterns = self.ensembles[ensemble].members
        return [m for m in self.networks if any(fnmatch.fnmatchcase(m, pattern) for pattern in patterns)]

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

    @property
    def networks(self) -> Mapping[str, Model | Aggregator]:
        """What is trained, by name: the models, or in a study of whole slides the aggregators."""
        return self.aggregators if self.slides is not None else self.models

    @property
    def views(self) -> list[str]:
        """Names of the ways in which cases are seen: colour recipes, or in a study of whole slides tilings."""
        return list(self.slides.tilings if self.slides is not None else self.colour)

    def colours_of(self, name: str) -> list[str]:
        """Return the colour recipes (or tilings) that a model is trained on, or that an ensemble answers on."""
        if name in self.networks:
            network = self.networks[name]
            own = network.tilings if isinstance(network, Aggregator) else network.colours
            return own or self.views
        shared = [c for c in self.views if all(c in self.colours_of(m) for m in self.members_of(name))]
        return self.ensembles[name].colours or shared


def as_models(slides: Slides | None, aggregators: Mapping[str, Aggregator]) -> dict[str, Model]:
    """Return aggregators as reports speak of networks: what sees the tiles, what sums them up, and how that is trained."""
    if slides is None:
        return {}
    seen = slides.extractor
    return {
        name: Model(
            network=f"{own.kind} on {seen.network}",
            mode="scratch" if seen.weights == "none" else "frozen",
            weights=seen.weights,
            licence=seen.licence,
            input_size=seen.input_size,
            colours=own.tilings or list(slides.tilings),
            training=own.training,
        )
        for name, own in aggregators.items()
    }


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


def _validate(model: type[S], value: Any, source: str) -> S:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = [explain(model, detail) for detail in error.errors()]
        raise UserError(enumerate_problems(f"{source} cannot be used:", problems)) from error


def _with(shared: dict[str, Any], own: Any) -> Any:
    """Lay a network's own training keys over the study's."""
    return {**own, "training": {**shared, **(own.get("training") or {})}} if isinstance(own, dict) else own


def _refuse_repeats(names: list[str], place: str) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{place}: a name stands twice in {names}")


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
