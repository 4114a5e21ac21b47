"""Sums, in figures and in words. With a calculator the assistant uses it; without one it works out small ones itself."""

from __future__ import annotations

import re
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

# what stories end with, and how their answers are said: of [one|another] one is drawn
HOW_MANY = "[How many {t} does {n} have now?|How many {t} does {n} have then?|How many {t} has {n} in all?|How many {t} is that?|How many are there now?|What is the number of {t} now?|How many {t} are there altogether?|How many does {n} have in total?|Count the {t} of {n}.]"
LEFT = "[How many {t} are left?|How many are left?|How many {t} does {n} have left?|How many {t} remain?|How many does {n} have now?|How many {t} does {n} keep?|What is left?|How many {t} has {n} then?|How many {t} are still there?|How many {t} does {n} have in the end?]"
IN_ALL = "[How many {t} are there?|How many {t} are there altogether?|How many {t} is that?|What is the number of {t}?|How many {t} are that in total?|How many {t} do they make?|How many {t} do we count?]"
EACH = "[How many {t} does each of them get?|How many {t} does everyone get?|How many does each get?|How many {t} are there for each?|How many {t} does every one of them have then?|How many {t} go to each of them?|What does each of them get?]"
PRICE = "[How much is that?|How much does {n} pay?|What does {n} pay?|How much money does {n} need?|How many dollars is that?|What is the price?|How much does that cost?|What does that make in dollars?|How many dollars does {n} spend?]"
BOTH = "[How much is it altogether?|What do they cost together?|How much does {n} pay for both?|How many dollars are they together?|What is the price of both?|How much money is that in all?|What is the sum?|How much does {n} spend in total?]"
MORE = "[{n} has {r} {t} now.|{n} has {r} {t}.|There are {r} {t}.|That is {r} {t}.|That makes {r} {t}.]"
LESS = "[{r} {t} are left.|{n} has {r} {t} left.|There are {r} {t} left.|{r} {t} remain.]"
DOLLARS = "[That is {r} dollars.|It is {r} dollars.|{n} pays {r} dollars.|That makes {r} dollars.]"
BOUGHT = "[bread|cheese|a ball|a book|a lamp|a cake|milk|a kite|shoes|a drum|a cup|a chair|a bag|a toy|jam|a clock]"
# a story, its expression, how the answer is said
STORIES = (
    ("{n} [has|had|keeps|holds|carries] {a} {t}[ and| and then|. Then {n}|, and later {n}] [gets|buys|finds|makes|picks up|is given|wins|borrows] {b} more. " + HOW_MANY, "{a} + {b}", MORE),
    ("{n} [has|had] {a} {t}[ and {m}|. {m}|, and {m}] [gives|gave|brings|sends|hands] [{n}|{n} another|{n} some more:] {b}. " + HOW_MANY, "{a} + {b}", MORE),
    ("{n} has {a} {t}[, {m} has|, and {m} has|. {m} has|, while {m} has] {b}. [How many do they have together?|How many {t} have they together?|How many {t} are that in all?|How many {t} do the two have?]", "{a} + {b}", "[Together they have {r} {t}.|They have {r} {t}.]"),
    ("{n} [picked|found|sold|counted|made|bought] {a} {t} [in the morning|on Monday|yesterday|first|in May] and {b} [in the evening|on Tuesday|today|later|in June]. [How many in all?|How many {t} is that?|How many {t} were that in total?|How many {t} altogether?|What is the sum?]", "{a} + {b}", "[{n} had {r} {t} in all.|That is {r} {t}.|That makes {r} {t}.]"),
    ("[There are|There were|In a box are|On the table lie|In the garden are] {a} {t}. [Then|Now|Later] {b} more [are brought|come|are put there|are added]. [How many are there now?|How many {t} are there then?|How many {t} is that?]", "{a} + {b}", "There are {r} {t}."),
    ("{b} more {t} are [laid beside|added to|put with] {a} {t}. [How many {t} lie there then?|How many are there?|How many {t} is that?]", "{a} + {b}", "There are {r} {t}."),
    ("First {n} [counts|sees|finds|takes] {a} {t}, then {b} more. [How many does {n} count altogether?|How many {t} is that?|How many {t} are that together?]", "{a} + {b}", "That is {r} {t}."),
    ("{n} [bakes|makes|draws|has] {a} {t}, and {m} {b} more than that. [How many does {m} have?|How many {t} has {m}?]", "{a} + {b}", "{m} has {r} {t}."),
    ("{n} [walks|runs|rides|drives] {e} miles on [Monday|Friday|the first day] and {f} miles on [Tuesday|Saturday|the second day]. [How far is that?|How many miles is that?|How far does {n} go in all?]", "{e} + {f}", "That is {r} miles."),
    ("{n} is {e} years old. [How old will {n} be in {c} years?|What will be the age of {n} in {c} years?|How old is {n} after {c} more years?]", "{e} + {c}", "{n} will be {r} years old."),
    ("{n} [buys|bought|wants|gets] " + BOUGHT + " for {e} dollars and " + BOUGHT + " for {f} dollars. " + BOTH, "{e} + {f}", DOLLARS),
    ("{n} [spends|spent|paid] {e} dollars [on|for] " + BOUGHT + " and {f} dollars [on|for] " + BOUGHT + ". " + BOTH, "{e} + {f}", DOLLARS),
    ("[The first|One] thing costs {e} dollars[, the other one| and the other| and the second] {f} dollars. " + BOTH, "{e} + {f}", DOLLARS),
    (BOUGHT + " costs {e} dollars[ and| and|,] " + BOUGHT + " costs {f} dollars. " + BOTH, "{e} + {f}", DOLLARS),
    ("{m} gives {n} {e} dollars for [the milk|the bread|work] and {f} dollars for [the eggs|the jam|help]. [How much money is that in all?|How much does {n} get?|How many dollars has {n} then?]", "{e} + {f}", "That is {r} dollars."),
    ("{n} [had|has|started with|began with] {a} {t}[ and|. Then {n}|, but then {n}|. Later {n}] [gave away|used up|sold|ate|threw away|broke|spent|dropped] {b}[| of them]. " + LEFT, "{a} - {b}", LESS),
    ("{n} [had|has] {a} {t} and [gives|gave|sells|sent] {b} [of them to {m}|to {m}]. " + LEFT, "{a} - {b}", LESS),
    ("[{m}|A friend|A thief|The dog] took {b} of the {a} {t} [of {n}|that {n} had|that belong to {n}]. " + LEFT, "{a} - {b}", LESS),
    ("[Of|From|Out of] {a} {t}, {n} [sells|eats|gives away|uses|breaks] {b}. " + LEFT, "{a} - {b}", LESS),
    ("{n} [drops|throws] {b} of {a} {t} into the [water|river|sea]. " + LEFT, "{a} - {b}", LESS),
    ("[There are|There were|In a shop there were|In a box there are] {a} {t}. {b} [were sold|are taken away|fell down|were eaten|are broken|disappear]. [How many are still there?|How many {t} are left?|How many remain?|How many {t} are there now?]", "{a} - {b}", "[{r} {t} are left.|There are {r} {t} left.]"),
    ("{b} of {a} {t} [broke|fell down|were sold|were taken|were bad|flew away]. [How many {t} are left?|How many are still there?|How many {t} remain?]", "{a} - {b}", "{r} {t} are left."),
    ("{a} [birds|children|people|dogs|cows] are [in the garden|at school|on the field|in the street]. {b} [go away|go home|leave|run off]. [How many stay?|How many are still there?|How many are left?|How many remain?]", "{a} - {b}", "{r} are left."),
    ("{n} [had|has] {a} dollars and [spent|spends|paid|gives away] {b}[| of them| dollars]. [How much money does {n} still have?|How many dollars are left?|How much money is left?|How much has {n} now?]", "{a} - {b}", "{n} has {r} dollars left."),
    ("{n} [wants|needs|must bring] {a} {t} and has only {b}. [How many are missing?|How many more does {n} need?|How many {t} does {n} still need?]", "{a} - {b}", "{r} {t} are missing."),
    ("A book has {a} pages. {n} has read {b}. [How many pages are left to read?|How many pages are left?|How many pages has {n} still to read?]", "{a} - {b}", "{r} pages are left."),
    ("{n} has {a} {t}, {m} has {b}. [How many more does {n} have?|How many {t} more has {n}?|What is the difference?]", "{a} - {b}", "{n} has {r} {t} more."),
    ("There were {a} {t}, then {b} more came, and then {c} were [lost|sold|eaten|taken away]. [How many are there?|How many {t} are there now?]", "{a} + {b} - {c}", "There are {r} {t}."),
    ("[There are|I see|{n} has|{n} fills|We need|{n} buys] {c} [bags|baskets|bowls|cases|drawers|packets|jars] with {a} {t} in [each|each of them|every one]. " + IN_ALL, "{c} * {a}", "There are {r} {t}."),
    ("{c} [shelves|tables|bags|baskets|people|sisters|jars|cars] [carry|have|hold|get] {a} {t} each. " + IN_ALL, "{c} * {a}", "There are {r} {t}."),
    ("In [each|every one] of {c} [rooms|bags|baskets|houses|drawers] [there are|lie|are] {a} {t}. " + IN_ALL, "{c} * {a}", "There are {r} {t}."),
    ("[Each|Every one] of {c} [sisters|friends|farmers|people|cooks] [has|gets|buys|carries|sells|makes] {a} {t}. " + IN_ALL, "{c} * {a}", "There are {r} {t}."),
    ("{n} [packs|puts] {a} {t} into [each|every one] of {c} [bags|baskets|cases|jars]. " + IN_ALL, "{c} * {a}", "There are {r} {t}."),
    ("A [box|bag|basket|jar] holds {e} {t}. [How many {t} do {c} of them hold?|How many {t} are in {c} of them?|How many {t} go into {c} of them?]", "{c} * {e}", "They hold {r} {t}."),
    ("{n} [reads|writes] {e} pages [a day|every day]. [How many pages is that in {c} days?|How many pages are that after {c} days?]", "{e} * {c}", "That is {r} pages."),
    ("{n} [saves|gets|spends|earns] {e} dollars [every week|a week|each day|every month]. How much is that [after|in] {c} [weeks|days|months]?", "{e} * {c}", "That is {r} dollars."),
    ("A [train|car|ship] goes {a} miles in an hour. [How far does it go in {c} hours?|How many miles is that in {c} hours?]", "{a} * {c}", "It goes {r} miles."),
    ("There are {e} rows of {f} [chairs|trees|seats|plants]. [How many are there?|How many are that?|How many are there in all?]", "{e} * {f}", "There are {r}."),
    ("{n} has {a} {t}. {m} has {c} times as many. [How many does {m} have?|How many {t} has {m}?]", "{a} * {c}", "{m} has {r} {t}."),
    ("{n} buys {c} {t} for {e} dollars each. " + PRICE, "{c} * {e}", DOLLARS),
    ("[One cup|One ball|One ticket|One book|One lamp|One cake] [costs|is] {e} dollars. {n} [wants|buys|takes|needs] {c}[| of them]. " + PRICE, "{e} * {c}", DOLLARS),
    ("[A ticket|A lamp|A cup|A book|A chair|A cake] [costs|is] {e} dollars. [What do|How much do|How many dollars do] {c} [of them|of these|such things] cost?", "{e} * {c}", "They cost {r} dollars."),
    ("The price of [a ball|a kite|a cup|a ticket] is {e} dollars. [What is the price of {c}?|How much are {c} of them?|What do {c} of them cost?]", "{e} * {c}", "{c} cost {r} dollars."),
    ("For {e} dollars one gets [a cake|a ball|a ticket]. [How many dollars are {c}?|How much are {c} of them?|What does one pay for {c}?]", "{e} * {c}", "They are {r} dollars."),
    ("{n} [shares|divides|splits] {d} {t} [equally |fairly |]between {c} [friends|neighbours|sisters|brothers|people|cats]. " + EACH, "{d} / {c}", "Each gets {r} {t}."),
    ("{c} [sisters|brothers|friends|people|neighbours] [split|share|divide] {d} {t}[ fairly| equally|]. " + EACH, "{d} / {c}", "Each gets {r} {t}."),
    ("There are {d} {t} for {c} [people|friends|sisters|rooms|tables]. " + EACH, "{d} / {c}", "Each gets {r} {t}."),
    ("{d} {t} are [put into|packed into|divided among] {c} [boxes|bags|baskets|cases], the same number in each. [How many are in a box?|How many {t} are in each?|How many does each hold?]", "{d} / {c}", "{r} {t} are in each."),
    ("{n} has {d} {t} and {c} [baskets|bags|sisters|neighbours]. Each [of them gets|is given|has to get] the same. " + EACH, "{d} / {c}", "Each gets {r} {t}."),
    ("{n} [pays|paid] {d} dollars for {c} {t}. [What does one of them cost?|How much is one?|What is the price of one?]", "{d} / {c}", "One is {r} dollars."),
    ("{n} and {m} found {d} {t} and each takes half. [How many does {n} take?|How many {t} are that for each?]", "{d} / 2", "{n} takes {r} {t}."),
)  # fmt: skip
CHOICE = re.compile(r"\[([^\[\]]*)\]")
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
    story, done = (CHOICE.sub(lambda found: draw.choice(found[1].split("|")), text) for text in (story, done))
    while float(calculate(expression.format(**values))) < 2:  # fewer than none, and words for one
        values = figures(draw, small)
    n, m = name(draw, held_out), name(draw, held_out)
    while m == n:
        m = name(draw, held_out)
    words = {"n": n, "m": m, "t": draw.choice(part(THINGS, OTHER_THINGS, held_out)), **values}
    return (
        capital(story.format(**words)),
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
