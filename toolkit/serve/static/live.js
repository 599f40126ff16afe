// Keeps an open page in step with the ledger. Every page works without it: then one loads it again by hand.
// It draws nothing itself: it is told that something happened, fetches the page anew and swaps the parts that differ.
"use strict";
(() => {
  const EVERY_MS = 1000; // no part is swapped more often
  const body = document.body;
  const sign = document.getElementById("live");
  const told = document.getElementById("told");
  let wanted = false, busy = false, last = 0;

  function say(word, state) {
    sign.hidden = false;
    sign.className = state;
    sign.textContent = word;
  }

  // Keeps what the reader has open, and where the keyboard is.
  function swap(old, fresh) {
    const open = [...old.querySelectorAll("details[open] > summary")].map((s) => s.textContent);
    const focus = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    for (const summary of fresh.querySelectorAll("details > summary"))
      if (open.includes(summary.textContent)) summary.parentElement.open = true;
    old.replaceWith(fresh);
    if (focus) {
      const again = [...fresh.querySelectorAll("a[href]")].find((a) => a.getAttribute("href") === focus);
      if (again) again.focus({ preventScroll: true });
    }
  }

  function take(text) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const main = document.getElementById("main");
    const ids = (root) => [...root.querySelectorAll("[data-part]")].map((part) => part.id).join(" ");
    const fresh = page.getElementById("main");
    if (!fresh) return;
    if (ids(main) !== ids(fresh)) {
      // a part came or went: all of it is new
      const parts = document.importNode(fresh, true);
      main.replaceChildren(...parts.childNodes);
    } else {
      for (const part of [...main.querySelectorAll("[data-part]")]) {
        const next = fresh.querySelector("#" + CSS.escape(part.id));
        if (next && next.outerHTML !== part.outerHTML) swap(part, document.importNode(next, true));
      }
    }
    body.dataset.after = page.body.dataset.after;
  }

  async function load() {
    if (busy || !wanted || document.hidden) return;
    const wait = last + EVERY_MS - Date.now();
    if (wait > 0) { setTimeout(load, wait); return; }
    busy = true; wanted = false; last = Date.now();
    try {
      const answer = await fetch(location.href, { cache: "no-store", redirect: "error", headers: { accept: "text/html" } });
      if (answer.ok) take(await answer.text());
      else say("the page could not be read again: load it by hand", "off");
    } catch { say("the server does not answer", "off"); }
    busy = false;
    if (wanted) load();
  }

  function look() { wanted = true; load(); }

  const rack = body.dataset.live;
  const source = new EventSource("/events?rack=" + encodeURIComponent(rack) + "&after=" + body.dataset.after);
  source.addEventListener("open", () => { say("live", "on"); });
  source.addEventListener("error", () => {
    say(source.readyState === EventSource.CLOSED ? "not live: load the page by hand" : "connecting again", "off");
  });
  source.addEventListener("ledger", (event) => {
    const one = JSON.parse(event.data);
    if (one.kind === "run_finished" || one.kind === "node_moved") told.textContent = (one.node || one.rack) + ": " + one.words;
    look();
  });
  source.addEventListener("progress", look);
  source.addEventListener("resync", look);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
})();
