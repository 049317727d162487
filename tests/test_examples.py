"""Every example runs, small, with warnings as errors."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLES = sorted((pathlib.Path(__file__).parents[1] / "examples").glob("*.py"))


# The others need half a minute each.
FAST = ("iris", "three_coins")


@pytest.mark.parametrize(
    "path",
    [pytest.param(e, marks=[pytest.mark.slow] * (e.stem not in FAST)) for e in EXAMPLES],
    ids=lambda path: path.stem,
)
def test_example(path, tmp_path):
    result = subprocess.run(
        [sys.executable, "-W", "error", str(path), "--small"],
        cwd=tmp_path,
        # What they print does not depend on how hard XLA tries, how long they take does.
        env={**os.environ, "MPLBACKEND": "agg", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_every_example_is_listed():
    page = (EXAMPLES[0].parents[1] / "docs" / "examples.md").read_text()
    listed = re.findall(r"^\| \[`(\w+)\.py`\]\(examples/\1\.md\) \|", page, re.MULTILINE)
    assert sorted(listed) == [e.stem for e in EXAMPLES]
