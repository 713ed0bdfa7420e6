rule measure_accuracy:
    """Point estimates and clustered intervals for one index test and one set of patients."""
    input:
        predictions="results/<study>/predictions/{protocol}/{model}/{colour}/{cohort}/predictions.parquet",
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
        roc="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/roc.csv",
        pr="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/pr.csv",
        calibration="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/calibration.csv",
        warnings="results/<study>/accuracy/{protocol}/{model}/{colour}/{cohort}/warnings.csv",
    log:
        "results/<study>/logs/measure_accuracy/{protocol}/{model}/{colour}/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/measure_accuracy/{protocol}/{model}/{colour}/{cohort}.tsv"
    conda:
        "../../envs/measure_accuracy.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code("statistics.accuracy"),
        options=options("accuracy", "classes", "endpoints", "units"),
        folder=subpath(output.metrics, parent=True),
    shell:
        "python -m marrowflow statistics.accuracy --options {params.options:q} --predictions {input.predictions:q}"
        " --lock {input.lock:q} --out {params.folder:q} 2> {log:q}"


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
    conda:
        "../../envs/compare_protocols.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code("splits.optimism"),
    shell:
        "python -m marrowflow splits.optimism --published {input.published:q} --sound {input.sound:q}"
        " --out {output.table:q} 2> {log:q}"
