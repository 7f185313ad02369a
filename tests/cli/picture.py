"""Makes the README's picture of `baco demo`, on the tiny pair:

    python tests/cli/picture.py [FILE]

It is what the command prints, in hues for a dark ground.
"""

from __future__ import annotations

import re
import sys
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.terminal_theme import TerminalTheme

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from baco_integrations.cli.demo import DEFAULTS, show_demo  # noqa: E402
from baco_integrations.cli.display import SafeConsole  # noqa: E402

WIDTH = 84
GROUND = "#171614"
GREEN, RED, INK = (127, 209, 160), (255, 143, 133), (235, 232, 225)
THEME = TerminalTheme((23, 22, 20), INK, [INK, RED, GREEN, INK, INK, INK, INK, INK])
HUES = {"#d75f00": "#f0a264", "#0087d7": "#93bdf4"}
"""Lighter ones of the terminal's orange and blue, which have to do on any ground."""


def draw() -> str:
    out = SafeConsole(
        file=StringIO(), record=True, width=WIDTH, force_terminal=True, highlight=False,
        color_system="256", no_color=False, legacy_windows=False,
    )  # fmt: skip
    show_demo(DEFAULTS, out)
    # No font is fetched: the width of every piece of text is set.
    own = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    svg = out.export_svg(title="baco demo", theme=THEME, code_format=own, unique_id="demo")
    for terminal, picture in HUES.items():
        svg = svg.replace(terminal, picture)
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "cookbook" / "demo.svg"
    file.write_text(draw(), encoding="utf-8")
