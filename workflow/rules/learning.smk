# What is done with the answers of networks, whatever they saw: averaged, calibrated, locked.


rule combine_development:
    """Average what an ensemble's members answered for the patients that none of them was trained on."""
    input:
        tables=members_of("results/<study>/predictions/{protocol}/{model}/{colour}/out_of_fold.parquet"),
    output:
        raw="results/<study>/predictions/{protocol}/{model}/{colour}/out_of_fold.parquet",
    log:
        "results/<study>/logs/combine_development/{protocol}/{model}/{colour}.log",
    benchmark:
        "results/<study>/benchmarks/combine_development/{protocol}/{model}/{colour}.tsv"
    wildcard_constraints:
        model="|".join(STUDY.ensembles) or "(?!)",
    localrule: True
    conda:
        "../../envs/combine_development.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=code("learning.combine"),
        options=options("classes"),
    shell:
        "python -m marrowflow learning.combine --options {params.options:q} --tables {input.tables:q}"
        " --index-test {wildcards.model}-{wildcards.colour} --out {output.raw:q} 2> {log:q}"


rule lock_choices:
    """Fit calibration and thresholds on out-of-fold predictions, once; nothing external is read."""
    input:
        raw="results/<study>/predictions/{protocol}/{model}/{colour}/out_of_fold.parquet",
    output:
        lock=report(
            "results/<study>/locked/{protocol}/{model}/{colour}/threshold.json",
            caption="../report/threshold.rst",
            category="Locked choices",
            labels={"model": "{model}", "colour": "{colour}", "protocol": "{protocol}"},
        ),
        predictions="results/<study>/predictions/{protocol}/{model}/{colour}/development/predictions.parquet",
        uncalibrated="results/<study>/predictions/{protocol}/{model}/{colour}/development/uncalibrated.parquet",
    log:
        "results/<study>/logs/lock_choices/{protocol}/{model}/{colour}.log",
    benchmark:
        "results/<study>/benchmarks/lock_choices/{protocol}/{model}/{colour}.tsv"
    localrule: True
    conda:
        "../../envs/lock_choices.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=code("learning.lock"),
        options=options("calibration", "classes", "endpoints", "scheme", "threshold", "units"),
    shell:
        "python -m marrowflow learning.lock --options {params.options:q} --raw {input.raw:q}"
        " --index-test {wildcards.model}-{wildcards.colour} --protocol {wildcards.protocol}"
        " --out {output.lock:q} --predictions {output.predictions:q} --uncalibrated {output.uncalibrated:q} 2> {log:q}"


rule apply_lock:
    """Apply an index test's locked choices to one external hospital; an ensemble's members are averaged first."""
    input:
        tables=members_of("results/<study>/predictions/{protocol}/{model}/{colour}/{cohort}/raw.parquet"),
        lock="results/<study>/locked/{protocol}/{model}/{colour}/threshold.json",
    output:
        predictions="results/<study>/predictions/{protocol}/{model}/{colour}/{cohort}/predictions.parquet",
        uncalibrated="results/<study>/predictions/{protocol}/{model}/{colour}/{cohort}/uncalibrated.parquet",
    log:
        "results/<study>/logs/apply_lock/{protocol}/{model}/{colour}/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/apply_lock/{protocol}/{model}/{colour}/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(EXTERNAL) or "(?!)",
    localrule: True
    conda:
        "../../envs/apply_lock.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=code("learning.combine"),
        options=options("classes"),
    shell:
        "python -m marrowflow learning.combine --options {params.options:q} --tables {input.tables:q}"
        " --lock {input.lock:q} --index-test {wildcards.model}-{wildcards.colour}"
        " --out {output.predictions:q} --uncalibrated {output.uncalibrated:q} 2> {log:q}"
