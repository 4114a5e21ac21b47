"""`twofile reward`, `prefer` and `reinforce`: what people preferred, or a reward, in; a model that does better out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from twofile.cli.console import note
from twofile.cli.options import find, training_libraries
from twofile.cli.tuning import Asked, files, tuning_options

_MORE = click.FloatRange(0)


@click.command("reward")
@click.argument("name")
@click.argument("pairs", nargs=-1, required=True, type=files)
@tuning_options(batch=32, matrix_rate=0.002, vector_rate=0.001)
@click.option("--centre", type=_MORE, default=0.01, help="How strongly rewards are held around zero. [0.01]")
def reward_command(asked: Asked, pairs: tuple[Path, ...], centre: float) -> None:
    """Make a reward model of NAME from PAIRS: JSON lines of a prompt, a chosen and a rejected reply.

    It says how good a reply is, in numbers whose differences are the odds of being preferred; how well, on pairs held
    out, is printed.
    """
    with training_libraries():
        from twofile.train.feedback.learn import learn_rewards
        from twofile.train.feedback.reward import head
    learned = learn_rewards(asked.settings("reward", pairs, {"centre": centre}), asked.run, note)
    asked.finish(learned, head(learned.model))
    if learned.quality is not None:
        click.echo(learned.quality)


@click.command("prefer")
@click.argument("name")
@click.argument("pairs", nargs=-1, required=True, type=files)
@tuning_options(batch=32, matrix_rate=0.001, vector_rate=0.0003)
@click.option("--beta", type=_MORE, default=0.1, help="How strongly the model stays what it was. [0.1]")
@click.option("--doubt", type=click.FloatRange(0, 0.5), default=0.0, help="Share of pairs that are wrong. [0]")
def prefer_command(asked: Asked, pairs: tuple[Path, ...], beta: float, doubt: float) -> None:
    """Teach the model NAME to prefer the chosen replies of PAIRS, without a reward model (DPO)."""
    with training_libraries():
        from twofile.train.feedback.learn import prefer
    settings = asked.settings("dpo", pairs, {"beta": beta, "doubt": doubt})
    asked.finish(prefer(settings, asked.run, note))


@click.command("reinforce")
@click.argument("name")
@click.argument("prompts", nargs=-1, required=True, type=files)
@tuning_options(batch=32, matrix_rate=0.001, vector_rate=0.0003, validate_every=20)
@click.option("--reward", "judge", required=True, help="A reward model, or FILE.py:FUNCTION of your own.")
@click.option("--method", type=click.Choice(["ppo", "grpo", "rloo"]), default="grpo", help="How to learn. [grpo]")
@click.option("--group", type=click.IntRange(1), default=4, help="Replies to each prompt. [4]")
@click.option("--longest", type=click.IntRange(1), default=128, help="Tokens of a reply. [128]")
@click.option("--updates", type=click.IntRange(1), default=2, help="Steps from the same replies. [2]")
@click.option("--kl", type=_MORE, default=0.05, help="How dear it is to leave what the model was. [0.05]")
@click.option("--kl-target", type=_MORE, default=0.0, help="Nats a reply that ppo adapts --kl to; 0: leave it. [0]")
def reinforce_command(asked: Asked, prompts: tuple[Path, ...], judge: str, **options: Any) -> None:
    """Let the model NAME answer PROMPTS, and teach it to answer so that the reward is larger.

    The reward is a model of `twofile reward`, or a function of yours: FUNCTION(messages, reply, row) gives a number;
    row is the prompt's line. --batch counts replies.
    """
    with training_libraries():
        from twofile.train.feedback.judges import of_model, of_program
        from twofile.train.feedback.learn import reinforce
    if options["kl_target"] and options["method"] != "ppo":
        note("--kl-target is ignored: it is for ppo")
    path, _, function = judge.rpartition(":")
    judge_file = Path(path) if path.endswith(".py") else find(judge)
    settings = asked.settings(
        options["method"],
        prompts,
        {**options, "function": function if path.endswith(".py") else ""},
        {"judge": judge_file},
    )
    reward = of_program(judge_file, function) if path.endswith(".py") else of_model(judge_file, asked.base)
    asked.finish(reinforce(settings, asked.run, reward, note))
