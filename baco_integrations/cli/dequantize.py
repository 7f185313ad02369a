"""`baco dequantize`: a GGUF file saved as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import stoppable
from .options import given_settings, takes


@takes("dtype")
def dequantize(
    file: Annotated[str, typer.Argument(help="The file; on the hub, org/model:file.gguf.")],
    folder: Annotated[Path, typer.Argument(help="The folder to make.", show_default=False)],
    **given: Any,
) -> None:
    """Save a GGUF file as an ordinary folder, which loads faster.

    Its weights are dequantised to float32, unless --dtype says otherwise.
    """
    from .display import busy, console

    with busy("Starting"):
        from ..models.dequantize import dequantize as save
    with stoppable():
        made = save(file, folder, **given_settings(given, ("dtype",)))
    console().print(f"Saved {made}, to be given in the place of {file}.", soft_wrap=True)
