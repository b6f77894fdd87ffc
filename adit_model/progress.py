"""Progress bars: widgets in notebooks that have them, text elsewhere."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # tqdm's advice where a notebook has no widgets
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
