"""Labels: which renamings there are, the rules that choose one for each draw, labels drawn."""

from jaxgmm.labels._assignment import (
    Groups,
    cheapest,
    check_renaming,
    margin,
    members,
    n_renamings,
    renamings,
)
from jaxgmm.labels._drawn import drawn_labels, one_hot, row_keys, sampled_labels
from jaxgmm.labels._relabel import clarity, data_based, directions, ecr, ordering, pivotal, stephens

__all__ = [
    "Groups",
    "cheapest",
    "check_renaming",
    "clarity",
    "data_based",
    "directions",
    "drawn_labels",
    "ecr",
    "margin",
    "members",
    "n_renamings",
    "one_hot",
    "ordering",
    "pivotal",
    "renamings",
    "row_keys",
    "sampled_labels",
    "stephens",
]
