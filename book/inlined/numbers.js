/* Whole numbers as readers write them, and as they read them. */

const WHOLE = new Intl.NumberFormat("en");
const count = (number) => WHOLE.format(number);

/* The number in a text, from 1 to the most; or null. */
function wholeNumber(text, most) {
  const grouped = /^\d{1,3}([, \u00a0]\d{3})+$/.test(text);
  const [, digits, k] = /^(\d+)(k?)$/i.exec(grouped ? text.replace(/\D/g, "") : text) ?? [];
  const value = Number(digits) * (k ? 1024 : 1); // 32k tokens are 32,768
  return digits && value >= 1 && value <= most ? value : null;
}
