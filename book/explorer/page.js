/* The case: what is chosen, in the fields and in the address. */

const root = document.getElementById("explore");
const form = root.querySelector("form");
const at = (name) => root.querySelector(`[data-show="${name}"]`);
const field = (name) => form.elements[name];

const CARDS = DATA.cards.map(
  ([name, memory, workspace, bandwidth, matrix, vector, special, refusals]) => ({
    name, memory: BigInt(memory), workspace: BigInt(workspace), bandwidth, matrix, vector, special,
    refusals,
  }),
);
const LIMITS = { B: 4096, H: 1024, G: 1024, N: 2 ** 20, d: 1024, layers: 1024 };
const CALLED = {
  B: "Batch", H: "Heads", G: "Heads of K and V", N: "Tokens", d: "Head dimension", layers: "Layers",
};
const STOPS = [1, 2];
while (STOPS.at(-1) < LIMITS.N) STOPS.push(1.5 * STOPS.at(-1), 2 * STOPS.at(-1));
const ROWS = 200; // of the table of events: only tiles have more
const CHOICES = ["program", "mode", "dtype", "card"];

/* The number in a field, or what is wrong with it. */
function numberIn(name) {
  const text = field(name).value.trim();
  const value = wholeNumber(text, LIMITS[name]);
  if (value) return [value, ""];
  const got = text === "" ? "" : ` Not “${text.slice(0, 20)}”.`;
  return [null, `${CALLED[name]}: a whole number from 1 to ${count(LIMITS[name])}.${got}`];
}

/* The case in the fields, and a message for each field that has none. */
function read() {
  const found = {};
  const wrong = {};
  for (const name of CHOICES) found[name] = field(name).value;
  for (const name of Object.keys(LIMITS)) [found[name], wrong[name]] = numberIn(name);
  if (found.H && found.G && found.H % found.G)
    wrong.G = `${CALLED.G}: a number that divides the ${found.H} heads.`;
  for (const [name, message] of Object.entries(wrong)) {
    if (message) field(name).setAttribute("aria-invalid", "true");
    else field(name).removeAttribute("aria-invalid");
    at(`wrong-${name}`).textContent = message;
  }
  const messages = Object.values(wrong).filter(Boolean);
  return messages.length ? { messages } : { given: found };
}

let shown = null;

/* The case as it stands in the address. */
function address(given) {
  const names = [...CHOICES, ...Object.keys(LIMITS)];
  return new URLSearchParams(names.map((name) => [name, given[name]])).toString();
}

/* What may be chosen: the options of a list, or those of its radio buttons. */
const choices = (name) => [...(field(name).options ?? field(name))].map(({ value }) => value);

/* Put the case of the address into the fields; what it does not say is as at first. What it says
   and this page does not have is returned. */
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("H") && !given.has("G")) given.set("G", given.get("H"));
  const right = ([name, value]) =>
    CHOICES.includes(name) ? choices(name).includes(value) : Object.hasOwn(LIMITS, name);
  const found = Object.fromEntries([...given].filter(right));
  for (const [name, value] of Object.entries({ ...AT_FIRST, ...found })) field(name).value = value;
  heads = field("H").value;
  return [...given].filter((pair) => !right(pair)).map((pair) => pair.join("="));
}

function update() {
  const { messages, given } = read();
  root.toggleAttribute("data-wrong", Boolean(messages));
  at("results").hidden = Boolean(messages);
  if (messages) {
    at("answer").replaceChildren();
    for (const message of messages) element(at("answer"), "p", {}, message);
    root.dataset.state = "wrong";
    shown = null;
    return;
  }
  const off = (stop) => Math.abs(stop - given.N);
  const nearest = STOPS.reduce((a, b) => (off(b) < off(a) ? b : a));
  form.elements.slider.value = STOPS.indexOf(nearest);
  form.elements.slider.setAttribute("aria-valuetext", tokens(given.N));
  const sizes = [given.layers, given.H, given.G, given.d].join();
  const like = DATA.models.filter(([, ...own]) => own.slice(0, 4).join() === sizes);
  const names = like.map(([name]) => name);
  if (!names.includes(field("model").value)) field("model").value = names[0] ?? "";
  shown = answer(given);
  show(shown);
  for (const pair of astray) {
    const text = `The address says “${pair.slice(0, 60)}”, which this page does not have.`;
    at("answer").prepend(element(at("answer"), "p", {}, text));
  }
  history.replaceState(null, "", `#${address(given)}`);
}

let ownLength = false; // whether the reader has chosen N

/* A preset: the sizes of a model, and its context if no length was chosen. */
function choose(name) {
  const [, layers, H, G, d, N] = DATA.models.find(([other]) => other === name);
  for (const [key, value] of Object.entries({ layers, H, G, d })) field(key).value = value;
  if (!ownLength) field("N").value = N;
}

for (const [name, options] of [
  ["program", Object.keys(DATA.programs)],
  ["card", CARDS.map((card) => card.name)],
  ["model", DATA.models.map(([model]) => model)],
])
  for (const option of options) element(field(name), "option", { value: option }, option);
for (const [i, card] of CARDS.entries())
  field("card").options[i].textContent = `${card.name}, ${gib(card)}`;
field("card").value = "RTX 4090";
form.elements.slider.max = STOPS.length - 1;

const AT_FIRST = Object.fromEntries(
  [...CHOICES, ...Object.keys(LIMITS)].map((name) => [name, field(name).value]),
);
let heads = field("H").value;
let astray = []; // what the address says and this page does not have

form.addEventListener("input", ({ target }) => {
  if (target.name === "slider") field("N").value = STOPS[target.value];
  if (target.name === "slider" || target.name === "N") ownLength = true;
  if (target.name === "model" && target.value) choose(target.value);
  if (target.name === "H" && field("G").value === heads) field("G").value = target.value;
  heads = field("H").value;
  astray = [];
  update();
});
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => {
  if (!location.hash.includes("=")) return;
  const followed = document.activeElement;
  const ofPrograms = at("programs").contains(followed);
  astray = readAddress();
  update();
  if (followed.isConnected) return; // else it was a link of an answer that is no more
  if (ofPrograms) at("programs").querySelector("[aria-current]").focus();
  else at("answer").focus();
});
new ResizeObserver(() => shown && !shown.refused && draw(shown)).observe(at("bars"));
if (location.hash.includes("=")) astray = readAddress();
root.hidden = false;
update();

/* For those who want numbers, and for the tests. */
window.explorer = {
  run, refusedOn, sizesOf, longest, leastSeconds, termsOf, formulaOf, CARDS, DATA,
};
