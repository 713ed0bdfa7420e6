from snakemake.utils import min_version

min_version("9.27")


# A study given by --configfile is complete: nothing of the demo may shine through it.
if not workflow.configfiles:

    configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/demo.smk"


# The front half: what stands before the prediction tables.
if STUDY.slides:

    include: "workflow/rules/slides.smk"

else:

    include: "workflow/rules/cohorts.smk"
    include: "workflow/rules/images.smk"
    include: "workflow/rules/networks.smk"


include: "workflow/rules/splits.smk"
include: "workflow/rules/learning.smk"
include: "workflow/rules/statistics.smk"
include: "workflow/rules/readers.smk"
include: "workflow/rules/validation.smk"
include: "workflow/rules/package.smk"
include: "workflow/rules/reporting.smk"
include: "workflow/rules/watch.smk"


rule all:
    """Everything: the study's report, one for each external hospital, the model package, the description of the run."""
    default_target: True
    input:
        report="results/<study>/report/index.html",
        external=collect("results/<study>/external/{cohort}/report.html", cohort=EXTERNAL),
        package=PACKAGE,
        lineage="results/<study>/lineage.html",
        crate="results/<study>/ro-crate-metadata.json",
        pictures=PICTURES,
        viewers=VIEWERS,


rule develop:
    """The trained networks and the locked choices only: nothing of an external hospital is read."""
    input:
        collect(
            "results/<study>/locked/{protocol}/{test.model}/{test.colour}/threshold.json",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
        ),
