"""Fills a README's tables: `python -m research.report.readme README.md configs/results/v2.json [--check]`.

A result named v2 fills the place between `<!-- table:v2 -->` and `<!-- /table:v2 -->`. With --check nothing
is written and the exit code is 1 if the README differs from what its result files say.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from research.report.atomic import write_text
from research.report.tables import markdown_table


def replace_between_markers(text: str, name: str, table: str) -> str:
    """`text` with `table` between the markers of `name` (which stay); the same call again changes nothing.

    Raises ValueError if a marker is missing, doubled, or the closing one comes first.
    """
    opening, closing = f"<!-- table:{name} -->", f"<!-- /table:{name} -->"
    for marker in (opening, closing):
        count = text.count(marker)
        if count != 1:
            raise ValueError(f"the marker {marker} must stand exactly once, but stands {count} times")
        if marker in table:
            raise ValueError(f"the table itself holds the marker {marker}")
    before, rest = text.split(opening)
    if closing not in rest:
        raise ValueError(f"the marker {closing} must come after {opening}")
    _, after = rest.split(closing)
    return f"{before}{opening}\n{table.strip()}\n{closing}{after}"


def generated(text: str, results: Sequence[Path]) -> str:
    """`text` with the table of every result file in its place.

    Raises ValueError naming the file that is not JSON, lacks a field, or has no markers in `text`.
    """
    for path in results:
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            table = markdown_table(result)
            text = replace_between_markers(text, result["name"], table)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code: 0 done, 1 --check found a difference, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m research.report.readme", description=__doc__)
    parser.add_argument("readme", type=Path, help="the Markdown file that holds the markers")
    parser.add_argument("results", type=Path, nargs="+", help="result files; their `name` picks the markers")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file would change")
    options = parser.parse_args(arguments)
    try:
        old = options.readme.read_text(encoding="utf-8")
        new = generated(old, options.results)
        if new == old:
            return 0
        if options.check:
            files = " ".join(map(str, (options.readme, *options.results)))
            print(f"tables differ; run: python -m research.report.readme {files}", file=sys.stderr)
            return 1
        write_text(options.readme, new)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
