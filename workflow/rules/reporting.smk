rule audit_figures:
    """Check the arithmetic of all accuracy tables before any of them is reported; a finding stops the run."""
    input:
        metrics=collect(
            "results/<study>/accuracy/{protocol}/{test.model}/{test.colour}/{cohort}/metrics.csv",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
            cohort=["development", *EXTERNAL],
        ),
        confusion=collect(
            "results/<study>/accuracy/{protocol}/{test.model}/{test.colour}/{cohort}/confusion.csv",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
            cohort=["development", *EXTERNAL],
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
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=code("reporting.audit"),
    shell:
        "python -m marrowflow reporting.audit --accuracy {input.metrics:q} --out {output.audit:q} 2> {log:q}"


rule report_cohort:
    """Write one external hospital's validation report."""
    input:
        inventory="results/<study>/cohorts/{cohort}/inventory.parquet",
        gate="results/<study>/external/{cohort}/gate.json",
        primary="results/<study>/locked/primary.json",
        stores=collect("results/<study>/images/{{cohort}}/{colour}/{part}", colour=STUDY.views, part=STORE),
        pixels=ancient(collect("results/<study>/images/{{cohort}}/{colour}/pixels.npy", colour=STUDY.views)),
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
        development=collect("results/<study>/cohorts/{cohort}/inventory.parquet", cohort=DEVELOPMENT),
        folds=collect(
            "results/<study>/splits/{protocol}/{part}",
            protocol=PROTOCOLS,
            part=["folds.parquet", "counts.csv"],
        ),
        seal="results/<study>/locked/seal.json",
        arrival="results/<study>/external/{cohort}/arrival.json",
        subgroups=collect("results/<study>/subgroups/{protocol}/{{cohort}}/subgroups.csv", protocol=PROTOCOLS),
        shift=collect("results/<study>/shift/{{cohort}}/{table}.csv", table=SHIFT),
        explanations=collect(
            "results/<study>/explanations/{protocol}/{{cohort}}/cases.csv", protocol=EXPLAINED
        ),
        # A folder is watched by its time alone; cases.csv changes with the maps.
        maps=ancient(collect("results/<study>/explanations/{protocol}/{{cohort}}/maps", protocol=EXPLAINED)),
        readers=collect(
            "results/<study>/comparisons/readers/{{cohort}}/{table}.csv", table=READ if READERS else []
        ),
        checklists=CHECKLISTS[:1],
    output:
        page=report(
            "results/<study>/external/{cohort}/report.html",
            caption="../report/external.rst",
            category="Reports",
            labels={"report": "external validation", "cohort": "{cohort}"},
        ),
        figures=report(
            directory("results/<study>/external/{cohort}/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            labels=figure_labels(HOSPITALS),
        ),
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
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        code=code("reporting.external"),
        options=options(
            "accuracy",
            "aggregators",
            "classes",
            "endpoints",
            "index_tests",
            "members",
            "models",
            "protocols",
            "reader_titles",
            "report",
            "slides",
            "study",
            "subgroups",
            "texts",
            "units",
        ),
        development=developed,
        manifest=lookup(dpath="{cohort}/manifest", within=COHORTS),
        hospital=lookup(dpath="{cohort}/hospital", within=COHORTS),
        source=lookup(dpath="{cohort}/source", within=COHORTS),
        results=subpath(output.page, ancestor=3),
        folder=subpath(output.page, parent=True),
    shell:
        "python -m marrowflow reporting.external --options {params.options:q} --results {params.results:q}"
        " --primary {input.primary:q} --cohort {wildcards.cohort} --manifest {params.manifest:q}"
        " --hospital {params.hospital:q} --source {params.source:q} --development {params.development:q}"
        " --checklists {input.checklists:q} --out {params.folder:q} 2> {log:q}"


rule report_study:
    """Write the study's report."""
    input:
        cohorts=STUDY.cohorts,
        inventories=collect("results/<study>/cohorts/{cohort}/inventory.parquet", cohort=COHORTS),
        stores=collect(
            "results/<study>/images/{cohort}/{colour}/{part}",
            cohort=COHORTS,
            colour=STUDY.views,
            part=STORE,
        ),
        pixels=ancient(
            collect(
                "results/<study>/images/{cohort}/{colour}/pixels.npy", cohort=COHORTS, colour=STUDY.views
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
        sheets=collect(
            "results/<study>/augmentation/contact_sheet_{colour}.png",
            colour=[] if STUDY.slides else STUDY.colour,
        ),
        seal="results/<study>/locked/seal.json",
        subgroups=collect(
            "results/<study>/subgroups/{protocol}/{cohort}/subgroups.csv",
            protocol=PROTOCOLS,
            cohort=["development", *EXTERNAL],
        ),
        pooled=collect("results/<study>/pooled/{protocol}/pooled.csv", protocol=PROTOCOLS),
        shift=collect("results/<study>/shift/{cohort}/{table}.csv", cohort=EXTERNAL, table=SHIFT),
        explanations=collect(
            "results/<study>/explanations/{protocol}/{cohort}/cases.csv",
            protocol=EXPLAINED,
            cohort=["development", *EXTERNAL],
        ),
        maps=ancient(collect("results/<study>/explanations/{protocol}/development/maps", protocol=EXPLAINED)),
        readers=collect(
            "results/<study>/comparisons/readers/{cohort}/{table}.csv",
            cohort=["development", *EXTERNAL],
            table=READ if READERS else [],
        ),
        audit="results/<study>/audit.json",
        checklists=CHECKLISTS,
    output:
        page=report(
            "results/<study>/report/index.html",
            caption="../report/study.rst",
            category="Reports",
            labels={"report": "study", "cohort": "–"},
        ),
        figures=report(
            directory("results/<study>/report/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            labels=figure_labels(HOSPITALS),
        ),
    log:
        "results/<study>/logs/report_study.log",
    benchmark:
        "results/<study>/benchmarks/report_study.tsv"
    conda:
        "../../envs/report_study.yaml"
    threads: 1
    resources:
        # All hospitals' inventories and all index tests' tables.
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        code=code("reporting.study"),
        options=options(
            "accuracy",
            "aggregators",
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
            "reader_titles",
            "report",
            "slides",
            "splits",
            "study",
            "subgroups",
            "texts",
            "threshold",
            "training",
            "units",
        ),
        results=subpath(output.page, ancestor=2),
        folder=subpath(output.page, parent=True),
    shell:
        "python -m marrowflow reporting.study --options {params.options:q} --results {params.results:q}"
        " --primary {input.primary:q} --cohorts {input.cohorts:q} --checklists {input.checklists:q}"
        " --out {params.folder:q} 2> {log:q}"


rule describe_run:
    """Describe the run: its record, the lineage of every file, and an RO-Crate."""
    input:
        report="results/<study>/report/index.html",
        external=collect("results/<study>/external/{cohort}/report.html", cohort=EXTERNAL),
        package=PACKAGE,
        pictures=PICTURES,
    output:
        record="results/<study>/run.json",
        table="results/<study>/lineage.csv",
        page=report(
            "results/<study>/lineage.html",
            caption="../report/lineage.rst",
            category="Reports",
            labels={"report": "lineage of every file", "cohort": "–"},
        ),
        crate="results/<study>/ro-crate-metadata.json",
        configuration="results/<study>/configuration.json",
        sources=directory("results/<study>/run"),
    log:
        "results/<study>/logs/describe_run.log",
    benchmark:
        "results/<study>/benchmarks/describe_run.tsv"
    conda:
        "../../envs/describe_run.yaml"
    threads: 1
    resources:
        # A record of every job and its inputs.
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("records.describe"),
        options=options(*type(STUDY).model_fields),
        configfiles=CONFIGFILES,
        root=subpath(output.crate, parent=True),
        snakemake=SNAKEMAKE,
    shell:
        "python -m marrowflow records.describe --options {params.options:q} --root {params.root:q}"
        " --records .snakemake/metadata --results {input.report:q} {input.external:q} {input.package:q} --log {log:q} --snakemake {params.snakemake}"
        " --configfiles {params.configfiles:q} 2> {log:q}"
