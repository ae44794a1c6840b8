/* Notes are open in the margin of a wide page, and fold into the text of a narrow one. */
const wide = matchMedia("(min-width: 75em)");
const fold = () =>
  document.querySelectorAll("details.margin").forEach((note) => (note.open = wide.matches));
wide.addEventListener("change", fold);
fold();
