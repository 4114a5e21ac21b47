"""The command `twofile`: a table of commands, loaded when they are called, and one place where errors become words.

`twofile --help` imports click and this module, nothing else; a command's module is imported when it runs.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from importlib import import_module
from typing import Any

import click

from twofile import __version__
from twofile.errors import TwofileError

COMMANDS = {
    "chat": ("twofile.cli.chat", "Talk with a model, or let a base model continue your text."),
    "run": ("twofile.cli.run", "Complete one prompt and print the text."),
    "list": ("twofile.cli.models", "List the models on this machine."),
    "show": ("twofile.cli.show", "Show what a parameters file holds and where it comes from."),
    "corpus": ("twofile.cli.corpus", "Make a corpus of texts: filtered, without doubles, split, with a card."),
    "make": ("twofile.cli.make", "Follow a recipe of several steps, from data to a finished model."),
    "train": ("twofile.cli.train", "Make a parameters file from text."),
    "tune": ("twofile.cli.tune", "Teach a model to answer as conversations do."),
    "reward": ("twofile.cli.feedback", "Make a reward model of what people preferred."),
    "prefer": ("twofile.cli.feedback", "Teach a model what people preferred, from pairs (DPO)."),
    "reinforce": ("twofile.cli.feedback", "Teach a model by a reward for its own replies (PPO, GRPO, RLOO)."),
    "label": ("twofile.cli.label", "Choose, write and correct replies on a page, as training data."),
    "serve": ("twofile.cli.serve", "Serve models by the API that OpenAI's clients speak."),
    "report": ("twofile.cli.report", "Write a page about a training run, or a model's report card."),
    "merge": ("twofile.cli.merge", "Write a model with an adapter's changes in it."),
    "quantise": ("twofile.cli.quantise", "Write a smaller parameters file."),
    "import": ("twofile.cli.convert", "Make a parameters file of a Hugging Face folder or a llama2.c checkpoint."),
    "export": ("twofile.cli.convert", "Make a Hugging Face folder of a parameters file."),
    "pull": ("twofile.cli.models", "Download a parameters file from a hub."),
    "next": ("twofile.cli.look", "Show which tokens a model expects after a text."),
    "surprise": ("twofile.cli.look", "Show how much each token of a text surprises a model."),
    "dream": ("twofile.cli.look", "Let a model write documents from nothing."),
    "evaluate": ("twofile.cli.evaluate", "Measure what a model can do: tasks, and bits per byte."),
    "arena": ("twofile.cli.arena", "Compare models by their answers, and rate them."),
    "recall": ("twofile.cli.recall", "Measure how much of its training text a model repeats verbatim."),
    "compress": ("twofile.cli.compress", "Compress a file with a model."),
    "decompress": ("twofile.cli.compress", "Give back what was compressed."),
    "ps": ("twofile.cli.processes", "List the processes."),
    "top": ("twofile.cli.processes", "Watch the processes."),
    "context": ("twofile.cli.processes", "Show what is before the model of a process."),
    "maps": ("twofile.cli.processes", "Show the pages of a process, in the window or out of it."),
    "strace": ("twofile.cli.processes", "Show the calls of a process."),
    "kill": ("twofile.cli.processes", "End a process."),
    "fork": ("twofile.cli.processes", "Make a branch of a process."),
    "replay": ("twofile.cli.processes", "Show a process from its beginning."),
    "tools": ("twofile.cli.tools", "List the tools that a model can have, and what they may be granted."),
    "mcp": ("twofile.cli.tools", "Give tools and models to other programs, as an MCP server."),
    "errands": ("twofile.cli.errands", "Run tasks that take tools, in a small web that is served here."),
    "bench": ("twofile.cli.bench", "Measure how fast a model runs here."),
    "doctor": ("twofile.cli.doctor", "Check this machine: compiler, processor, memory, folders."),
}
"""Name of a command to its module, where it is called `<name>_command`, and to its short help."""


class _Commands(click.Group):
    """A group whose commands are known by name and loaded by need."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name][0]), f"{cmd_name}_command")
        if not any(parameter.name == "debug" for parameter in command.params):
            command.params.append(_debug_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            if not near:
                raise
            raise click.UsageError(f"there is no command {args[0]!r}; did you mean {near[0]!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])


def _debug_option() -> click.Option:
    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.find_root().obj["debug"] = True

    help_text = "Show a traceback with an error."
    return click.Option(["--debug"], is_flag=True, is_eager=True, expose_value=False, callback=remember, help=help_text)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    params=[_debug_option()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", message="twofile %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Make a language model, which is a file of parameters, and run it with one small program.

    NAME of a model is a path, a local name, a bundled name, or hf:user/repo[:file].
    """
    if ctx.invoked_subcommand is None:
        from twofile.cli.tour import tour

        tour()


def main(args: list[str] | None = None) -> None:
    """Run the command line and leave: 0 well, 1 with an error in words, 2 for a wrong call, 130 when interrupted."""
    state: dict[str, bool] = {}
    warnings.showwarning = _warn
    try:
        status = cli.main(args, prog_name="twofile", standalone_mode=False, obj=state)
        sys.stdout.flush()
    except click.exceptions.Abort:
        status = _say("stopped", code=130)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except BrokenPipeError:
        status = 1  # the reader has gone: nothing to say, and nobody to say it to
        _forget_output()
    except TwofileError as error:
        status = _say(f"error: {error.message}", error.hint)
        _trace(state)
    except MemoryError as error:
        status = _say(f"error: out of memory {error}".rstrip(), "a smaller model, or a shorter text")
        _trace(state)
    except OSError as error:
        status = _say(f"error: {error.filename or ''}: {error.strerror or error}".replace("error: :", "error:"))
        _trace(state)
    except Exception as error:
        if state.get("debug"):
            raise
        status = _say(
            f"error: {type(error).__name__}: {error}", "this is a fault of twofile; --debug shows where it is"
        )
    sys.exit(status if isinstance(status, int) else 0)


def _say(message: str, hint: str = "", code: int = 1) -> int:
    colour = "red" if message.startswith("error:") else None
    click.echo(click.style(message, fg=colour), err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    return code


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):  # the others speak to programmers
        click.echo(click.style(f"warning: {message}", fg="yellow"), err=True)


def _trace(state: dict[str, bool]) -> None:
    if state.get("debug"):
        traceback.print_exc()


def _forget_output() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot complain."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
