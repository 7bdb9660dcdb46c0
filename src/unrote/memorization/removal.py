"""Closed-form leave-one-out (ALO): a head's logits for each example as if it had been trained without it.

One Newton step from the fitted parameters on the objective without example i; the Hessian without i is H less a
matrix of rank m, so Woodbury's formula gives the step from M_i alone (Rad and Maleki 2020, arXiv 1801.10243, for one
output; here for m = C - 1):

    z_-i = z_i + M_i (I - w_i Lambda_i M_i)^-1 w_i r_i          r = p - onehot(y), Lambda = diag p - pp'

For a least-squares head it is exact; for a softmax head the step is what Newton's method would start with.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrote.memorization.hessian import HeadData, residuals

MOST_LEVERAGE = 1 - 1e-6
"""An example that holds a direction of the parameters alone has leverage 1, and its removal no finite answer."""


def removal(
    leverage: Float[np.ndarray, "n m m"], data: HeadData, y: np.ndarray
) -> tuple[Float[np.ndarray, "n C"], int]:
    """What leaving each example out adds to its own logits (n, C), and for how many the leverage was cut.

    Args:
        leverage: M_i.
        data: the examples.
        y: (n,) labels.
    """
    w = data.w
    r = residuals(data.p, y)[:, 1:] * w[:, None]
    if data.m == 1:
        lever = leverage[:, 0, 0].clip(0)
        h = w * data.p[:, 0] * data.p[:, 1] * lever
        step = lever / (1 - h.clip(None, MOST_LEVERAGE)) * r[:, 0]
        change, cut = step[:, None], int((h > MOST_LEVERAGE).sum())
    else:
        change, cut = _blocks(leverage, data.p[:, 1:], r, w)
    full = np.concatenate([np.zeros((data.n, 1)), change], 1)
    return full - full.mean(1, keepdims=True), cut


def _blocks(
    leverage: Float[np.ndarray, "n m m"],
    p: Float[np.ndarray, "n m"],
    r: Float[np.ndarray, "n m"],
    w: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, "n m"], int]:
    """M (I - w Lambda M)^-1 r = R (I - w R' Lambda R)^-1 R' r with M = R R', which is symmetric."""
    root = _root(torch.from_numpy(leverage))
    q = torch.from_numpy(p)
    spread = (torch.diag_embed(q) - q.unsqueeze(2) * q.unsqueeze(1)) * torch.from_numpy(w).view(-1, 1, 1)
    seen = root.mT @ spread @ root
    left = torch.eye(p.shape[1], dtype=torch.float64) - seen
    right = root.mT @ torch.from_numpy(r).unsqueeze(2)
    # so that its smallest eigenvalue is safely above 0, else eigenvalues are cut one by one
    factor, info = torch.linalg.cholesky_ex(left - (1 - MOST_LEVERAGE) * torch.eye(p.shape[1]).double())
    hard = info > 0
    factor = torch.linalg.cholesky_ex(torch.where(hard.view(-1, 1, 1), torch.eye(p.shape[1]).double(), left))[
        0
    ]
    solved = torch.cholesky_solve(right, factor)
    if bool(hard.any()):
        values, vectors = torch.linalg.eigh(seen[hard])
        cut = vectors / (1 - values.clamp_max(MOST_LEVERAGE)).unsqueeze(1)
        solved[hard] = cut @ (vectors.mT @ right[hard])
    return (root @ solved).squeeze(2).numpy(), int(hard.sum())


def _root(matrices: Float[Tensor, "n m m"]) -> Float[Tensor, "n m m"]:
    """R with R R' = M of symmetric matrices that are positive up to rounding."""
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(matrices)
    bad = info > 0
    if bool(bad.any()):
        values, vectors = torch.linalg.eigh(matrices[bad])
        factor[bad] = vectors * values.clamp_min(0).sqrt().unsqueeze(1)
    return factor
