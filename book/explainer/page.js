/* The box: what is pasted and known, and the answer below it. */

const root = document.getElementById("explain");
const form = root.querySelector("form");
const at = (name) => root.querySelector(`[data-show="${name}"]`);
const CALLED = { heads: "Heads", seq_len: "Tokens", batch: "Batch", vocabulary: "Vocabulary" };
const MOST = 1e9;

const REFUSED = {
  none:
    "This is no message that we can read. One about memory says how much it tried to allocate: " +
    `${DATA.examples}.`,
  zero: "It tried to allocate 0 bytes: that is no message about memory.",
  type: "The type of its tensor is none that we know.",
};

/* The number in a field, null if it is empty; or what is wrong with it. */
function numberIn(name) {
  const text = form.elements[name].value.trim();
  if (!text) return [null, ""];
  const value = wholeNumber(text, MOST);
  if (value) return [value, ""];
  const got = text.slice(0, 20);
  return [null, `${CALLED[name]}: a whole number from 1 to ${count(MOST)}. Not “${got}”.`];
}

/* What the reader knows; null if a field is wrong. */
function readKnown() {
  const found = {};
  let right = true;
  for (const name of Object.keys(CALLED)) {
    const [value, wrong] = numberIn(name);
    found[name] = value;
    if (wrong) form.elements[name].setAttribute("aria-invalid", "true");
    else form.elements[name].removeAttribute("aria-invalid");
    at(`wrong-${name}`).textContent = wrong;
    if (wrong) right = false;
  }
  found.bytes = DATA.itemsize[form.elements.dtype.value] ?? null;
  return right ? found : null;
}

/* A line of an answer, where the address of a section is a link with its title. */
function lineInto(parent, line) {
  for (const part of line.split(/(what-to-do\.html#[\w-]+)/)) {
    const label = part.match(/^what-to-do\.html#(.+)/)?.[1];
    const link = label && document.querySelector(`#explain-cures a[href$="#${label}"]`);
    parent.append(link ? link.cloneNode(true) : part);
  }
}

let shown = "";
function show(state, lines) {
  const now = [state, ...lines].join("\n");
  if (now === shown) return; // what is the same need not be read out again
  shown = now;
  root.dataset.state = state;
  at("answer").replaceChildren();
  let list = null;
  for (const [i, line] of lines.entries()) {
    if (line.startsWith("- ")) {
      list ??= at("answer").appendChild(document.createElement("ul"));
      lineInto(list.appendChild(document.createElement("li")), line.slice(2));
    } else if (line.startsWith("  ")) {
      const li = list.lastElementChild;
      const inner = li.querySelector("ul") ?? li.appendChild(document.createElement("ul"));
      lineInto(inner.appendChild(document.createElement("li")), line.trim());
    } else {
      const paragraph = at("answer").appendChild(document.createElement("p"));
      const verdict = state !== "refused" && i === 1;
      lineInto(verdict ? paragraph.appendChild(document.createElement("strong")) : paragraph, line);
    }
  }
}

function update() {
  const known = readKnown();
  const text = form.elements.message.value;
  if (!text.trim() || !known) return show("", []);
  const found = explain(text, known);
  if (found.refused) return show("refused", [REFUSED[found.refused]]);
  show(found.answered ? "answered" : "nothing", found.lines);
}

form.addEventListener("input", update);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(update)); // the fields are empty after it
form.elements.example.addEventListener("click", () => {
  form.elements.message.value = DATA.message;
  update();
});
root.hidden = false;
update();

/* For the tests. */
window.explainer = { explain, printedSize };
