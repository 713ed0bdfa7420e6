"""What `python -m marrowflow explain` hands on to Snakemake: a small workflow, which the real one reads."""

from functools import partial

import pytest
from explained import ask
from project import ROOT
from snakemake.cli import get_argument_parser

from marrowflow import explain as module
from marrowflow.errors import UserError
from marrowflow.explain import ask_snakemake

SNAKEFILE = """
from marrowflow.watch.console import attach
configfile: "config.yaml"
rule all:
    input: "a.txt", "b.txt"
rule report_study:
    output: "a.txt"
    shell: "touch {output}"
rule describe_run:
    output: "b.txt"
    shell: "touch {output}"
attach(workflow, {})
"""


@pytest.fixture
def explained(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "config.yaml").write_text("{}\n")

    return partial(ask, tmp_path, ROOT / "workflow")


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        (["--", "--cores", "2", "--", "a.txt"], "1 study report"),
        (["--cores", "2", "--", "b.txt"], "1 run record"),
        (["--cores", "2"], "1 study report, 1 run record"),
        (["--", "--cores", "2", "a.txt"], "1 study report"),
        ([], "1 study report, 1 run record"),
    ],
)
def test_options_and_targets_reach_snakemake_however_they_are_set_apart(explained, arguments, made):
    done = explained(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"  reports  {made}"


def test_a_missing_configuration_is_told_in_one_line(explained):
    done = explained("--", "--cores", "2", "--configfile", "no_such.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "No such file or directory: 'no_such.yaml'" in done.stderr


def test_a_lock_stays(explained, tmp_path):
    """Snakemake itself would take it away, dry run or not."""
    lock = tmp_path / ".snakemake/locks/0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("a.txt\n")
    done = explained("--", "--unlock")
    assert done.returncode == 1
    assert done.stderr.startswith("error: --unlock runs no job")
    assert lock.exists()


def options_of_snakemake():
    return list(get_argument_parser()._option_string_actions)


@pytest.fixture
def never_asked(monkeypatch):
    """No test of a refusal may call Snakemake should nothing be refused: it would act here."""

    def run(*arguments, **_):
        raise AssertionError(arguments)

    monkeypatch.setattr(module.subprocess, "run", run)


@pytest.mark.parametrize(
    "option",
    [
        "--unlock",
        "--unl",
        "--cleanup-metadata",
        "--cm",
        "--delete-all-output",
        "--touch",
        "-t",
        "--report=x.zip",
    ],
)
@pytest.mark.usefixtures("never_asked")
def test_what_acts_by_itself_is_refused(option):
    with pytest.raises(UserError, match=f"^{option.partition('=')[0]} runs no job"):
        ask_snakemake(["--cores", "2", option, "a.txt"])


def test_all_that_is_refused_is_snakemakes_and_all_else_goes_on_to_it():
    known = options_of_snakemake()
    assert set(known) > set(module._ACTING)
    for option in set(known) - set(module._ACTING) - {"-t"}:
        assert module._as_dry_run([option, "--", "--unlock"]) == [
            option,
            "--dry-run",
            "--quiet",
            "--",
            "--unlock",
        ]
