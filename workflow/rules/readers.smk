# Readers and other products: index tests whose answers come as a table.


rule take_reader:
    """Hold a reader's answers against the manifests: a prediction table for one set of patients."""
    input:
        tables=sheets_of,
        inventories=inventories_of,
    output:
        predictions="results/<study>/readers/{reader}/{cohort}/predictions.parquet",
    log:
        "results/<study>/logs/take_reader/{reader}/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/take_reader/{reader}/{cohort}.tsv"
    localrule: True
    conda:
        "../../envs/take_reader.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=code("readers"),
        options=options("classes", "unit"),
    shell:
        "python -m marrowflow readers --options {params.options:q} --reader {wildcards.reader} --tables {input.tables:q}"
        " --inventories {input.inventories:q} --out {output.predictions:q} 2> {log:q}"


rule measure_readers:
    """Accuracy of readers and other products, beside the index test that is reported first."""
    input:
        readers=collect("results/<study>/readers/{reader}/{{cohort}}/predictions.parquet", reader=READERS),
        predictions=collect(
            "results/<study>/predictions/{protocol}/{test.model}/{test.colour}/{{cohort}}/predictions.parquet",
            protocol=PROTOCOLS[:1],
            test=INDEX_TESTS,
        ),
        locks=collect(
            "results/<study>/locked/{protocol}/{test.model}/{test.colour}/threshold.json",
            protocol=PROTOCOLS[:1],
            test=INDEX_TESTS,
        ),
        primary="results/<study>/locked/primary.json",
    output:
        metrics=report(
            "results/<study>/comparisons/readers/{cohort}/metrics.csv",
            caption="../report/readers.rst",
            category="Readers",
            labels={"cohort": "{cohort}", "table": "accuracy"},
        ),
        confusion="results/<study>/comparisons/readers/{cohort}/confusion.csv",
        indeterminate="results/<study>/comparisons/readers/{cohort}/indeterminate.csv",
        roc="results/<study>/comparisons/readers/{cohort}/roc.csv",
        comparisons=report(
            "results/<study>/comparisons/readers/{cohort}/comparisons.csv",
            caption="../report/readers.rst",
            category="Readers",
            labels={"cohort": "{cohort}", "table": "differences"},
        ),
        agreement="results/<study>/comparisons/readers/{cohort}/agreement.csv",
        agreement_counts="results/<study>/comparisons/readers/{cohort}/agreement_counts.csv",
        warnings="results/<study>/comparisons/readers/{cohort}/warnings.csv",
    log:
        "results/<study>/logs/measure_readers/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/measure_readers/{cohort}.tsv"
    conda:
        "../../envs/measure_readers.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("statistics.readers"),
        options=options("accuracy", "classes", "endpoints", "reader_units", "units"),
        folder=subpath(output.metrics, parent=True),
    shell:
        "python -m marrowflow statistics.readers --options {params.options:q} --readers {input.readers:q}"
        " --predictions {input.predictions:q} --lock {input.locks:q} --primary {input.primary:q}"
        " --out {params.folder:q} 2> {log:q}"
