#!/usr/bin/env python3
"""Draws docs/demo.svg: the demonstration as it looks in a terminal.

    cargo build --release && docs/pictures.py target/release/bootsurgeon [SCENE…]

runs the demonstration's scenes (default: verify, refuse, swap) and writes what they print, with its colours, as an SVG that
is readable on a light and on a dark background. What differs from run to run (folders, ports, times) is written the same
each time, so that the picture changes only when the program does. An existing picture is replaced only with --force.
"""

import os
import re
import subprocess
import sys
from xml.sax.saxutils import escape

COLUMNS = 100
LINE = 19
MARGIN = 20
STYLE = """
text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2328;white-space:pre}
.page{fill:#f6f8fa}.good{fill:#1a7f37}.warn{fill:#9a6700}.bad{fill:#cf222e;font-weight:bold}.strong{font-weight:bold}.faint{fill:#59636e}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.good{fill:#3fb950}.warn{fill:#d29922}.bad{fill:#f85149}
.faint{fill:#9198a1}}
"""
CLASSES = {"32": "good", "33": "warn", "31;1": "bad", "1": "strong", "2": "faint"}


def run(program, scene):
    command = [program, "demo", "--scene", scene, "--color", "always", "--no-progress"]
    ran = subprocess.run(command, env={**os.environ, "COLUMNS": str(COLUMNS)}, capture_output=True, text=True, check=True)
    steps = ran.stdout.split("\n\n\x1b[32mProven")[0]
    return re.split(r"\n(?=\x1b\[32mProven|Proven)", steps)[0].rstrip("\n")


def the_same_each_time(text):
    text = re.sub(r"/tmp/bootsurgeon-\w+/", "", text)
    text = re.sub(r"http://127\.0\.0\.1:\d+", "https://factory.example", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "factory.example", text)
    text = re.sub(r"\.(bak|disabled)\.\d{10}", r".\1.1771000000", text)
    return re.sub(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ(?! )", "2026-02-13T16:26:40Z", text)


def lines(text):
    """Lines of (class, text), broken at the width of the terminal."""
    colour = ""
    for line in text.split("\n"):
        parts, column = [], 0
        for piece in re.split(r"(\x1b\[[0-9;]*m)", line):
            code = re.fullmatch(r"\x1b\[([0-9;]*)m", piece)
            if code:
                colour = CLASSES.get(code.group(1), "")
                continue
            while piece:
                room = COLUMNS - column
                parts.append((colour, piece[:room]))
                column += len(piece[:room])
                piece = piece[room:]
                if piece:
                    yield parts
                    parts, column = [], 0
        yield parts


def picture(text):
    body, y = [], MARGIN + 14
    for parts in lines(text):
        spans = "".join(f'<tspan class="{c}">{escape(t)}</tspan>' if c else escape(t) for c, t in parts)
        if spans:
            body.append(f'<text x="{MARGIN}" y="{y}">{spans}</text>')
        y += LINE
    width, height = MARGIN * 2 + COLUMNS * 8.43, y + MARGIN - 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}"'
        f' role="img" xml:space="preserve">\n<title>bootsurgeon demo</title>\n<style>{STYLE}</style>\n'
        f'<rect class="page" width="100%" height="100%" rx="8"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def main():
    words = [word for word in sys.argv[1:] if word != "--force"]
    if not words:
        sys.exit(__doc__)
    scenes = words[1:] or ["verify", "refuse", "swap"]
    text = "\n\n".join(run(words[0], scene) for scene in scenes)
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo.svg")
    with open(out, "w" if "--force" in sys.argv else "x", encoding="utf-8") as file:
        file.write(picture(the_same_each_time(text)))


main()
