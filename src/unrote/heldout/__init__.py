"""Where held-out logits come from."""

from unrote.heldout.held_out import HeldOut
from unrote.heldout.kfold import kfold
from unrote.heldout.precomputed import precomputed
from unrote.heldout.xrm import XRMResult, xrm

__all__ = ["HeldOut", "XRMResult", "kfold", "precomputed", "xrm"]
