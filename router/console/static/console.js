// Parts of a page that refresh themselves: fetched from where the page came from, rendered there, put in place here.
"use strict";

for (const place of document.querySelectorAll("[data-live]")) {
  const fresh = document.querySelector("[data-fresh]");
  const every = Number(place.dataset.every);
  let last = "";

  const refresh = async () => {
    if (document.hidden) return;
    const asked = AbortSignal.timeout(10000);
    try {
      const answer = await fetch(place.dataset.live, { headers: { "X-Fragment": "yes" }, signal: asked });
      if (answer.status === 401) return location.reload();
      if (!answer.ok) throw new Error(String(answer.status));
      const text = await answer.text();
      // What is being copied stays until it is: the page says as of when it is.
      const marked = getSelection();
      const copying = !marked.isCollapsed && place.contains(marked.anchorNode);
      if (text !== last && !copying) {
        // Whoever reads on with the keyboard must not lose the place, nor sit before a page that stands still.
        const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        const parsed = new DOMParser().parseFromString(text, "text/html");
        place.replaceChildren(...parsed.body.childNodes);
        last = text;
        if (focused) place.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
      }
      const shown = place.querySelector("[data-at]");
      if (fresh && shown) fresh.textContent = "as of " + shown.dataset.at;
      if (fresh) fresh.classList.remove("stale");
      if (place.querySelector("[data-done]")) return "done";
    } catch {
      if (fresh) {
        fresh.textContent = "the router does not answer; shown is what was last seen";
        fresh.classList.add("stale");
      }
    }
  };

  const loop = async () => {
    if ((await refresh()) !== "done") setTimeout(loop, every);
  };
  setTimeout(loop, every);
  document.addEventListener("visibilitychange", refresh);
}
