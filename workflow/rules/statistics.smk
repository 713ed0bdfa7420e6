rule measure_accuracy:
    """Point estimates and clustered intervals for one index test and one set of patients."""
    input:
        predictions="results/<study>/predictions/{protocol}/{model}/{colour}/{cohort}/predictions.parquet",
        uncalibrated="results/<study>/predictions/{protocol}/{model}/{colour}/{cohort}/uncalibrated.parquet",
        lock="results/<study>/locked/{protocol}/{model}/{colour}/threshold.json",
    output:
        metrics=report(
            "results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/metrics.csv",
            caption="../report/metrics.rst",
            category="Accuracy",
            labels={
                "model": "{model}",
                "colour": "{colour}",
                "cohort": "{cohort}",
                "protocol": "{protocol}",
            },
        ),
        confusion="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/confusion.csv",
        indeterminate="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/indeterminate.csv",
        roc="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/roc.csv",
        roc_band="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/roc_band.csv",
        pr="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/pr.csv",
        calibration="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/calibration.csv",
        score_histogram="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/score_histogram.csv",
        calibration_measures="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/calibration_measures.csv",
        operating_points="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/operating_points.csv",
        predictive_values="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/predictive_values.csv",
        decision="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/decision.csv",
        differential="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/differential.csv",
        warnings="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/warnings.csv",
        calibration_uncalibrated="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/calibration_uncalibrated.csv",
        calibration_measures_uncalibrated="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/calibration_measures_uncalibrated.csv",
    log:
        "results/<study>/logs/measure_accuracy/{protocol}/{model}/{colour}/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/measure_accuracy/{protocol}/{model}/{colour}/{cohort}.tsv"
    conda:
        "../../envs/measure_accuracy.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("statistics.accuracy"),
        options=options("accuracy", "classes", "endpoints", "units"),
        folder=subpath(output.metrics, parent=True),
    shell:
        "python -m marrowflow statistics.accuracy --options {params.options:q} --predictions {input.predictions:q}"
        " --uncalibrated {input.uncalibrated:q} --lock {input.lock:q} --out {params.folder:q} 2> {log:q}"


rule choose_primary:
    """Say which index test is reported first: as declared, or by its out-of-fold results on development patients."""
    input:
        metrics=collect(
            "results/<study>/accuracy/sound/{test.model}/{test.colour}/development/metrics.csv",
            test=INDEX_TESTS if STUDY.report.choose else [],
        ),
    output:
        primary=report(
            "results/<study>/locked/primary.json",
            caption="../report/primary.rst",
            category="Locked choices",
            labels={"choice": "index test reported first"},
        ),
    log:
        "results/<study>/logs/choose_primary.log",
    benchmark:
        "results/<study>/benchmarks/choose_primary.tsv"
    localrule: True
    conda:
        "../../envs/choose_primary.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=code("choices.primary"),
        options=options("index_tests", "primary", "units"),
        accuracy=f"results/{STUDY.study.key}/accuracy/sound",
    shell:
        "python -m marrowflow choices.primary --options {params.options:q} --accuracy {params.accuracy:q}"
        " --out {output.primary:q} 2> {log:q}"


rule compare_index_tests:
    """Differences between the index test that is reported first and all others, on one set of patients."""
    input:
        predictions=collect(
            "results/<study>/predictions/{{protocol}}/{test.model}/{test.colour}/{{cohort}}/predictions.parquet",
            test=INDEX_TESTS,
        ),
        locks=collect(
            "results/<study>/locked/{{protocol}}/{test.model}/{test.colour}/threshold.json", test=INDEX_TESTS
        ),
        primary="results/<study>/locked/primary.json",
    output:
        comparisons=report(
            "results/<study>/comparisons/{protocol}/{cohort}/comparisons.csv",
            caption="../report/comparisons.rst",
            category="Comparisons",
            labels={"cohort": "{cohort}", "protocol": "{protocol}"},
        ),
        agreement="results/<study>/comparisons/{protocol}/{cohort}/agreement.csv",
        agreement_counts="results/<study>/comparisons/{protocol}/{cohort}/agreement_counts.csv",
        warnings="results/<study>/comparisons/{protocol}/{cohort}/warnings.csv",
    log:
        "results/<study>/logs/compare_index_tests/{protocol}/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/compare_index_tests/{protocol}/{cohort}.tsv"
    conda:
        "../../envs/compare_index_tests.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("statistics.compare"),
        options=options("accuracy", "classes", "endpoints", "units"),
        folder=subpath(output.comparisons, parent=True),
    shell:
        "python -m marrowflow statistics.compare --options {params.options:q} --predictions {input.predictions:q}"
        " --lock {input.locks:q} --primary {input.primary:q} --out {params.folder:q} 2> {log:q}"


rule compare_protocols:
    """Set the published, leaky protocol beside the sound one."""
    input:
        published="results/<study>/accuracy/as_published/{model}/{colour}/development/metrics.csv",
        sound="results/<study>/accuracy/sound/{model}/{colour}/development/metrics.csv",
    output:
        table=report(
            "results/<study>/optimism/{model}/{colour}/optimism.csv",
            caption="../report/optimism.rst",
            category="Optimism",
            labels={"model": "{model}", "colour": "{colour}"},
        ),
    log:
        "results/<study>/logs/compare_protocols/{model}/{colour}.log",
    benchmark:
        "results/<study>/benchmarks/compare_protocols/{model}/{colour}.tsv"
    localrule: True
    conda:
        "../../envs/compare_protocols.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=code("splits.optimism"),
    shell:
        "python -m marrowflow splits.optimism --published {input.published:q} --sound {input.sound:q}"
        " --out {output.table:q} 2> {log:q}"


rule measure_subgroups:
    """Accuracy of the index test that is reported first, in subgroups of one set of patients."""
    input:
        predictions=collect(
            "results/<study>/predictions/{{protocol}}/{test.model}/{test.colour}/{{cohort}}/predictions.parquet",
            test=INDEX_TESTS,
        ),
        locks=collect(
            "results/<study>/locked/{{protocol}}/{test.model}/{test.colour}/threshold.json", test=INDEX_TESTS
        ),
        primary="results/<study>/locked/primary.json",
        inventories=branch(
            evaluate("{cohort} == 'development'"),
            then=collect("results/<study>/cohorts/{cohort}/inventory.parquet", cohort=DEVELOPMENT),
            otherwise="results/<study>/cohorts/{cohort}/inventory.parquet",
        ),
        # Whose focus says what a low quality is, at every hospital.
        development=collect("results/<study>/cohorts/{cohort}/inventory.parquet", cohort=DEVELOPMENT),
    output:
        table=report(
            "results/<study>/subgroups/{protocol}/{cohort}/subgroups.csv",
            caption="../report/subgroups.rst",
            category="Subgroups",
            labels={"cohort": "{cohort}", "protocol": "{protocol}"},
        ),
    log:
        "results/<study>/logs/measure_subgroups/{protocol}/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/measure_subgroups/{protocol}/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(["development", *EXTERNAL]),
    conda:
        "../../envs/measure_subgroups.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        code=code("statistics.subgroups"),
        options=options("accuracy", "classes", "endpoints", "subgroups", "units"),
        folder=subpath(output.table, parent=True),
    shell:
        "python -m marrowflow statistics.subgroups --options {params.options:q} --predictions {input.predictions:q}"
        " --lock {input.locks:q} --primary {input.primary:q} --inventories {input.inventories:q}"
        " --development {input.development:q} --out {params.folder:q} 2> {log:q}"


rule pool_hospitals:
    """Random-effects summary of the external hospitals' accuracy, by the index test that is reported first."""
    input:
        metrics=collect(
            "results/<study>/accuracy/{{protocol}}/{test.model}/{test.colour}/{cohort}/metrics.csv",
            test=INDEX_TESTS,
            cohort=["development", *EXTERNAL],
        ),
        primary="results/<study>/locked/primary.json",
    output:
        table=report(
            "results/<study>/pooled/{protocol}/pooled.csv",
            caption="../report/pooled.rst",
            category="Pooled accuracy",
            labels={"protocol": "{protocol}"},
        ),
    log:
        "results/<study>/logs/pool_hospitals/{protocol}.log",
    benchmark:
        "results/<study>/benchmarks/pool_hospitals/{protocol}.tsv"
    localrule: True
    conda:
        "../../envs/pool_hospitals.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=code("statistics.pooled"),
        options=options("accuracy", "units"),
        root=subpath(output.table, ancestor=3),
        cohorts=EXTERNAL,
    shell:
        "python -m marrowflow statistics.pooled --options {params.options:q} --primary {input.primary:q}"
        " --accuracy {params.root:q}/accuracy/{wildcards.protocol} --cohorts {params.cohorts:q} --out {output.table:q} 2> {log:q}"
