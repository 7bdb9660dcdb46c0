"""The paper's figures, one file each."""

from unrote.figures.base import FIGURES, Claim, FigureResult, FigureSource, NumberTable, register_figure

__all__ = ["FIGURES", "Claim", "FigureResult", "FigureSource", "NumberTable", "register_figure"]
