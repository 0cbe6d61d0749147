"""The command line: a file a verb. A verb reads its options, makes one call, and prints the result.

`creditbench --help` has to answer at once, and torch, jax, pandas and NumPy take seconds to import. So the
modules of this package import the packages below inside their functions, when a verb runs. Imports at the top
of a module are quick ones. `options` has the options that several verbs share, `printing` the functions that
print.

Exit status: 0 on success, 1 if a run found a failure, 2 on bad usage with one line on standard error, 130
after Ctrl-C.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

import creditbench
from creditbench.cli import (
    check,
    compare,
    doctor,
    export,
    figure,
    gradients,
    leaderboard,
    listing,
    new,
    options,
    perf_gate,
    run,
    scale,
    show,
    streams,
    table,
    tune,
    verify,
    versus,
)
from creditbench.errors import EXTRAS, UsageError, not_installed, reason

app = typer.Typer(
    name="creditbench",
    help="Benchmark of learning rules for recurrent networks, with and without backpropagation through time."
    "\n\n\b\nExamples:\n"
    "  creditbench list learners\n"
    "  creditbench run --task mackey_glass --learner bptt,anp --seeds 3 --preset smoke\n"
    "  creditbench table --results results/local --format markdown",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Rich takes longer to import than the rest of the command line.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _runs(name: str, verb: Callable[..., None]) -> Callable[..., None]:
    """A verb that runs trials or measures: it says what it needs on a system that cannot do so."""

    @functools.wraps(verb)
    def run_here(*arguments: Any, **given: Any) -> None:
        from creditbench.machine.posix import require_posix

        require_posix(f"creditbench {name}")
        verb(*arguments, **given)

    return run_here


app.add_typer(listing.app, name="list")
app.add_typer(show.app, name="show")
app.add_typer(new.app, name="new")
app.command("run")(_runs("run", run.run))
app.command("table")(table.table)
app.command("tune")(_runs("tune", tune.tune))
app.command("compare")(compare.compare)
app.command("versus")(versus.versus)
app.command("verify")(_runs("verify", verify.verify))
app.command("leaderboard")(leaderboard.leaderboard)
app.command("export")(export.export)
app.command("figure")(figure.figure)
app.command("scale")(_runs("scale", scale.scale))
app.command("gradients")(_runs("gradients", gradients.gradients))
app.command("check")(_runs("check", check.check))
app.command("doctor")(_runs("doctor", doctor.doctor))
app.command("perf-gate")(_runs("perf-gate", perf_gate.perf_gate))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"creditbench {creditbench.__version__}")
        raise typer.Exit()


@app.callback()
def _callback(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        if arguments is None:
            streams.prepare()
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except UsageError as error:
        return _usage(str(error))
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does.
        _drop_output()
        return 1
    except ModuleNotFoundError as error:
        _drop_output()
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        return _usage(str(not_installed("this", package)))
    except (OSError, MemoryError, ImportError) as error:
        # Errors about one file are usage errors already. This one is about the machine, whatever was running.
        _drop_output()
        place = f" '{error.filename}'" if isinstance(error, OSError) and error.filename else ""
        return _usage(
            f"the system refuses what is needed{place} ({type(error).__name__}: {reason(error)}): "
            "make room (disk, memory, open files), or mend the rights, and give the same command again"
        )


def _run(arguments: Sequence[str] | None) -> int:
    try:
        status = app(
            None if arguments is None else list(arguments), prog_name="creditbench", standalone_mode=False
        )
        return status if isinstance(status, int) else 0
    except Exception as error:
        # The usage errors of typer, whose class moved between its versions.
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)
            return 2
        return _usage(_spaced_values(error, sys.argv[1:] if arguments is None else arguments))


def _spaced_values(error: Any, words: Sequence[str]) -> str:
    """The message of an error of typer; of a value that a space parts from the others, how to write it."""
    message: str = error.format_message()
    extra = re.fullmatch(r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)", message)
    if extra is None or error.ctx is None:
        return message
    known = {name: option for option in error.ctx.command.params for name in option.opts}
    after = extra[1].split()
    for place in range(1, len(words)):
        name, equals, value = words[place - 1].partition("=")
        if not equals:
            name, value = words[place - 2] if place > 1 else "", words[place - 1]
        if words[place] != after[0] or name not in known:
            continue
        if known[name].multiple:
            return f"{after[0]!r} stands alone: give {name} again, as in {name} {value} {name} {after[0]}"
        if name.removeprefix("--") in options.LISTS:
            joined = ",".join([value.rstrip(","), *after])
            return f"{name} is {' '.join([value, *after])}: put commas between, as in {name} {joined}"
    return message


def _drop_output() -> None:
    """Discard the output that is still to be written, if standard output cannot take it."""
    try:
        sys.stdout.flush()
    except OSError:
        if streams.is_real(sys.stdout):
            streams.to_nowhere(1)


def _usage(message: str) -> int:
    message = str(UsageError(message))  # which keeps no more than the ends of a long name
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
