// Everything works without this file; it only makes some of it nicer.
"use strict";
// An error summary takes the focus.
document.querySelector("#summary")?.focus();
// One send a form.
for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    if (form.target !== "_blank") form.dataset.sent = "yes"; // what opens a window of its own leaves this one as it is
    form.querySelector("#waiting")?.removeAttribute("hidden");
  });
}
// A page that one comes back to by the browser's own button can be sent again.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) for (const form of document.querySelectorAll("form")) delete form.dataset.sent;
});
// A page that only hands on goes on by itself, once.
document.querySelector("form[data-go]")?.requestSubmit();
// A menu closes when one looks elsewhere.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) { menu.open = false; menu.querySelector("summary").focus(); }
});
// A warning before the session ends (WCAG 2.2.1: at least 20 seconds).
const end = document.querySelector("#session-end");
if (end) {
  const left = (Number(end.dataset.ends) - Number(end.dataset.now) - 50) * 1000;
  setTimeout(() => { end.setAttribute("role", "alert"); end.textContent = end.dataset.warning; end.classList.add("notice"); }, Math.max(0, left));
}
// "Print this page" opens the dialog.
for (const link of document.querySelectorAll("[data-print]")) link.addEventListener("click", (event) => { event.preventDefault(); print(); });
