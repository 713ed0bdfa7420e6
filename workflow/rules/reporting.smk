rule audit_figures:
    """Check the arithmetic of all accuracy tables before any of them is reported; a finding stops the run."""
    input:
        accuracy=collect(
            "results/<study>/accuracy/{protocol}/{test.model}/{test.colour}/{cohort}/{table}.csv",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
            cohort=["development", *EXTERNAL],
            table=["metrics", "confusion"],
        ),
    output:
        audit="results/<study>/audit.json",
    log:
        "results/<study>/logs/audit_figures.log",
    benchmark:
        "results/<study>/benchmarks/audit_figures.tsv"
    localrule: True
    conda:
        "../../envs/audit_figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code("reporting.audit"),
        folder=f"results/{STUDY.study.key}/accuracy",
    shell:
        "python -m marrowflow reporting.audit --accuracy {params.folder:q} --out {output.audit:q} 2> {log:q}"


rule report_cohort:
    """Write one external hospital's validation report."""
    input:
        inventory="results/<study>/cohorts/{cohort}/inventory.parquet",
        gate="results/<study>/external/{cohort}/gate.json",
        primary="results/<study>/locked/primary.json",
        stores=collect("results/<study>/images/{{cohort}}/{colour}/{part}", colour=STUDY.colour, part=STORE),
        pixels=ancient(collect("results/<study>/images/{{cohort}}/{colour}/pixels.npy", colour=STUDY.colour)),
        training=TRAINED,
        locks=collect(
            "results/<study>/locked/{protocol}/{test.model}/{test.colour}/threshold.json",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
        ),
        predictions=collect(
            "results/<study>/predictions/{protocol}/{test.model}/{test.colour}/{{cohort}}/predictions.parquet",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
        ),
        accuracy=collect(
            "results/<study>/accuracy/{protocol}/{test.model}/{test.colour}/{{cohort}}/{table}.csv",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
            table=ACCURACY,
        ),
        comparisons=collect(
            "results/<study>/comparisons/{protocol}/{{cohort}}/{table}.csv",
            protocol=PROTOCOLS if COMPARED else [],
            table=COMPARISON,
        ),
    output:
        page=report(
            "results/<study>/external/{cohort}/report.html",
            caption="../report/external.rst",
            category="Reports",
            labels={"report": "external validation", "cohort": "{cohort}"},
        ),
        figures=directory("results/<study>/external/{cohort}/figures"),
    log:
        "results/<study>/logs/report_cohort/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/report_cohort/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(EXTERNAL) or "(?!)",
    conda:
        "../../envs/report_cohort.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=code("reporting.external"),
        options=options(
            "accuracy",
            "classes",
            "endpoints",
            "index_tests",
            "members",
            "models",
            "protocols",
            "report",
            "study",
            "units",
        ),
        hospital=lookup(dpath="{cohort}/hospital", within=COHORTS),
        source=lookup(dpath="{cohort}/source", within=COHORTS),
        results=subpath(output.page, ancestor=3),
        folder=subpath(output.page, parent=True),
    shell:
        "python -m marrowflow reporting.external --options {params.options:q} --results {params.results:q}"
        " --primary {input.primary:q} --cohort {wildcards.cohort} --hospital {params.hospital:q} --source {params.source:q}"
        " --out {params.folder:q} 2> {log:q}"


rule report_study:
    """Write the study's report."""
    input:
        cohorts=STUDY.cohorts,
        inventories=collect("results/<study>/cohorts/{cohort}/inventory.parquet", cohort=COHORTS),
        stores=collect(
            "results/<study>/images/{cohort}/{colour}/{part}",
            cohort=COHORTS,
            colour=STUDY.colour,
            part=STORE,
        ),
        pixels=ancient(
            collect(
                "results/<study>/images/{cohort}/{colour}/pixels.npy", cohort=COHORTS, colour=STUDY.colour
            )
        ),
        external_gates=collect("results/<study>/external/{cohort}/gate.json", cohort=EXTERNAL),
        folds=collect("results/<study>/splits/{protocol}/folds.parquet", protocol=PROTOCOLS),
        counts=collect("results/<study>/splits/{protocol}/counts.csv", protocol=PROTOCOLS),
        gates=collect("results/<study>/splits/{protocol}/gate.json", protocol=PROTOCOLS),
        primary="results/<study>/locked/primary.json",
        training=TRAINED,
        costs=COSTS,
        locks=collect(
            "results/<study>/locked/{protocol}/{test.model}/{test.colour}/threshold.json",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
        ),
        predictions=collect(
            "results/<study>/predictions/{protocol}/{test.model}/{test.colour}/{cohort}/predictions.parquet",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
            cohort=["development", *EXTERNAL],
        ),
        accuracy=collect(
            "results/<study>/accuracy/{protocol}/{test.model}/{test.colour}/{cohort}/{table}.csv",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
            table=ACCURACY,
            cohort=["development", *EXTERNAL],
        ),
        comparisons=collect(
            "results/<study>/comparisons/{protocol}/{cohort}/{table}.csv",
            protocol=PROTOCOLS if COMPARED else [],
            table=COMPARISON,
            cohort=["development", *EXTERNAL],
        ),
        optimism=collect(
            "results/<study>/optimism/{test.model}/{test.colour}/optimism.csv",
            test=INDEX_TESTS if "as_published" in PROTOCOLS else [],
        ),
        sheets=collect("results/<study>/augmentation/contact_sheet_{colour}.png", colour=STUDY.colour),
    output:
        page=report(
            "results/<study>/report/index.html",
            caption="../report/study.rst",
            category="Reports",
            labels={"report": "study"},
        ),
        figures=directory("results/<study>/report/figures"),
    log:
        "results/<study>/logs/report_study.log",
    benchmark:
        "results/<study>/benchmarks/report_study.tsv"
    conda:
        "../../envs/report_study.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=code("reporting.study"),
        options=options(
            "accuracy",
            "assumed",
            "augmentation",
            "calibration",
            "classes",
            "colour",
            "endpoints",
            "ensembles",
            "grid",
            "images",
            "index_tests",
            "intake",
            "label_map",
            "members",
            "models",
            "protocols",
            "published",
            "report",
            "splits",
            "study",
            "threshold",
            "training",
            "units",
        ),
        results=subpath(output.page, ancestor=2),
        folder=subpath(output.page, parent=True),
    shell:
        "python -m marrowflow reporting.study --options {params.options:q} --results {params.results:q}"
        " --primary {input.primary:q} --cohorts {input.cohorts:q} --out {params.folder:q} 2> {log:q}"


rule describe_run:
    """Describe the run as an RO-Crate: files with checksums, the configuration, the software."""
    input:
        page="results/<study>/report/index.html",
        external=collect("results/<study>/external/{cohort}/report.html", cohort=EXTERNAL),
        inventories=collect("results/<study>/cohorts/{cohort}/inventory.parquet", cohort=COHORTS),
        folds=collect("results/<study>/splits/{protocol}/folds.parquet", protocol=PROTOCOLS),
        gates=collect("results/<study>/splits/{protocol}/gate.json", protocol=PROTOCOLS),
        external_gates=collect("results/<study>/external/{cohort}/gate.json", cohort=EXTERNAL),
        primary="results/<study>/locked/primary.json",
        training=TRAINED,
        costs=COSTS,
        networks=[
            path.replace("card.json", "model.safetensors") for path in TRAINED if path.endswith("card.json")
        ],
        locks=collect(
            "results/<study>/locked/{protocol}/{test.model}/{test.colour}/threshold.json",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
        ),
        predictions=collect(
            "results/<study>/predictions/{protocol}/{test.model}/{test.colour}/{cohort}/predictions.parquet",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
            cohort=["development", *EXTERNAL],
        ),
        accuracy=collect(
            "results/<study>/accuracy/{protocol}/{test.model}/{test.colour}/{cohort}/{table}.csv",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
            table=ACCURACY,
            cohort=["development", *EXTERNAL],
        ),
        comparisons=collect(
            "results/<study>/comparisons/{protocol}/{cohort}/{table}.csv",
            protocol=PROTOCOLS if COMPARED else [],
            table=COMPARISON,
            cohort=["development", *EXTERNAL],
        ),
    output:
        crate="results/<study>/ro-crate-metadata.json",
        configuration="results/<study>/configuration.json",
    log:
        "results/<study>/logs/describe_run.log",
    benchmark:
        "results/<study>/benchmarks/describe_run.tsv"
    conda:
        "../../envs/describe_run.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=20,
    params:
        code=code("crate"),
        options=options(*type(STUDY).model_fields),
        root=subpath(output.crate, parent=True),
    shell:
        "python -m marrowflow crate --options {params.options:q} --root {params.root:q}"
        " --configuration {output.configuration:q} --out {output.crate:q} {input:q} 2> {log:q}"
