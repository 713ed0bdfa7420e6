"""What all rules share: the study, its cohorts and index tests, and the texts that Snakemake tracks.

Parsing only reads: the configuration, the cohort table and the package's sources.
"""

import json
import shlex
import shutil
import sys
from collections import namedtuple
from importlib.metadata import version
from importlib.util import find_spec
from os.path import relpath
from pathlib import Path

PACKAGE_PATH = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(PACKAGE_PATH))

from snakemake.exceptions import WorkflowError

from marrowflow.checklists import FOLDER, read_checklist, refuse_incomplete
from marrowflow.cohorts.places import is_remote, plugin_of
from marrowflow.cohorts.table import read_cohorts
from marrowflow.config import load_study
from marrowflow.config_problems import not_among
from marrowflow.errors import UserError
from marrowflow.option_strings import option_string
from marrowflow.provenance import code_digest
from marrowflow.reporting.figure_labels import figure_labels

# Snakemake drops PYTHONPATH for jobs in conda environments; the prefix brings the package back.
# Braces in a folder's name are not Snakemake's.
PREFIX = shlex.quote(str(PACKAGE_PATH)).replace("{", "{{").replace("}", "}}")
# Jobs end with this process, the shell's parent (marrowflow/orphan.py).
shell.prefix(f"set -euo pipefail; export PYTHONPATH={PREFIX} MARROWFLOW_RUN=$PPID; ")

IndexTest = namedtuple("IndexTest", ["model", "colour"])


def fetched(place):
    """Return a path as it is, and a URL as a file that Snakemake fetches for the jobs that read it and deletes after them."""
    if not is_remote(place):
        return place
    plugin = plugin_of(place)
    if not find_spec(f"snakemake_storage_plugin_{plugin}"):
        raise UserError(
            f"{place} is read by Snakemake's storage plugin for {plugin}, which is not installed beside Snakemake: "
            f"pip install snakemake-storage-plugin-{plugin}"
        )
    return getattr(storage, plugin)(place, keep_local=False)


try:
    STUDY = load_study(config)
    COHORTS = {
        cohort.name: {
            "role": cohort.role,
            "manifest": fetched(cohort.manifest),
            # Where its images lie as files, or that they come in parts; and the archives that hold them, by name.
            "images": ["--parts"] if cohort.shards else ["--images", cohort.folder],
            "folder": cohort.folder,
            "archives": {name: fetched(place) for name, place in cohort.archives.items()},
            "hospital": cohort.hospital,
            "source": cohort.source,
        }
        for cohort in read_cohorts(Path(STUDY.cohorts))
    }
    remote = [name for name, cohort in COHORTS.items() if cohort["archives"]]
    if STUDY.slides and remote:
        raise UserError(
            f"{STUDY.cohorts}: cohort {remote[0]!r} lies in archives; whole slides are read in place, a region at a time: "
            "copy them to a disk of this machine or cluster, and leave its column 'shards' empty"
        )
    for reader, own in STUDY.readers.items():
        unknown = [] if isinstance(own.table, str) else [name for name in own.table if name not in COHORTS]
        if unknown:
            raise UserError(
                f"readers.{reader}.table: of the cohort table's lines {not_among(unknown[0], list(COHORTS))}"
            )
        # Snakemake would keep what was made of an earlier file, without a word.
        for path in [own.table] if isinstance(own.table, str) else own.table.values():
            if not Path(path).is_file() and not path.startswith("resources/demo/"):
                raise UserError(f"readers.{reader}.table: there is no file {path}")
    # A required checklist with a text missing stops the study before its first job, not after the training.
    refuse_incomplete(
        STUDY,
        STUDY.study,
        [read_checklist(FOLDER / f"{name}.csv") for name in STUDY.report.require],
        {name: cohort["source"] for name, cohort in COHORTS.items()},
    )
except UserError as error:
    # Without the source: a user's mistake must not look like a bug of the workflow.
    raise WorkflowError(str(error)) from None

DEVELOPMENT = [name for name, cohort in COHORTS.items() if cohort["role"] == "development"]
HOSPITALS = {name: cohort["hospital"] for name, cohort in COHORTS.items()}
EXTERNAL = [name for name, cohort in COHORTS.items() if cohort["role"] == "external"]
SHARDED = [name for name, cohort in COHORTS.items() if cohort["archives"]]
PROTOCOLS = list(STUDY.splits.protocols)
FOLDS = STUDY.fold_names
INDEX_TESTS = [IndexTest(*name.split("-")) for name in STUDY.index_tests]
# Those that are networks of their own, and the members of each ensemble.
NETWORKS = [test for test in INDEX_TESTS if test.model in STUDY.networks]
MEMBERS = {name: STUDY.members_of(name) for name in STUDY.ensembles}
# The local weight file of each model; none where timm downloads them or training starts at random.
WEIGHTS = {
    name: [] if model.weights in ("imagenet", "none") or model.mode == "scratch" else model.weights
    for name, model in STUDY.models.items()
}
# The local weight file of the network that sees slides' tiles.
EXTRACTOR = (
    STUDY.slides.extractor.weights
    if STUDY.slides and STUDY.slides.extractor.weights not in ("imagenet", "none")
    else []
)
# The image whose stain a recipe aims at; none where it has no such target.
TARGETS = {name: recipe.target or [] for name, recipe in STUDY.colour.items()}
LABEL_MAP = STUDY.label_map or []
# The note of when an external hospital was first taken up; a development one has none.
ARRIVALS = {
    name: f"results/{STUDY.study.key}/external/{name}/arrival.json" if name in EXTERNAL else []
    for name in COHORTS
}
# What says all about a packed store: store.json holds the checksum of pixels.npy, which may be too large
# to be compared by content and is therefore asked for, but not watched.
STORE = ["store.json", "index.parquet"]
# The tables of `statistics.accuracy` for one index test and one set of patients.
ACCURACY = [
    "metrics",
    "confusion",
    "indeterminate",
    "roc",
    "roc_band",
    "pr",
    "calibration",
    "calibration_uncalibrated",
    "score_histogram",
    "calibration_measures",
    "calibration_measures_uncalibrated",
    "operating_points",
    "predictive_values",
    "decision",
    "differential",
    "warnings",
]
# The tables of `statistics.shift` for one external hospital.
SHIFT = ["domain", "characteristics", "projection", "components", "colour"]
# The tables of `statistics.compare`; the first index test is compared with all others, where there are any.
COMPARISON = ["comparisons", "agreement", "agreement_counts", "warnings"]
COMPARED = len(INDEX_TESTS) > 1
# Reporting checklists: the study's page answers all, a hospital's the one on diagnostic accuracy.
CHECKLISTS = [str(FOLDER / f"{name}.csv") for name in ("stard", "tripod_ai", "claim")]
# The cases that reports show with where the networks looked; none where they show none.
EXPLAINED = PROTOCOLS if STUDY.report.errors_shown and STUDY.report.saliency else []
# Tables of readers and other products by name, and the tables of `statistics.readers`.
READERS = {name: reader.table for name, reader in STUDY.readers.items()}
READ = [
    "metrics",
    "confusion",
    "indeterminate",
    "roc",
    "comparisons",
    "agreement",
    "agreement_counts",
    "warnings",
]
# What the record of a run names. Relative, so that a copy of the project elsewhere is the same run.
CONFIGFILES = [relpath(path) for path in workflow.configfiles]
SNAKEMAKE = version("snakemake")
# What training tells of itself, for all networks of the study.
TRAINED = [
    f"results/<study>/training/{protocol}/{test.model}/{test.colour}/{fold}/{name}"
    for protocol in PROTOCOLS
    for test in NETWORKS
    for fold in FOLDS[protocol]
    for name in ("card.json", "history.csv")
]
# And what it cost: the one thing that differs from run to run.
CARDS = [path for path in TRAINED if path.endswith("card.json")]
COSTS = [path.replace("card.json", "cost.json") for path in CARDS]
WEIGHT_FILES = [path.replace("card.json", "model.safetensors") for path in CARDS]
# What a second hospital applies by itself; whole slides have none yet.
PACKAGE = [] if STUDY.slides else "results/<study>/package/package.json"
# The pages on which readers zoom into the slides that the reports show.
VIEWERS = [
    f"results/<study>/viewer/{protocol}/{cohort}"
    for protocol in (EXPLAINED if STUDY.slides else [])
    for cohort in ["development", *EXTERNAL]
]
# The augmented pictures, when the study wants them as files.
PICTURES = [
    f"results/<study>/augmentation/{protocol}/{fold}/pictures_{colour}"
    for protocol in PROTOCOLS
    for fold in FOLDS[protocol]
    for colour in STUDY.views
    if STUDY.augmentation.materialise
]


pathvars:
    study=STUDY.study.key,


wildcard_constraints:
    cohort=r"[A-Za-z0-9_]+",
    colour="|".join(STUDY.views),
    model="|".join([*STUDY.networks, *STUDY.ensembles]),
    protocol="|".join(PROTOCOLS),
    fold=r"\d+",
    shard=r"[A-Za-z0-9_.-]+",
    reader="|".join(READERS) or "(?!)",


def options(*names):
    """Return an input function for params: the canonical JSON of a rule's sections of the configuration.

    Always a function, because Snakemake would expand braces in a plain text.
    """
    return lambda wildcards: option_string(STUDY, names, dict(wildcards.items()))


def code(module):
    """Return the digest of a module and of all that it imports in the package."""
    return code_digest(module)


def developed(wildcards):
    """Return the hospitals by development cohort, as JSON."""
    return json.dumps({name: COHORTS[name]["hospital"] for name in DEVELOPMENT}, ensure_ascii=False)


def sheets_of(wildcards):
    """Return the files with a reader's answers for a job's patients: one for all cohorts, or those of the job's."""
    table = READERS[wildcards.reader]
    if isinstance(table, str):
        return [table]
    names = DEVELOPMENT if wildcards.cohort == "development" else [wildcards.cohort]
    return [table[name] for name in names if name in table]


def inventories_of(wildcards):
    """Return the inventories of a job's patients: all development cohorts', or those of one external hospital."""
    names = DEVELOPMENT if wildcards.cohort == "development" else [wildcards.cohort]
    return collect("results/<study>/cohorts/{cohort}/inventory.parquet", cohort=names)


def hospitals_of(pattern):
    """Return an input function: the pattern filled with the hospitals of a job's patients, in their order."""
    return lambda wildcards: collect(
        pattern,
        hospital=DEVELOPMENT if wildcards.cohort == "development" else [wildcards.cohort],
        allow_missing=True,
    )


def folders_of(wildcards):
    """Return the folders of the manifests of a job's patients, in the order of their hospitals."""
    names = DEVELOPMENT if wildcards.cohort == "development" else [wildcards.cohort]
    return [COHORTS[name]["folder"] for name in names]


def growing(amount):
    """Return a resource that a job gets more of each time it is tried again: the amount times the attempt."""
    return lambda wildcards, attempt: amount * attempt


def archive_of(wildcards):
    """Return one archive of a cohort whose images lie in archives."""
    return COHORTS[wildcards.cohort]["archives"][wildcards.shard]


def shards_of(pattern):
    """Return an input function: the pattern filled with a cohort's archives; none where its images lie in a folder."""
    return lambda wildcards: collect(pattern, shard=COHORTS[wildcards.cohort]["archives"], allow_missing=True)


def training_threads(wildcards):
    """Return the threads of a model's training and predictions."""
    return STUDY.networks[wildcards.model].training.threads


def folds_of(pattern):
    """Return an input function: the pattern filled with all folds of the job's protocol."""
    return lambda wildcards: collect(pattern, fold=FOLDS[wildcards.protocol], allow_missing=True)


def members_of(pattern):
    """Return an input function: the pattern filled with the members of the job's ensemble, or with the network itself."""
    return lambda wildcards: collect(
        pattern, model=MEMBERS.get(wildcards.model, [wildcards.model]), allow_missing=True
    )
