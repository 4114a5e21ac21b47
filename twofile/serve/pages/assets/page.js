// What every page does by itself: the theme's button, shortcuts, copying, links that ask, and staying at the end of what
// grows. Elements say what they want by attributes: data-key, data-copy, data-target.

function pressed(event) {
  const parts = [];
  if (event.ctrlKey || event.metaKey) parts.push("ctrl");
  if (event.altKey) parts.push("alt");
  const plain = /^(Key|Digit)(.)$/.exec(event.code); // with Alt the sign is another one on some machines
  parts.push((event.altKey && plain ? plain[2] : event.key).toLowerCase());
  return parts.join("+");
}

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.isComposing || document.querySelector("dialog[open]")) return;
  const writing = event.target.closest("input, textarea, select");
  const keys = pressed(event);
  if (writing && !event.ctrlKey && !event.altKey && !event.metaKey) {
    if (keys !== "escape" || !event.target.closest(".composer")) return;
  }
  const within = keys === "ctrl+enter" ? event.target.closest(".editing") : document;
  const found = within ? [...within.querySelectorAll("[data-key]")].reverse() : []; // of a message's, the last one's
  const wanted = found.find((one) => one.dataset.key === keys && one.offsetParent);
  if (!wanted) return;
  event.preventDefault();
  if (wanted.matches("input, textarea, select")) wanted.focus();
  else wanted.click();
});

async function copied(button, text) {
  await navigator.clipboard.writeText(text);
  button.dataset.words ??= button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = button.dataset.words), 1500);
}

function ask(target) {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "link-asks");
  const inner = dialog.appendChild(document.createElement("div"));
  inner.className = "inner";
  const head = inner.appendChild(document.createElement("h2"));
  head.id = "link-asks";
  head.textContent = "Leave for this address?";
  const shown = inner.appendChild(document.createElement("code"));
  shown.className = "target";
  shown.textContent = target;
  const note = inner.appendChild(document.createElement("p"));
  note.textContent = "A model or a tool wrote it. What is in the address is told to whoever has it.";
  const row = inner.appendChild(document.createElement("div"));
  row.className = "row end";
  for (const [words, act] of [
    ["Stay", () => {}],
    ["Copy", () => navigator.clipboard.writeText(target)],
    ["Open", () => window.open(target, "_blank", "noopener,noreferrer")],
  ]) {
    const button = row.appendChild(document.createElement("button"));
    button.type = "button";
    button.className = "button";
    button.textContent = words;
    button.addEventListener("click", () => {
      act();
      dialog.close();
    });
  }
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button, a");
  if (!button) return;
  if (button.classList.contains("theme")) {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("theme", theme);
  } else if (button.dataset.target !== undefined) {
    if (/^(https?:|mailto:)/i.test(button.dataset.target)) ask(button.dataset.target);
  } else if (button.dataset.copy !== undefined) {
    const figure = button.closest("figure");
    copied(button, button.dataset.copy || (figure ? figure.querySelector("code").textContent : ""));
  } else if (button.dataset.compose !== undefined) {
    document.dispatchEvent(new CustomEvent("compose", { detail: button.dataset.compose }));
  } else if (button.classList.contains("toggle-list")) {
    document.body.classList.toggle("list-open");
  }
});

// A page that shows its end goes on showing it; one that was scrolled away stays where it is.
let following = true;
const end = () => document.querySelector(".talk");
document.addEventListener(
  "scroll",
  (event) => {
    const talk = end();
    if (talk && event.target === talk) following = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 80;
  },
  true,
);
const follow = () => {
  const talk = end();
  if (talk && following) talk.scrollTop = talk.scrollHeight;
};
document.addEventListener("grown", follow);
document.addEventListener("to-end", () => {
  following = true;
  requestAnimationFrame(follow);
});
new MutationObserver(() => requestAnimationFrame(follow)).observe(document.body, { childList: true, subtree: true });
