"""The command line's options, written down: what scripts of users rely on does not change unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from command_line import derain, derain_here
from derain.cli import app
from derain.cli.defaults import SETTABLE, options_of
from derain.cli.shared import OLD_OPTIONS

GOLDEN = Path(__file__).with_name("options.txt")
GROUP = typer.main.get_command(app)


def lines() -> list[str]:
    """COMMAND, its arguments and its options with the kind of value, a line each."""
    found = []
    for place, options in options_of(GROUP).items():
        command = GROUP
        for name in place:
            command = command.commands[name]
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                found.append(f"{' '.join(place)} {parameter.metavar or parameter.name.upper()}")
        for name, parameter in sorted(options.items()):
            names = ", ".join(sorted(parameter.opts + parameter.secondary_opts, key=lambda n: (-len(n), n)))
            kind = "" if parameter.is_flag else " VALUE"
            several = "..." if parameter.multiple else ""
            assert f"--{name}" in parameter.opts
            found.append(f"{' '.join(place)} {names}{kind}{several}")
    return found


def test_the_options_are_those_written_down() -> None:
    """After a change on purpose: python tests/cli/test_options.py"""
    assert lines() == GOLDEN.read_text("utf-8").splitlines()


def test_the_same_name_means_the_same() -> None:
    """Options of several commands have one kind of value and one short form."""
    kinds: dict[str, set[object]] = {}
    for options in options_of(GROUP).values():
        for name, parameter in options.items():
            if name != "keep":  # a time of `serve`, a flag of `adapt`
                kinds.setdefault(name, set()).add(parameter.is_flag)
    assert all(len(kind) == 1 for kind in kinds.values()), kinds
    for place, options in options_of(GROUP).items():
        assert {"quiet", "verbose"} <= set(options), place
        assert not {f"--{name}" for name in options} & set(OLD_OPTIONS)


def test_defaults_may_be_set_for_options_that_exist() -> None:
    known = {name for options in options_of(GROUP).values() for name in options}
    assert known >= SETTABLE
    assert not {"overwrite", "output", "resume", "token", "set", "json", "cluster"} & SETTABLE


def test_version_help_and_summaries() -> None:
    assert derain("--version").stdout.startswith("derain 0.")
    for arguments in (["-h"], ["data", "-h"], ["run", "-h"]):
        done = derain(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "..." not in done.stdout.partition("Commands:")[2]
    asked = {"_DERAIN_COMPLETE": "complete_bash", "COMP_WORDS": "derain ba", "COMP_CWORD": "1"}
    assert derain(variables=asked).stdout.split() == ["background"]


@pytest.mark.parametrize("wrong", ["rain", "run", "data", "info spanet --nonsense"])
def test_wrong_usage_exits_with_2(wrong: str) -> None:
    assert derain(*wrong.split()).returncode == 2


def test_a_picture_in_the_place_of_a_command_is_told_what_to_write() -> None:
    done = derain(__file__, "-o", "my photo.jpg")
    assert done.returncode == 2
    assert f"derain run {__file__} -o 'my photo.jpg'" in " ".join(done.stderr.split())


def test_a_number_is_not_read_as_another() -> None:
    for done in (
        derain("background", "clip.mp4", "--frames", "0-20", "-o", "a.png"),
        derain("background", "clip.mp4", "--frames=0-20", "-o", "a.png"),
        derain("run", "a.jpg", variables={"DERAIN_RUN_TILE": "0-20"}),
    ):
        assert done.returncode == 2
        assert "0-20: give a whole number" in done.stderr


@pytest.mark.parametrize(
    ("option", "given", "wanted"),
    [
        ("--strength", "0,7", "0,7: give a number from 0 to 1.5, with a point: 0.7"),
        ("--strength", "7", "7: give a number from 0 to 1.5"),
        ("--tile", "1,5", "1,5: give a whole number"),
        ("--threads", "0", "0: give a whole number of at least 1"),
        ("--jpeg-quality", "high", "high: give a whole number from 1 to 100"),
    ],
)
def test_numbers_that_are_none_are_told_which_are(option: str, given: str, wanted: str) -> None:
    done = derain_here("run", "a.jpg", option, given)
    assert done.returncode == 2
    assert f"'{option}': {wanted}" in " ".join(done.stderr.split())


def test_each_of_several_numbers_is_looked_at() -> None:
    done = derain_here("preview", "a.jpg", "--strength", "1", "--strength", "0,7")
    assert done.returncode == 2
    assert "0,7: give a number from 0 to 1.5, with a point: 0.7" in " ".join(done.stderr.split())


def test_help_has_no_words_of_python() -> None:
    for place in options_of(GROUP):
        assert "list[" not in derain_here(*place, "-h").stdout


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(lines()) + "\n", "utf-8")
