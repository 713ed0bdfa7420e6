# One job a rule, in the rule's environment. The tests copy it into the root of a copy of the project.


rule import_everything:
    output:
        touch("imported/{name}/{module}"),
    log:
        "imported/{name}/{module}.log",
    conda:
        "envs/{name}.yaml"
    shell:
        "PYTHONPATH=$PWD/workflow python every_import.py {wildcards.name} {wildcards.module} 2> {log}"
