"""The programme of attacks, for a few seconds: ``benchmarks/attack.py`` says how to run all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ATTACK = Path(__file__).parents[1] / "benchmarks" / "attack.py"


@pytest.mark.skipif(sys.platform == "win32", reason="the programme limits memory as POSIX systems do")
def test_a_short_run_of_all_attacks_has_nothing_to_report() -> None:
    sizes = ["--frames", "300", "--files", "100", "--kills", "1", "--runs", "0", "--seed", "7"]
    done = subprocess.run([sys.executable, str(ATTACK), *sizes], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    *parts, verdict = done.stdout.splitlines()
    assert verdict == "nothing to report"
    said = {part["part"]: part for part in map(json.loads, parts)}
    assert said["hostile frames"]["attacks"] == 300
    assert said["hostile files of other formats"]["attacks"] == 100
    # An attack that everything is refused to, or nothing, tests little.
    assert 30 < said["hostile frames"]["outcomes"]["read"] < 270
    assert said["kills of compress"]["kills"] == 1


def test_what_an_attack_finds_is_reported(tmp_path: Path) -> None:
    said = tmp_path / "said"
    code = (
        f"import sys; sys.path[:0] = [{str(ATTACK.parent)!r}]\n"
        "from pathlib import Path\nfrom attacks.batches import attack_all\n"
        "def attack(n):\n    raise [ValueError('fine'), IndexError('beyond'), ValueError('two\\nlines')][n]\n"
        f"attack_all(attack, range(3), Path({str(said)!r}), (ValueError,))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    lines = [json.loads(line) for line in said.read_text().splitlines()]
    found = {line["at"]: line["found"] for line in lines if "found" in line}
    assert set(found) == {1, 2}
    assert found[1].startswith("IndexError: beyond")
    assert lines[-1]["done"]
