"""Join patients that near duplicates make one: what a sound split deals, so that none of it crosses."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from marrowflow.cohorts.duplicates import cluster_inventory


def group_patients(cases: pd.DataFrame, distance: int) -> tuple[pd.Series, pd.Series]:
    """Join patients that share a near-duplicate cluster.

    Returns
    -------
    part
        Each case's group when only its own cohort is looked at, named by its smallest patient id.
    group
        Each case's group over all cohorts, named by its part in the first cohort of ``cases``.
    """
    parts = [
        connected(rows["patient_id"], cluster_inventory(rows, distance))
        for _, rows in cases.groupby("cohort", sort=False)
    ]
    part = pd.concat(parts).reindex(cases.index)
    if len(parts) == 1:
        return part, part
    whole = connected(part, cluster_inventory(cases, distance))
    rank = pd.factorize(cases["cohort"])[0]
    first = pd.DataFrame({"rank": rank, "part": part, "whole": whole}).sort_values(["rank", "part"])
    return part, whole.map(first.groupby("whole")["part"].first())


def connected(patients: pd.Series, clusters: pd.Series) -> pd.Series:
    """Return each row's component of the graph of patients and clusters, named by its smallest patient."""
    patient, cluster = (pd.factorize(column)[0] for column in (patients, clusters))
    nodes = patient.max() + cluster.max() + 2
    graph = coo_array((np.ones(len(patient)), (patient, cluster + patient.max() + 1)), shape=(nodes, nodes))
    component = connected_components(graph, directed=False)[1][patient]
    return patients.groupby(component).transform("min")
