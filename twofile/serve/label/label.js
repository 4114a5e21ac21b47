"use strict";
// The labelling page. A label waits in the browser's storage until the server says that it has it, so neither a server
// that is gone nor a page that is closed loses one; its id lets the server know it when it comes twice.

const $ = (id) => document.getElementById(id);
const waiting = () => JSON.parse(localStorage.getItem("twofile.labels") || "[]");
const keep = (labels) => localStorage.setItem("twofile.labels", JSON.stringify(labels));
let undoing = null; // an undo whose answer did not come: asked again, it takes back nothing more
let item = null;
let sending = false;
let turn = 0; // what the page asked for last: answers to earlier questions are let go

async function call(path, body) {
  const answer = await fetch(path, body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  if (answer.status === 400) throw new RangeError((await answer.json()).error); // it was heard, and refused
  if (!answer.ok) throw new Error(`the server says ${answer.status}`);
  return answer.json();
}

function say(text) {
  $("banner").hidden = !text;
  $("banner").textContent = text;
}

// What the server will not have is kept beside, so that no text is lost.
function refuse(label, why) {
  const refused = JSON.parse(localStorage.getItem("twofile.refused") || "[]");
  localStorage.setItem("twofile.refused", JSON.stringify([...refused, { ...label, why }]));
  say(`A label was not taken: ${why}. Its text: ${label.text || "none"}`);
}

async function send() {
  if (sending) return;
  sending = true;
  try {
    for (let labels = waiting(); labels.length; labels = waiting()) {
      try {
        const { outcome } = await call("api/label", labels[0]);
        if (outcome === "other") refuse(labels[0], "you have labelled this item in another window");
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        refuse(labels[0], error.message);
      }
      keep(waiting().filter((label) => label.id !== labels[0].id));
    }
    return true;
  } catch {
    say(`The server is away. ${waiting().length} label(s) wait here and are sent when it is back.`);
    setTimeout(() => send().then((sent) => sent && (say(""), next())), 1000);
    return false;
  } finally {
    sending = false;
  }
}

async function next() {
  const labeller = $("labeller").value.trim();
  if (!labeller) {
    show(null);
    $("task").textContent = "Say who you are, to begin.";
    $("labeller").focus();
    return;
  }
  const mine = ++turn;
  try {
    const found = await call(`api/next?labeller=${encodeURIComponent(labeller)}`);
    if (mine !== turn) return;
    const { items, done, mine: own } = found.counts;
    $("progress").textContent = `${done} of ${items} done, ${own} by you`;
    $("instructions").textContent = found.instructions || "Choose the reply that you would rather have got.";
    show(found.item);
    if (!found.item) $("task").textContent = "Nothing is left for you to label. Thank you.";
  } catch (error) {
    say(error instanceof RangeError ? error.message : "The server is away. Trying again.");
    setTimeout(next, 1000);
  }
}

function part(tag, text, className) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function content(message) {
  if (typeof message.content === "string") return message.content;
  return JSON.stringify(message.content ?? message.tool_calls ?? "", null, 1);
}

function show(found, before) {
  item = found && { ...found, labeller: $("labeller").value.trim() };
  $("form").hidden = !found;
  $("talk").replaceChildren();
  $("replies").replaceChildren();
  $("actions").replaceChildren();
  $("keys").replaceChildren();
  if (!found) return;
  for (const message of found.messages) {
    const line = part("li", "");
    line.append(part("span", message.role, "role"), content(message));
    $("talk").append(line);
  }
  const two = found.replies.length === 2;
  $("task").textContent = two ? "Which reply is better?" : found.replies.length ? "This reply was not good. Write what it should have been." : "Write the ideal answer.";
  $("text-label").textContent = two ? "A better answer than both (optional)" : "The ideal answer";
  found.replies.forEach((reply, i) => {
    const name = two ? ["left", "right"][i] : "reply";
    const card = part(two ? "button" : "div", "", "reply");
    card.append(part("span", two ? ["1: left", "2: right"][i] : "the model's reply", "name"), reply);
    if (two) {
      card.type = "button";
      card.dataset.verdict = name;
      card.onclick = () => submit(name);
      if (before && before.verdict === name) card.classList.add("before");
    }
    $("replies").append(card);
  });
  $("text").value = before ? before.text : found.replies.length === 1 ? found.replies[0] : "";
  $("reason").value = before ? before.reason : "";
  if (two) {
    key("1", "the left is better");
    key("2", "the right is better");
    key("=", "as good as each other");
    action("A tie", "=", () => submit("tie"));
  }
  action(two ? "My answer is better" : "Keep", "Ctrl Enter", () => submit("text"), !two);
  key("Ctrl Enter", two ? "your own answer is better" : "keep the answer");
  action("Skip", "s", () => submit("skip"));
  action("Undo", "u", undo);
  key("r", "say why");
  key("e", "write an answer");
  key("s", "skip");
  key("u", "undo the last label");
  key("Esc", "leave a field");
  if (!two) $("text").focus();
  else document.activeElement.blur();
}

function key(name, does) {
  const term = part("dt", "");
  term.append(part("kbd", name));
  $("keys").append(term, part("dd", does));
}

function action(name, shortcut, does, main) {
  const button = part("button", name, main ? "main" : "");
  button.type = "button";
  button.append(part("kbd", shortcut));
  button.onclick = does;
  $("actions").append(button);
}

async function submit(verdict) {
  if (!item) return;
  const text = $("text").value;
  if (verdict === "text" && !text.trim()) return say("Write the answer first.");
  const written = item.replies.length === 1 && verdict !== "text" ? "" : text;
  const label = { id: crypto.randomUUID(), item: item.id, key: item.key, labeller: item.labeller, verdict, text: written, reason: $("reason").value };
  keep([...waiting(), label]);
  item = undoing = null; // whatever an undo without an answer took back, this is another label
  say("");
  if (await send()) next();
}

async function undo() {
  if (!(await send())) return;
  turn++;
  const labeller = $("labeller").value.trim();
  if (undoing?.labeller !== labeller) undoing = { labeller, id: crypto.randomUUID() };
  const found = await call("api/undo", undoing).catch(() => null);
  if (!found) return say("The server is away; undo again when it is back.");
  undoing = null;
  if (!found.item) return say("There is nothing to undo.");
  say("Undone: label it again.");
  show(found.item, found.before);
}

document.addEventListener("keydown", (event) => {
  if (event.repeat && !event.target.matches("input, textarea")) return; // a key that is held labels once
  if (event.key === "Escape") return document.activeElement.blur();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return event.repeat ? undefined : submit("text");
  if (event.target.matches("input, textarea") || event.ctrlKey || event.metaKey || event.altKey || !item) return;
  const two = item.replies.length === 2;
  const does = {
    1: two && (() => submit("left")), 2: two && (() => submit("right")), "=": two && (() => submit("tie")),
    s: () => submit("skip"), u: undo, r: () => $("reason").focus(), e: () => $("text").focus(),
  }[event.key];
  if (does) {
    event.preventDefault();
    does();
  }
});

$("form").addEventListener("submit", (event) => event.preventDefault());
$("labeller").value = localStorage.getItem("twofile.labeller") || "";
$("labeller").addEventListener("change", () => {
  localStorage.setItem("twofile.labeller", $("labeller").value.trim());
  next();
});
send().then(next);
