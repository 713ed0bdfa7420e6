"""What is read out of Snakemake's own objects; that it is the plan of a real dry run, the tests of the workflow say."""

from marrowflow.watch.plan import _alike


def test_a_removed_path_is_known_by_the_one_part_in_which_it_differs_from_a_kept_one():
    kept = ["r/accuracy/m/beta/metrics.csv", "r/accuracy/n/beta/metrics.csv", "r/other.csv"]
    assert _alike(["r/accuracy/m/gamma/metrics.csv"], kept) == {"gamma": "beta"}
    assert _alike(["r/accuracy/x/gamma/metrics.csv", "r/metrics.csv", "a/b"], kept) == {
        "metrics.csv": "other.csv"
    }
    assert _alike(["r/accuracy/m/gamma/metrics.csv"], []) == {}
