"""Options: makes docs/options.md of JobConfig, or checks that it is up to date.

python -m docs.options           write it
python -m docs.options --check   exit with 1 when it is not what would be written
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from job.cli.options import default, usage
from job.config import JobConfig

PAGE = Path(__file__).with_suffix(".md")
_HEAD = """\
<!-- Made by `python -m docs.options` from job/config.py: edit that, not this. -->
# Options

`python -m job run` and `python -m job plan` take these. An option is given

- on the command line: `--batch-size 8`,
- in a YAML file for `--config FILE`: `batch_size: 8`; the command line goes before the file,
- in Python: `JobConfig(input=…, output=…, batch_size=8)`.

An unknown option, a value that an option does not take and two options that exclude each other are
refused before anything is read or written, with exit code 2.

| Option | Default | Meaning |
|---|---|---|
"""


def page() -> str:
    """What docs/options.md has to be."""
    return _HEAD + "".join(f"{row(name)}\n" for name in JobConfig.model_fields)


def row(name: str) -> str:
    """The row of the table for a field of JobConfig."""
    value, description = default(name), JobConfig.model_fields[name].description or ""
    cells = (f"`{usage(name)}`", f"`{value}`" if value else "", description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main(words: Sequence[str]) -> int:
    """Write the page, or check it; returns the exit code."""
    if list(words) not in ([], ["--check"]):
        print("usage: python -m docs.options [--check]", file=sys.stderr)
        return 2
    if not words:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    print("docs/options.md is out of date. Run: python -m docs.options", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
