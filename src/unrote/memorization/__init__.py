"""What a model has memorized: one score per file, one call each.

Every score takes (model, X, y) and gives a `Score`: an (n,) array with its errors, if there are any, and its cost.
"""

from unrote.memorization.compare import Comparison, Kept, compare, noise_map
from unrote.memorization.curvature import curvature
from unrote.memorization.data_map import data_map
from unrote.memorization.dynamics import Dynamics, record_dynamics
from unrote.memorization.el2n import el2n
from unrote.memorization.forgetting import forgetting
from unrote.memorization.grand import grand
from unrote.memorization.held_out_gap import held_out_gap
from unrote.memorization.influence_matrix import influence_matrix, top_influencers
from unrote.memorization.network_influence import kfac_head, network_self_influence
from unrote.memorization.score import Cost, Score
from unrote.memorization.second_split_forgetting import second_split_forgetting
from unrote.memorization.self_influence import (
    least_squares_leave_one_out,
    leave_one_out,
    self_influence,
)
from unrote.memorization.subsampled import influence, subsampled
from unrote.memorization.tracin import tracin
from unrote.memorization.trak import trak
from unrote.memorization.validation import (
    detection_auc,
    leave_one_out_check,
    linear_datamodeling_score,
    rank_agreement,
)

__all__ = [
    "Comparison",
    "Cost",
    "Dynamics",
    "Kept",
    "Score",
    "compare",
    "curvature",
    "data_map",
    "detection_auc",
    "el2n",
    "forgetting",
    "grand",
    "held_out_gap",
    "influence",
    "influence_matrix",
    "kfac_head",
    "least_squares_leave_one_out",
    "leave_one_out",
    "leave_one_out_check",
    "linear_datamodeling_score",
    "network_self_influence",
    "noise_map",
    "rank_agreement",
    "record_dynamics",
    "second_split_forgetting",
    "self_influence",
    "subsampled",
    "top_influencers",
    "tracin",
    "trak",
]
