// Everything works without this file; it only makes some of it nicer.
"use strict";
// An error summary takes the focus: by its attribute, and where a page was written over another by this. Not before the
// attribute had its turn, or the browser says on its console that it was blocked.
requestAnimationFrame(() => document.querySelector("#summary:not(:focus)")?.focus());
// One send a form.
for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    if (form.target !== "_blank") form.dataset.sent = "yes"; // what opens a window of its own leaves this one as it is
    form.querySelector("#waiting")?.removeAttribute("hidden");
  });
}
// A page that has opened a window of its own is out of date when one comes back from there.
for (const form of document.querySelectorAll("form[data-after]")) {
  form.addEventListener("submit", (event) => {
    if ((event.submitter?.formTarget || form.target) !== "_blank") return;
    window.addEventListener("focus", () => location.assign(form.dataset.after), { once: true });
  });
}
// How much of a file is sent. The answer is the page that the browser would have shown without this.
for (const form of document.querySelectorAll("form[data-progress]")) {
  form.addEventListener("submit", (event) => {
    if (event.defaultPrevented || !form.querySelector("[type=file]").files.length) return;
    event.preventDefault();
    const shown = form.querySelector(".progress"), bar = shown.querySelector("progress"), said = shown.querySelector("[role=status]");
    const request = new XMLHttpRequest();
    request.upload.addEventListener("progress", (now) => { if (now.lengthComputable) bar.value = 100 * now.loaded / now.total; });
    request.upload.addEventListener("load", () => { bar.removeAttribute("value"); said.textContent = said.dataset.sent; });
    request.addEventListener("load", () => {
      history.replaceState(null, "", request.responseURL);
      document.open(); document.write(request.responseText); document.close();
    });
    request.addEventListener("error", () => form.submit()); // the browser says why
    request.open("POST", form.action);
    request.send(new FormData(form));
    shown.hidden = false;
    bar.scrollIntoView({ block: "nearest" });
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
// A warning before the session ends (WCAG 2.2.1: at least 20 seconds), and once it has nothing of it stays on the screen, also
// where no server is to be had. Every page tells the others when that is: one that is used elsewhere, or logged out, is so here.
{ // its own block: a page that is written over another runs this once more
  const end = document.querySelector("#session-end"), others = new BroadcastChannel(end?.dataset.of ?? "session");
  const begun = Date.now(), life = end ? Number(end.dataset.ends) - Number(end.dataset.now) : 0;
  // A page that could not be made says nothing of the session: nobody loses what is typed in another tab by it.
  if (end || "signedOut" in document.body.dataset) others.postMessage(begun + life * 1000);
  if (end) {
    const said = end.textContent;
    let warning, over;
    const wait = (until) => {
      clearTimeout(warning);
      clearTimeout(over);
      end.removeAttribute("role"); end.textContent = said; end.classList.remove("notice");
      const left = until - Date.now();
      warning = setTimeout(() => { end.setAttribute("role", "alert"); end.textContent = end.dataset.warning; end.classList.add("notice"); }, Math.max(0, left - 50000));
      over = setTimeout(() => {
        const main = document.createElement("main"), link = document.createElement("a");
        link.href = end.dataset.on ?? location.pathname;
        link.textContent = document.title = end.dataset.over;
        main.append(link);
        document.body.replaceChildren(main);
      }, Math.max(0, left + 1000));
    };
    others.addEventListener("message", (event) => wait(Number(event.data)));
    wait(begun + life * 1000);
  }
}
// "Print this page" opens the dialog.
for (const link of document.querySelectorAll("[data-print]")) link.addEventListener("click", (event) => { event.preventDefault(); print(); });
