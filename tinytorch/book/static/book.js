// Keyboard access to what scrolls: a code cell, an output or a table wider than the screen can be focused, then moved
// with the arrow keys. Only while it overflows, so that nobody has to tab through all the others.


const SCROLLABLE = ".bd-article :is(pre, .output, .pst-scrollable-table-container, mjx-container)";

function update(element) {
  const scrolls = /auto|scroll/.test(getComputedStyle(element).overflowX) && element.scrollWidth > element.clientWidth;
  if (scrolls) element.tabIndex = 0;
  else if (element.tabIndex === 0) element.removeAttribute("tabindex");
}

const observer = new ResizeObserver((entries) => entries.forEach((entry) => update(entry.target)));
document.querySelectorAll(SCROLLABLE).forEach((element) => observer.observe(element));

// What the theme leaves unnamed for a screen reader, or names otherwise than it reads.
for (const toggle of document.querySelectorAll(".bd-sidenav summary")) {
  toggle.setAttribute("aria-label", `Pages of ${toggle.closest("li").querySelector("a").textContent}`);
}
document.querySelectorAll(".search-button-field").forEach((button) => button.removeAttribute("aria-label"));
const sidebar = document.getElementById("pst-primary-sidebar");
sidebar?.setAttribute("role", "region");
sidebar?.setAttribute("aria-label", "The book");
