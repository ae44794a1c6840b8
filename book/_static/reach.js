/* The keyboard reaches what a pointer reaches, and stops at nothing else. */

/* What must be scrolled sideways. */
const boxes = new ResizeObserver((changed) =>
  changed.forEach(({ target }) => {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }),
);
document
  .querySelectorAll("article :is(pre, div.output, div.table-wrapper, div.math, div.math-wrapper)")
  .forEach((box) => boxes.observe(box));

/* The switches of the sidebars, which the theme draws as labels of hidden boxes. */
const shown = (all) => [...all].find((element) => element.checkVisibility());
for (const [name, drawer] of [
  ["__navigation", ".sidebar-drawer"],
  ["__toc", ".toc-drawer"],
]) {
  const box = document.getElementById(name);
  const icons = document.querySelectorAll(`.page label[for="${name}"] .icon`);
  const say = () => icons.forEach((icon) => (icon.ariaExpanded = box.checked));
  box.addEventListener("change", say);
  say();
  icons.forEach((icon) => {
    Object.assign(icon, { ariaLabel: box.ariaLabel, role: "button", tabIndex: 0 });
    icon.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      box.click();
      if (box.checked) shown(document.querySelectorAll(`${drawer} a`))?.focus();
    });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !box.checked) return;
    box.click();
    shown(icons)?.focus();
  });
}
