#!/usr/bin/env python3
"""Checks what rustfmt leaves alone in comments: their width, and that a doc comment makes sense by itself.

    python3 .ci/comments.py [PATH_PREFIX ...]

looks at the tracked Rust files whose path begins with one of the prefixes, at all of them without any.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# `max_width` of rustfmt.toml: stable rustfmt wraps no comments.
WIDTH = int(re.search(r"^max_width\s*=\s*(\d+)", (ROOT / "rustfmt.toml").read_text(), re.MULTILINE).group(1))

COMMENT = re.compile(r"\s*(///|//!|//)(?!/)\s?(.*)")
# A first line that says whose something is and not what it is.
NAMELESS = re.compile(r"(Of|Its|Their) |(The same|As above)\.?$")


def unbreakable(text):
    """Whether a comment cannot be wrapped: one word, perhaps as an item of a list, or a row of a table."""
    return text.startswith("|") or len(re.sub(r"^([-*]|\d+\.)\s+", "", text.strip()).split()) == 1


def problems(lines):
    """The number of a line and what is wrong with it, for the lines of one file."""
    previous = None
    for number, line in enumerate(lines, 1):
        found = COMMENT.match(line)
        marker, text = found.groups() if found else (None, "")
        if marker and len(line) > WIDTH and not unbreakable(text):
            yield number, f"comment line has {len(line)} characters"
        if marker in ("///", "//!") and marker != previous and NAMELESS.match(text):
            yield number, f"doc comment does not name what it describes: {text}"
        previous = marker


def main():
    prefixes = tuple(sys.argv[1:]) or ("",)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.rs"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    failed = False
    for file in filter(None, listed):
        if not file.startswith(prefixes):
            continue
        for number, problem in problems((ROOT / file).read_text().splitlines()):
            print(f"{file}:{number}: {problem}")
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
