"""The commands that a reader types.

A process of its own takes seconds to import torch. So a command runs in one where that can make a
difference, as the module and as the script, and else in this process.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from typer.testing import CliRunner, Result

from attnmem import Workload
from attnmem.__main__ import app
from attnmem.formulas import peak_bytes
from attnmem.measurement.calls import STEPS_RECORD
from attnmem.measurement.kinds import KINDS
from attnmem.measurement.records import CORPUS_RECORD, DATA, SHIPPED

SESSIONS = {"docs", "docs-live", "linkcheck", "tests", "lint", "measure", "bench", "wheels", "dist"}
SESSIONS |= {"clean", "translate"}
TERMINAL = {"NO_COLOR": "1", "COLUMNS": "200"}


def read(path: str) -> str:
    return (ROOT / path).read_text()


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=os.environ | TERMINAL,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def ask(*arguments: str) -> Result:
    """What ``python -m attnmem`` answers. A traceback would be the exit code 1."""
    return CliRunner(env=TERMINAL).invoke(app, arguments, prog_name="python -m attnmem")


def test_nox_explains_every_session_in_a_line():
    lines = re.findall(r"^[*-] ([\w-]+) -> (.+)$", run("nox", "-l").stdout, re.MULTILINE)
    assert {name for name, _ in lines} == SESSIONS


def test_readme_names_every_session():
    readme = (ROOT / "README.md").read_text()
    assert all(f"nox -s {name}" in readme for name in SESSIONS)


def test_a_mistyped_argument_is_answered_with_usage():
    done = run("nox", "-s", "clean", "--", "--al")
    assert done.returncode != 0
    assert "clean takes no arguments, got '--al'. Usage: nox -s clean" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_mistyped_session_is_named():
    done = run("nox", "-s", "doks")
    assert done.returncode != 0
    assert "doks" in done.stdout
    assert "Traceback" not in done.stdout


def test_the_package_explains_itself():
    done = ask("--help")
    assert done.exit_code == 0
    assert "measure" in done.output


def test_there_is_one_version_number():
    version = re.search(r'^__version__ = "(.*)"$', read("attnmem/__init__.py"), re.M)[1]
    assert f"\nversion: {version}\n" in read("CITATION.cff")
    latest, date = re.search(r"^## (\S+) \((.*)\)$", read("CHANGELOG.md"), re.M).groups()
    assert latest == version
    assert date == "unreleased" or f"\ndate-released: {date}\n" in read("CITATION.cff")


def test_the_module_answers_a_mistyped_command_with_usage():
    done = run("attnmem", "measre")
    assert done.returncode == 2
    assert "Usage: python -m attnmem" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "peak",
        "peak --seq-len 0",
        "peak --seq-len 9 --dtype int8",
        "peak --seq-len 9 --device tpu",
        "peak --seq-len 9 --program nothing",
        "max-seq-len --memory much",
        "max-seq-len --memory 1B",
        "measure --devise cpu",
        "measure --device tpu",
        "measure crpus",
        "measure steps --device cpu",
    ],
)
def test_a_mistyped_argument_of_the_package_is_answered_with_usage(line):
    done = ask(*line.split())
    assert done.exit_code == 2
    assert "Usage: python -m attnmem" in done.output


@pytest.mark.parametrize("arguments", [["corpus"], ["steps"], []])
def test_a_kind_of_record_goes_to_its_file(arguments, monkeypatch, tmp_path):
    made = []

    def make(device, output, show):
        made.append((device.type, output, list(show([1, 2], "Memory"))))
        return ["what failed"]

    name = (arguments or ["book"])[0]
    kind = KINDS[name]
    shipped = {"book": SHIPPED, "corpus": CORPUS_RECORD, "steps": STEPS_RECORD}[name]
    monkeypatch.setitem(KINDS, name, kind._replace(make=make, cuda=False))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["measure", *arguments, "--device", "cpu"])
    [(device, output, things)] = made
    assert done.exit_code == 1  # something failed, and is shown
    assert "what failed" in done.output
    assert (device, things) == ("cpu", [1, 2])
    assert DATA / kind.file.format(shipped.name.partition(".")[0]) == shipped
    assert output.parent == (DATA / kind.file).parent.relative_to(DATA)


def test_the_readme_s_python_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", read("README.md"), re.M | re.S)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    t = names["t"]
    assert sum(t.by_module.values()) == t.peak_bytes
    assert t.parameter_bytes > 0


def test_a_peak_is_predicted_from_a_shell():
    done = ask("peak", "--seq-len", "4096", "--training")
    assert done.exit_code == 0
    assert "temporary inside softmax backward" in done.stdout
    shape = Workload(batch=1, heads=12, seq_len=4096, head_dim=64, dtype=torch.float16)
    assert f"{peak_bytes(shape, training=True):,}" in done.stdout

    own = ["--program", "attnmem.programs:one_liner", "--dtype", "float32"]
    done = ask("peak", "--seq-len", "64", "--json", "--device", "cpu", *own)
    answer = json.loads(done.stdout)
    assert answer["peak_bytes"] == sum(answer["at_peak"].values())


def test_the_longest_sequence_is_predicted_from_a_shell():
    script = shutil.which("attnmem", path=Path(sys.executable).parent)
    fewer = subprocess.check_output([script, "max-seq-len", "--memory", "80GB"], text=True)
    more = ask("max-seq-len", "--memory", "80 GiB").stdout
    assert 40_000 < int(fewer) < int(more) < 42_500


def test_ci_and_the_workflow_run_the_readme_s_commands():
    first_block = (ROOT / "README.md").read_text().split("```")[1]
    commands = re.findall(r"^(python -m pip install nox && .*?)\s+#", first_block, re.MULTILINE)
    assert [command.split()[-1] for command in commands] == ["docs", "tests"]
    workflow = (ROOT / ".github" / "workflows" / "book.yml").read_text()
    assert all(f"run: {command}\n" in workflow for command in commands)
    assert f"{commands[1]}\n" in (ROOT / ".ci" / "run").read_text()
