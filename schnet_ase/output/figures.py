"""Save figures to files, without a window and atomically."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from schnet_ase.output.files import FORMATS, atomic_write


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure in the format of the path's suffix, one of `FORMATS`, otherwise as PNG; atomically."""
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    suffix = path.suffix.lower()
    figure.savefig(content, format=suffix[1:] if suffix in FORMATS else "png", dpi=150)
    atomic_write(path, content.getvalue())
