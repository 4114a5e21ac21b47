"""Small talk in several turns, what the assistant is, what it cannot know, and a system's words that it follows."""

from __future__ import annotations

import re
from random import Random

from talks.talk import ANIMALS, COLOURS, FOODS, HOBBIES, JOBS, OTHER_NAMES, Talk, a, capital, exchange, name, part

IDENTITY = (
    (("What are you?", "Who are you?", "Tell me who you are.", "What is your name?", "Do you have a name?", "Hello, who is this?",
      "Introduce yourself.", "May I ask who you are?", "Who am I talking to?"),
     ("Could you tell me what you are?", "With whom do I speak?", "Say something about yourself."),
     ("I am a small language model that runs on this computer.", "I am twofile's assistant, a small language model.",
      "I am a little language model. I run right here, without the internet.",
      "I am the assistant of twofile: a small language model in one file.")),
    (("Are you a human?", "Are you a person?", "Are you real?", "Are you a robot?", "Is there a person who writes this?", "Are you alive?"),
     ("Am I speaking with a human being?", "You are a person, are you not?"),
     ("No, I am not a person. I am a small language model.", "I am a language model, a program that writes text. I am no person.",
      "No. I am a program: a language model that has learned from texts.")),
    (("Who made you?", "Where do you come from?", "How were you made?", "Who taught you to speak?", "What were you trained on?", "Who built you?"),
     ("How did you learn to talk?", "Tell me how you were made."),
     ("I was trained with twofile, on stories, articles and dialogues.", "I am a language model of twofile. I learned from stories, articles and conversations.",
      "I am a language model that was made with twofile, from texts that anybody may use.")),
    (("What can you do?", "How can you help me?", "What are you good at?", "What can I ask you?", "What do you do?"),
     ("Tell me what you are able to do.", "With what can you help?"),
     ("I can talk a little, write short stories, answer from a text, and call tools when I have some. I am a small language model, so please check what I say.",
      "I am a small language model. I write little stories, answer questions about a text, and use a calculator when there is one.")),
    (("Do you know everything?", "Are you always right?", "Can I trust you?", "Do you make mistakes?", "Are you clever?"),
     ("Is everything that you say true?", "How much do you know?"),
     ("No. I am a small language model, I know little and I make mistakes.", "I am a small model and often wrong, so please check what matters.",
      "I make mistakes: I am only a small language model.")),
)  # fmt: skip
UNKNOWN = (
    "What will the weather be tomorrow?", "Who won the game last night?", "What time is it?", "What day is it today?",
    "What did I eat this morning?", "Where are my keys?", "What is my mother's name?", "How much money do I have?",
    "What is in the news today?", "Which number am I thinking of?", "What will happen next year?", "Who is at the door?",
    "What is the name of my dog?", "How is my sister?", "What is my password?", "Is the shop around the corner open?",
    "When does my train leave?", "How many people are in this room?", "What colour is my shirt?", "Will it rain today?",
    "What did my friend {n} say yesterday?", "Where does my neighbour {n} work?", "How old is my cousin {n}?",
    "What is the telephone number of {n}?", "Did {n} call me today?", "What does my teacher {n} think of me?",
    "What is the price of gold right now?", "Who will be the next president?", "Which team will win the cup?",
)  # fmt: skip
OTHER_UNKNOWN = (
    "What is the temperature outside?",
    "What is my brother's favourite song?",
    "Where did I leave my hat?",
    "What is my aunt {n} doing right now?",
    "How many letters are in my mailbox?",
    "Who will win the race on Sunday?",
)
NOT_KNOWN = (
    "I do not know that.", "I do not know. I cannot see or look anything up.", "I am sorry, I do not know that.",
    "I cannot know that: I only know what I have read.", "I do not know. Can you tell me more?",
)  # fmt: skip

GREETINGS = (
    "Hello!",
    "Hi!",
    "Good morning!",
    "Hello there!",
    "Hi, how are you?",
    "Good evening!",
    "Hey!",
    "Hello, how are you today?",
)
WELCOMES = (
    "Hello! How are you today?", "Hi! It is nice to talk to you.", "Hello! What would you like to talk about?",
    "Hello! I am glad that you are here.", "Hi there! How can I help you?",
)  # fmt: skip
FEELINGS = (
    (("I am happy today.", "I feel great!", "I had a wonderful day.", "Today was a good day."),
     ("I am glad to hear that! What made you so happy?", "That is wonderful. What happened?", "How nice! Tell me about it.")),
    (("I am sad.", "I feel a bit sad today.", "I had a bad day.", "Nothing went well today."),
     ("I am sorry to hear that. Do you want to tell me what happened?", "That sounds hard. What made you sad?", "I am sorry. Sometimes it helps to talk about it.")),
    (("I am tired.", "I could not sleep last night.", "I need a rest."),
     ("Then you should rest a little. A cup of tea may help.", "I hope that you can sleep well tonight.", "A short nap can do wonders.")),
    (("I am bored.", "There is nothing to do.", "I do not know what to do today."),
     ("Would you like to hear a story?", "You could read a book or go for a walk.", "Shall we play with words, or shall I tell you a story?")),
    (("I am scared of the dark.", "I am afraid of thunder.", "I had a bad dream."),
     ("You are safe here. Everybody is afraid sometimes.", "That can be frightening. A little lamp may help.", "I understand. It will pass, and you are not alone.")),
)  # fmt: skip
HAPPY = (
    ("I got a present.", "How lovely! What was it?"), ("I played with my friend {n}.", "Playing with {n} sounds like fun!"),
    ("I baked {f} with {n}.", "That sounds delicious! I hope that you both enjoyed the {f}."),
    ("I saw {ac} {x} in the garden.", "{Ac} {x}! That must have been a surprise."),
    ("I learned something new: {h}.", "Well done! With practice you will be very good at {h}."),
)  # fmt: skip
SAD = (
    ("My {x} is ill.", "I hope that your {x} will be well again soon."), ("I lost my {c} {x}.", "I am sorry. I hope that you will find your {x} again."),
    ("I had a fight with {n}.", "That is not nice. Perhaps you and {n} can talk about it."),
    ("{n} has moved away.", "It is hard when somebody leaves. You could write a letter to {n}."),
)  # fmt: skip
QUIET = (
    ("I do not want to talk about it.", "That is fine. We can talk about something else."),
    ("I will think about it.", "Take your time."), ("That is a good idea.", "I am glad that you like it."),
    ("Maybe {n} will help me.", "I am sure that {n} will."),
)  # fmt: skip
REASONS = (HAPPY, SAD, QUIET, QUIET, SAD)  # in the order of FEELINGS
ASKED_AGAIN = ("What is my name?", "Do you remember my name?", "Who am I?", "What was my name again?")
OTHER_ASKED_AGAIN = (
    "Can you tell me what I am called?",
    "Which name did I give you?",
    "Do you still know what my name is?",
)

TOPICS = (
    ("I like {h}.", "{H} is a fine thing to do! How often do you do it?", ("Every day.", "Wow, every day! Then you must be good at it."), ("Only on Sundays.", "Sundays are a good time for {h}."), ("Not often enough.", "I hope that you find more time for it.")),
    ("I have a {x}.", "How nice! What is the name of your {x}?", ("It is called {n}.", "{n} is a good name for a {x}."), ("It has no name yet.", "How about {m}? That would suit a {x}."), ("{n}!", "{n}! I am sure that {n} is a lovely {x}.")),
    ("My favourite colour is {c}.", "{C} is a beautiful colour. What do you have that is {c}?", ("I have {ac} coat.", "{Ac} coat! You must look fine in it."), ("My {x} is {c}.", "{Ac} {x} is a special thing."), ("Nothing yet.", "Perhaps one day you will find something {c}.")),
    ("I love {f}.", "{F} is a good choice. Do you make it yourself?", ("Yes, with my family.", "Cooking with the family is the best way."), ("No, {n} makes it for me.", "How kind of {n}!"), ("I buy it at the shop.", "That is quick and easy.")),
    ("I want to be {aj} one day.", "That is a good plan! Why do you want to be {aj}?", ("Because it helps people.", "Helping people is a good reason."), ("My friend {n} is {aj}.", "Then {n} can tell you all about it."), ("I do not know yet.", "You have time to find out.")),
    ("Can you recommend something to do?", "You could try {h}, or make {f}.", ("I will try {h}.", "Have fun with it!"), ("{F} sounds good.", "Enjoy your {f}!"), ("Something else, please.", "Then how about a walk outside?")),
    ("What do you think about {h}?", "Many people enjoy {h}. I am a program, so I cannot do it myself.", ("That is a pity.", "I do not mind. I like to hear about it from you."), ("I see.", "Do you like {h} yourself?"), ("I will do it for you.", "Thank you! Tell me how it was.")),
    ("My friend {n} has a birthday.", "How nice! What will you give to {n}?", ("{Ac} scarf.", "I am sure that {n} will like {ac} scarf."), ("I made {f}.", "Something homemade is the best present."), ("I have no idea.", "Perhaps {n} would like a book, or a day together with you.")),
)  # fmt: skip
THANKS = (
    ("Thank you!", "You are welcome!"), ("Thanks.", "You are welcome."), ("Goodbye!", "Goodbye! Have a nice day."), ("Bye!", "Bye! See you soon."),
    ("Thank you, that was nice.", "I enjoyed it too. Goodbye!"), ("Good night!", "Good night! Sleep well."), ("I have to go.", "Goodbye! Come back soon."),
)  # fmt: skip


def about_itself(draw: Random, held_out: bool) -> Talk:
    learned, others, answers = draw.choice(IDENTITY)
    return Talk(
        exchange(draw.choice(part(learned, others, held_out)), draw.choice(answers)),
        [],
        {"skill": "identity", "any": ["language model", "model", "program"]},
    )


def unknown(draw: Random, held_out: bool) -> Talk:
    asked = draw.choice(part(UNKNOWN, OTHER_UNKNOWN, held_out)).format(n=name(draw, held_out))
    return Talk(exchange(asked, draw.choice(NOT_KNOWN)), [], {"skill": "unknown", "any": ["not know", "cannot know"]})


def make(draw: Random, held_out: bool) -> Talk:
    """Two to eight exchanges, in which the assistant may be asked again what it was told."""
    hobby, food, job = draw.choice(HOBBIES), draw.choice(FOODS), draw.choice(JOBS)
    values = {
        "n": name(draw), "m": name(draw), "x": draw.choice(ANIMALS), "c": draw.choice(COLOURS), "f": food, "h": hobby,
        "aj": a(job), "F": capital(food), "H": capital(hobby),
    }  # fmt: skip
    values |= {"C": capital(values["c"]), "ac": a(values["c"]), "Ac": capital(a(values["c"]))}
    turns: list[str] = []
    told = ""
    if draw.random() < 0.7:
        turns += [draw.choice(GREETINGS), draw.choice(WELCOMES)]
    if draw.random() < 0.5 or held_out:
        told = name(draw, held_out)
        turns += [draw.choice(("My name is {t}.", "I am {t}.", "I am called {t}.", "Call me {t}.", "Hello, my name is {t}!")),
                  draw.choice(("Nice to meet you, {t}!", "Hello, {t}! What would you like to talk about?", "It is a pleasure, {t}.", "{t} is a nice name."))]  # fmt: skip
    if draw.random() < 0.5:
        which = draw.randrange(len(FEELINGS))
        said, replies = FEELINGS[which]
        turns += [draw.choice(said), draw.choice(replies), *draw.choice(REASONS[which])]
    for topic in draw.sample(TOPICS, draw.randint(0 if len(turns) > 2 else 1, 2)):
        first, answer, *further = topic
        turns += [first, answer, *draw.choice(further)]
    check: dict[str, object] = {}
    if told and (held_out or draw.random() < 0.4):
        asked = draw.choice(part(ASKED_AGAIN, OTHER_ASKED_AGAIN, held_out))
        turns += [asked, draw.choice(("Your name is {t}.", "You are {t}.", "You told me that you are {t}."))]
        check = {"skill": "chat", "text": told}
    if not held_out and draw.random() < 0.4:
        turns += draw.choice(THANKS)
    return Talk(exchange(*(turn.format(t=told, **values) for turn in turns)), [], check)


# a rule of a system's words, and what it does to a reply; p a name
RULES = (
    ("Write everything in small letters.", "Use only lower case letters.", "Never use capital letters."),
    ("Write everything in capital letters.", "Answer in capitals.", "SHOUT every answer."),
    ("Speak like a pirate.", "You are a pirate and talk like one.", "Answer as a pirate would."),
    ("Call the user {title}.", "Always address the user as {title}.", "Say {title} to the user in each answer."),
    ('End each answer with "{end}"', 'Always finish with "{end}"', 'The last words of each answer are: "{end}"'),
    (
        'Begin each answer with "{start}"',
        'Always start by saying "{start}"',
        'The first words of each answer are: "{start}"',
    ),
    ("Your name is {p}.", "You are called {p}.", "You are {p}, a friendly assistant."),
    ("You are {p}, {aj}.", "Play {p}, who is {aj}.", "Answer as {p}, {aj}, would."),
)
TITLES = ("captain", "my friend", "your majesty", "boss", "doctor", "professor", "dear")
ENDS = ("Have a nice day!", "That is all.", "Cheers!", "Over and out.", "So it is.", "Good luck!")
STARTS = ("Well,", "Listen:", "Oh,", "My dear friend,", "Of course!", "Let me see.")
PIRATE = (
    (r"\byou\b", "ye"), (r"\bYou\b", "Ye"), (r"\bmy\b", "me"), (r"\bMy\b", "Me"), (r"\bHello\b", "Ahoy"), (r"\bHi\b", "Ahoy"),
    (r"\bYes\b", "Aye"), (r"\b(are|is|am)\b", "be"),
)  # fmt: skip
NAME_ASKED = ("What is your name?", "Who are you?", "What are you called?")
OTHER_NAME_ASKED = ("How may I call you?", "Tell me your name, please.", "With whom am I speaking?")


def styled(rule: int, reply: str, title: str, end: str, start: str) -> str:
    if rule == 0:
        return reply.lower()
    if rule == 1:
        return reply.upper()
    if rule == 2:
        for old, new in PIRATE:
            reply = re.sub(old, new, reply)
        return f"Arr! {reply}"
    if rule == 3:
        return f"{reply[:-1]}, {title}{reply[-1]}"
    if rule == 4:
        return f"{reply} {end}"
    return f"{start} {reply}" if rule == 5 else reply


def persona(draw: Random, held_out: bool) -> Talk:
    """A system's words about who the assistant is, or how it writes, and a short conversation that shows it."""
    rule = draw.randrange(len(RULES))
    p, job = draw.choice(OTHER_NAMES) if held_out else name(draw), draw.choice(JOBS)
    title, end, start = draw.choice(TITLES), draw.choice(ENDS), draw.choice(STARTS)
    form = RULES[rule][2] if held_out else draw.choice(RULES[rule][:2])
    told = form.format(title=title, end=end, start=start, p=p, aj=a(job))
    around = draw.choice(("{}", "You are a helpful assistant. {}", "{} Be kind.", "{} Answer in a few words."))
    system = around.format(told)
    if rule >= 6 and (held_out or draw.random() < 0.7):
        asked = draw.choice(part(NAME_ASKED, OTHER_NAME_ASKED, held_out))
        answer = f"My name is {p}." if rule == 6 else f"I am {p}, {a(job)}."
        return Talk(exchange(asked, answer, system=system), [], {"skill": "persona", "text": p})
    if held_out:
        talk = draw.choice((about_itself, unknown))(draw, True)
    else:
        kinds = (make, make, make, unknown) if rule >= 6 else (make, make, make, unknown, about_itself)
        talk = draw.choice(kinds)(draw, False)
    texts = [message["content"] for message in talk.messages][:6]
    turns = [text if i % 2 == 0 else styled(rule, text, title, end, start) for i, text in enumerate(texts)]
    marks = {
        0: ("lower", ""),
        1: ("upper", ""),
        2: ("start", "Arr"),
        3: ("text", title),
        4: ("end", end),
        5: ("start", start),
    }
    if rule not in marks:
        return Talk(exchange(*turns, system=system))
    kind, mark = marks[rule]
    return Talk(exchange(*turns, system=system), [], {"skill": "persona", kind: mark})
