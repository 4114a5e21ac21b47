"""Questions about a given text: a person and what is true of them, in a few sentences of many forms; sometimes the text
does not say."""

from __future__ import annotations

from random import Random

from talks.talk import ANIMALS, COLOURS, FOODS, HOBBIES, JOBS, PLACES, Talk, a, capital, exchange, name

# of each fact: how a text says it, how one asks, how it is answered, what the answer must have
FACTS = {
    "place": (
        ("{n} lives in {v}.", "{n}'s home is in {v}.", "For many years {n} has lived in {v}.", "{n} grew up in {v} and still lives there."),
        ("Where does {n} live?", "In what kind of place does {n} live?", "Where is {n}'s home?"),
        ("{n} lives in {v}.",),
    ),
    "job": (
        ("{n} works as {av}.", "{n} is {av}.", "{n} earns money as {av}.", "Everybody knows that {n} is {av}."),
        ("What does {n} do for a living?", "What is {n}'s job?", "What does {n} work as?"),
        ("{n} is {av}.", "{n} works as {av}."),
    ),
    "food": (
        ("{n} likes {v} most of all.", "{n}'s favourite food is {v}.", "There is nothing that {n} would rather eat than {v}.", "On Sundays {n} always eats {v}."),
        ("What is {n}'s favourite food?", "What does {n} like to eat?", "Which food does {n} love?"),
        ("{n} likes {v}.", "{n}'s favourite food is {v}."),
    ),
    "hobby": (
        ("In the evening {n} enjoys {v}.", "{n} loves {v}.", "When there is time, {n} spends it on {v}.", "{n} is very good at {v}."),
        ("What does {n} enjoy?", "What is {n}'s hobby?", "What does {n} like to do?"),
        ("{n} loves {v}.", "{n} enjoys {v}."),
    ),
    "pet": (
        ("{n} has {av}.", "{n} takes care of {av}.", "{av} belongs to {n}.", "{n} found {av} last spring and kept it."),
        ("What animal does {n} have?", "Which pet does {n} have?", "What kind of pet belongs to {n}?"),
        ("{n} has {av}.",),
    ),
    "friend": (
        ("{n}'s best friend is {v}.", "{n} and {v} are best friends.", "{n} plays with {v} every day.", "{n} trusts {v} more than anybody else."),
        ("Who is {n}'s best friend?", "Who is a friend of {n}?", "Whom does {n} like best?"),
        ("{n}'s best friend is {v}.", "{v} is."),
    ),
    "coat": (
        ("{n} always wears {av} coat.", "{n}'s coat is {v}.", "You can see {n} from far away in {av} coat.", "Last winter {n} bought {av} coat."),
        ("What colour is {n}'s coat?", "Which colour does {n}'s coat have?", "What is the colour of the coat that {n} wears?"),
        ("{n}'s coat is {v}.", "It is {v}."),
    ),
    "age": (
        ("{n} is {v} years old.", "{n} turned {v} last week.", "Next year {n} will not be {v} any more, but now that is {n}'s age."),
        ("How old is {n}?", "What is {n}'s age?", "How many years old is {n}?"),
        ("{n} is {v} years old.", "{v} years."),
    ),
    "fear": (
        ("{n} is afraid of {v}.", "Nothing frightens {n} but {v}.", "{n} runs away from {v}."),
        ("What is {n} afraid of?", "What frightens {n}?", "What does {n} run away from?"),
        ("{n} is afraid of {v}.",),
    ),
    "dream": (
        ("One day {n} wants to {v}.", "{n} dreams of this: to {v}.", "More than anything {n} wants to {v}."),
        ("What does {n} want to do one day?", "What is {n}'s dream?", "What does {n} dream of?"),
        ("{n} wants to {v}.",),
    ),
}  # fmt: skip
VALUES = {
    "place": PLACES, "job": JOBS, "food": FOODS, "hobby": HOBBIES, "coat": COLOURS,
    "fear": ("thunder", "spiders", "the dark", "dogs", "deep water", "snakes", "ghosts", "loud noises", "mice", "heights"),
    "dream": (
        "see the ocean", "fly a plane", "write a book", "build a boat", "climb a mountain", "open a shop", "learn to sing",
        "travel around the world", "plant a forest", "win a race", "meet a king", "ride an elephant",
    ),
}  # fmt: skip
FRAMES = (
    "{text}\n\n{question}", "Read this: {text}\n\n{question}", "Here is a text.\n\n{text}\n\n{question}",
    "{question}\n\n{text}", "Text: {text}\nQuestion: {question}", "{text} {question}",
    "Please read the text and answer.\n\n{text}\n\n{question}",
)  # fmt: skip
OTHER_FRAMES = (
    "I have a question about this text: {text}\n\n{question}",
    "Answer from the passage.\n\nPassage: {text}\n\n{question}",
    "This is what I know. {text} Now tell me: {question}",
)
SILENT = ["does not say", "not in the text", "does not tell", "not say"]
MISSING = ("The text does not say.", "That is not in the text.", "The text does not say that.")


def value(draw: Random, kind: str) -> str:
    if kind == "pet":
        return f"{draw.choice(COLOURS)} {draw.choice(ANIMALS)}"
    if kind == "age":
        return str(draw.randint(4, 90))
    return name(draw) if kind == "friend" else draw.choice(VALUES[kind])


def make(draw: Random, held_out: bool) -> Talk:
    people = [name(draw, held_out)]
    if draw.random() < 0.4:
        people.append(next(other for other in iter(lambda: name(draw), "") if other != people[0]))
    true: dict[tuple[str, str], str] = {}
    sentences = []
    for person in people:
        for kind in draw.sample(sorted(FACTS), draw.randint(2, 5 if len(people) == 1 else 3)):
            v = value(draw, kind)
            while kind == "friend" and v in people:
                v = value(draw, kind)
            said = draw.choice(FACTS[kind][0]).format(n=person, v=v, av=a(v) if v[0].islower() else v)
            sentences.append((person, capital(said)))
            true[person, kind] = v
    if draw.random() < 0.4:
        draw.shuffle(sentences)
    text = " ".join(said for _, said in sentences)
    if draw.random() < 0.3:
        text = f"{capital(draw.choice(('this is a short text about', 'let me tell you about', 'these lines are about')))} {' and '.join(people)}. {text}"
    person = draw.choice(people)
    absent = [kind for kind in FACTS if (person, kind) not in true]
    turns: list[str] = []
    check: dict[str, object] = {}
    for turn in range(1 if held_out or draw.random() < 0.7 else 2):
        missing = draw.random() < 0.15
        kind = draw.choice(absent) if missing else draw.choice([k for p, k in true if p == person])
        asked = draw.choice(FACTS[kind][1]).format(n=person)
        v = true.get((person, kind), "")
        answer = draw.choice(MISSING) if missing else draw.choice(FACTS[kind][2]).format(n=person, v=v, av=a(v))
        frame = draw.choice(OTHER_FRAMES if held_out else FRAMES)
        turns += [frame.format(text=text, question=asked) if turn == 0 else asked, capital(answer)]
        check = {"skill": "passages", **({"any": SILENT} if missing else {"text": v})}
    return Talk(exchange(*turns), [], check)
