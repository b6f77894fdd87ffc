"""A matplotlib figure that notebooks show without pyplot."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class Picture(Figure):
    """A figure on its own canvas, outside pyplot's global state.

    Parameters
    ----------
    width, height : float
        Inches.
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=90, facecolor="white", bbox_inches="tight")
        return buffer.getvalue()
