"""Sums, in figures and in words. With a calculator the assistant uses it; without one it works out small ones itself."""

from __future__ import annotations

from random import Random

from talks.talk import OTHER_THINGS, THINGS, Talk, capital, exchange, name, part
from talks.tools import CALCULATOR, calculate, call, some

ASKED = (
    "What is {x}?", "What's {x}?", "How much is {x}?", "Calculate {x}.", "Please calculate {x}.", "Can you work out {x}?",
    "Work out {x}, please.", "Compute {x}.", "I need to know {x}.", "Tell me {x}.", "Could you tell me {x}?", "{X}?",
    "{X} = ?", "Find {x}.", "Do you know {x}?", "Help me with this sum: {x}.", "My homework asks for {x}.",
    "What do I get for {x}?", "What does {x} make?", "Quick, {x}!", "I wonder what {x} is.", "Let us see: {x}?",
    "Hello! What is {x}?", "{X}, please.", "What is the result of {x}?", "I have to solve {x}.", "Can you do {x}?",
    "Please tell me what {x} is.", "And how much is {x}?", "Say what {x} is.", "Solve this for me: {x}",
)  # fmt: skip
OTHER_ASKED = (
    "Would you figure out {x} for me?", "Give me {x}.", "I am trying to find {x}. Can you help?", "Please solve {x}.",
    "My teacher wants to know {x}.", "Could you calculate {x}, please?", "Hi, do you know how much {x} is?",
    "What is the answer to {x}?",
)  # fmt: skip

# what is said, and the expression; a figure is a letter
FORMS = (
    ("{a} + {b}", "{a} + {b}"), ("{a} plus {b}", "{a} + {b}"), ("the sum of {a} and {b}", "{a} + {b}"),
    ("{a} added to {b}", "{a} + {b}"), ("{a} and {b} together", "{a} + {b}"),
    ("{a} - {b}", "{a} - {b}"), ("{a} minus {b}", "{a} - {b}"), ("{a} take away {b}", "{a} - {b}"),
    ("the difference between {a} and {b}", "{a} - {b}"), ("{a} less {b}", "{a} - {b}"),
    ("{a} * {c}", "{a} * {c}"), ("{a} times {c}", "{a} * {c}"), ("{a} x {c}", "{a} * {c}"),
    ("the product of {a} and {c}", "{a} * {c}"), ("{a} multiplied by {c}", "{a} * {c}"),
    ("{d} / {c}", "{d} / {c}"), ("{d} divided by {c}", "{d} / {c}"), ("{d} shared by {c}", "{d} / {c}"),
    ("{a} + {b} + {c}", "{a} + {b} + {c}"), ("{a} + {b} - {c}", "{a} + {b} - {c}"),
    ("{a} * {c} + {b}", "{a} * {c} + {b}"), ("({a} + {b}) * {c}", "({a} + {b}) * {c}"),
    ("{a} plus {b} plus {c}", "{a} + {b} + {c}"), ("{a} - {b} - {c}", "{a} - {b} - {c}"),
    ("{c} percent of {a}", "{c} / 100 * {a}"), ("{c}% of {a}", "{c} / 100 * {a}"),
    ("{a} squared", "{a} * {a}"), ("twice {a}", "2 * {a}"), ("half of {a}", "{a} / 2"), ("{a} doubled", "2 * {a}"),
)  # fmt: skip

# a story, its expression, how the answer is said
STORIES = (
    ("{n} has {a} {t} and gets {b} more. How many {t} does {n} have now?", "{a} + {b}", "{n} has {r} {t} now."),
    ("{n} had {a} {t} and gave {b} of them to {m}. How many {t} are left?", "{a} - {b}", "{r} {t} are left."),
    ("There are {c} bags with {a} {t} in each. How many {t} are there?", "{c} * {a}", "There are {r} {t}."),
    ("{n} shares {d} {t} among {c} friends. How many does each of them get?", "{d} / {c}", "Each of them gets {r} {t}."),
    ("{n} buys {c} {t} for {e} dollars each. How much does {n} pay?", "{c} * {e}", "{n} pays {r} dollars."),
    ("{n} is {e} years old. How old will {n} be in {c} years?", "{e} + {c}", "{n} will be {r} years old."),
    ("{n} has {a} {t}, {m} has {b}. How many do they have together?", "{a} + {b}", "Together they have {r} {t}."),
    ("A box holds {e} {t}. How many {t} do {c} boxes hold?", "{c} * {e}", "They hold {r} {t}."),
    ("In a shop there were {a} {t}. {b} were sold. How many are still there?", "{a} - {b}", "{r} {t} are still there."),
    ("{n} reads {e} pages a day. How many pages is that in {c} days?", "{e} * {c}", "That is {r} pages."),
    ("{n} walks {e} miles on Monday and {f} miles on Tuesday. How far is that?", "{e} + {f}", "That is {r} miles."),
    ("A train goes {a} miles in an hour. How far does it go in {c} hours?", "{a} * {c}", "It goes {r} miles."),
    ("{n} had {a} dollars and spent {b}. How much money does {n} still have?", "{a} - {b}", "{n} still has {r} dollars."),
    ("{d} {t} are put into {c} boxes, the same number in each. How many are in a box?", "{d} / {c}", "{r} {t} are in a box."),
    ("{n} picked {a} {t} in the morning and {b} in the evening. How many in all?", "{a} + {b}", "{n} picked {r} {t} in all."),
    ("There are {e} rows of {f} chairs. How many chairs are there?", "{e} * {f}", "There are {r} chairs."),
    ("{n} wants {a} {t} and has only {b}. How many are missing?", "{a} - {b}", "{r} {t} are missing."),
    ("A ticket costs {e} dollars. What do {c} tickets cost?", "{e} * {c}", "They cost {r} dollars."),
    ("{n} and {m} found {d} {t} and each takes half. How many does {n} take?", "{d} / 2", "{n} takes {r} {t}."),
    ("{n} bakes {a} cakes, and {m} bakes {b} more than that. How many does {m} bake?", "{a} + {b}", "{m} bakes {r} cakes."),
    ("{n} has {a} {t}. {m} has {c} times as many. How many does {m} have?", "{a} * {c}", "{m} has {r} {t}."),
    ("{a} birds sit in a tree. {b} fly away. How many birds are in the tree now?", "{a} - {b}", "{r} birds are in the tree."),
    ("{n} saves {e} dollars every week. How much is that after {c} weeks?", "{e} * {c}", "That is {r} dollars."),
    ("A book has {a} pages. {n} has read {b}. How many pages are left to read?", "{a} - {b}", "{r} pages are left."),
    ("There were {a} {t}, then {b} more came, and then {c} were lost. How many are there?", "{a} + {b} - {c}", "There are {r} {t}."),
    ("{n} buys bread for {e} dollars and cheese for {f} dollars. What is the price of both?", "{e} + {f}", "Both cost {r} dollars."),
    ("{n} keeps {a} {t} in a box and puts in {b} more. How many {t} does the box hold?", "{a} + {b}", "The box holds {r} {t}."),
    ("{n} found {a} {t}, and {m} gave {n} another {b}. How many {t} is that?", "{a} + {b}", "That is {r} {t}."),
    ("{b} more {t} are laid beside {a} {t}. How many {t} lie there then?", "{a} + {b}", "{r} {t} lie there."),
    ("First {n} counts {a} {t}, then {b} more. How many does {n} count altogether?", "{a} + {b}", "{n} counts {r} {t} altogether."),
    ("{n} spent {e} dollars on shoes and {f} dollars on a bag. How much did {n} spend altogether?", "{e} + {f}", "{n} spent {r} dollars altogether."),
    ("A kite is {e} dollars, a drum is {f} dollars. What does {n} pay for the two?", "{e} + {f}", "{n} pays {r} dollars for the two."),
    ("A chair costs {e} dollars and a lamp costs {f} dollars. How much are they together?", "{e} + {f}", "Together they are {r} dollars."),
    ("{m} gives {n} {e} dollars for the milk and {f} dollars for the eggs. How much money is that in all?", "{e} + {f}", "That is {r} dollars in all."),
    ("{n} had {a} {t}. Then {b} of them broke. How many {t} are not broken?", "{a} - {b}", "{r} {t} are not broken."),
    ("Of {a} {t}, {n} sells {b}. How many {t} does {n} keep?", "{a} - {b}", "{n} keeps {r} {t}."),
    ("{n} drops {b} of {a} {t} into the water. How many {t} remain?", "{a} - {b}", "{r} {t} remain."),
    ("{a} children are at school, but {b} go home. How many children stay?", "{a} - {b}", "{r} children stay."),
    ("{m} took {b} of the {a} {t} that {n} had. How many does {n} have left?", "{a} - {b}", "{n} has {r} {t} left."),
    ("{n} started with {a} {t} and used up {b}. How many {t} does {n} have at the end?", "{a} - {b}", "{n} has {r} {t} at the end."),
    ("{c} shelves carry {a} {t} each. How many {t} are on the shelves?", "{c} * {a}", "{r} {t} are on the shelves."),
    ("In each of {c} rooms there are {a} {t}. What is the number of {t}?", "{c} * {a}", "There are {r} {t}."),
    ("{n} fills {c} baskets, every one with {a} {t}. How many {t} does {n} need?", "{c} * {a}", "{n} needs {r} {t}."),
    ("One cup costs {e} dollars. {n} wants {c} cups. What is the price?", "{e} * {c}", "The price is {r} dollars."),
    ("The price of a ball is {e} dollars. How much money do {c} balls cost?", "{e} * {c}", "{c} balls cost {r} dollars."),
    ("For {e} dollars one gets a cake. How many dollars are {c} cakes?", "{e} * {c}", "They are {r} dollars."),
    ("{n} divides {d} {t} equally between {c} neighbours. How many {t} does one neighbour get?", "{d} / {c}", "One neighbour gets {r} {t}."),
    ("{c} sisters split {d} {t} fairly. How many are there for each sister?", "{d} / {c}", "There are {r} {t} for each sister."),
    ("There are {d} {t} for {c} people. How many can every person have?", "{d} / {c}", "Every person can have {r} {t}."),
)  # fmt: skip
OTHER_STORIES = (
    ("{n} owns {a} {t} and receives {b} more. How many {t} are there then?", "{a} + {b}", ""),
    ("{n} had {a} {t}, but lost {b} of them. How many {t} does {n} still have?", "{a} - {b}", ""),
    ("{c} boxes have {a} {t} in each. How many {t} is that in all?", "{c} * {a}", ""),
    ("{d} {t} are shared among {c} children. How many does each child get?", "{d} / {c}", ""),
    ("{n} pays {e} dollars for a hat and {f} dollars for a coat. How much is that together?", "{e} + {f}", ""),
    ("A pen costs {e} dollars. How much do {c} pens cost?", "{e} * {c}", ""),
    ("{n} collected {a} {t} last week and {b} this week. How many {t} has {n} collected?", "{a} + {b}", ""),
    ("{b} of the {a} {t} of {n} are gone. How many {t} can {n} still find?", "{a} - {b}", ""),
    ("Every one of {c} guests brings {a} {t}. How many {t} do the guests bring?", "{c} * {a}", ""),
    ("{n} wants to give {d} {t} to {c} friends, the same to each. How many does a friend receive?", "{d} / {c}", ""),
)
DONE = ("{X} is {r}.", "The answer is {r}.", "That makes {r}.", "It is {r}.", "{r}.", "The result is {r}.")
FIGURES = "abcdef"


def figures(draw: Random, small: bool) -> dict[str, int]:
    """a > b + 1, all of them 2 or more, for things of which there is one want other words; c small; d a multiple of c, and even; e, f of two digits."""
    most = 9 if small else draw.choice((20, 100, 100, 1000, 10000))
    a, b = sorted((draw.randint(4, most), draw.randint(2, most)), reverse=True)
    c = draw.randint(2, 5 if small else 12)
    d = c * 2 * draw.randint(1, 4 if small else max(4, most // 4))
    e, f = draw.randint(2, 9 if small else 99), draw.randint(2, 9 if small else 99)
    return {"a": a + 2 * (a - b < 2), "b": b, "c": c, "d": d, "e": e, "f": f}


def question(draw: Random, held_out: bool, small: bool = False) -> tuple[str, str, str]:
    """What is asked, the expression, and the answer with {r} in it."""
    values = figures(draw, small)
    if draw.random() < 0.5:
        form, expression = draw.choice(FORMS)
        x = form.format(**values)
        asked = draw.choice(part(ASKED, OTHER_ASKED, held_out)).format(x=x, X=capital(x))
        return asked, expression.format(**values), draw.choice(DONE).replace("{X}", capital(x))
    story, expression, done = draw.choice(OTHER_STORIES if held_out else STORIES)
    while float(calculate(expression.format(**values))) < 2:  # fewer than none, and words for one
        values = figures(draw, small)
    n, m = name(draw, held_out), name(draw, held_out)
    while m == n:
        m = name(draw, held_out)
    words = {"n": n, "m": m, "t": draw.choice(part(THINGS, OTHER_THINGS, held_out)), **values}
    return (
        story.format(**words),
        expression.format(**words),
        done.replace("{r}", "\0").format(**words).replace("\0", "{r}"),
    )


def make(draw: Random, held_out: bool) -> Talk:
    """With the calculator."""
    asked, expression, done = question(draw, held_out)
    result = calculate(expression)
    reply = {"role": "assistant", "content": done.replace("{r}", result)}
    messages = [*exchange(asked), call(CALCULATOR, expression), {"role": "tool", "content": result}, reply]
    if not held_out and draw.random() < 0.15:  # and another one
        again, expression, done = question(draw, False)
        result = calculate(expression)
        reply = {"role": "assistant", "content": done.replace("{r}", result)}
        messages += [*exchange(again), call(CALCULATOR, expression), {"role": "tool", "content": result}, reply]
    return Talk(messages, some(draw, CALCULATOR), {"skill": "sums", "number": calculate(expression)})


def alone(draw: Random, held_out: bool) -> Talk:
    """Small ones, without a calculator."""
    asked, expression, done = question(draw, held_out, small=True)
    result = calculate(expression)
    return Talk(exchange(asked, done.replace("{r}", result)), [], {"skill": "sums", "number": result})
