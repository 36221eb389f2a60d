// Follows the worker of this page: reloads it when a new generation is live, swaps stylesheets, shows what went wrong.
(() => {
  "use strict";
  const me = document.currentScript;
  if (!me || window.__tqserver) return;
  window.__tqserver = true;
  const worker = me.dataset.worker;
  let current = JSON.parse(me.dataset.state);
  // The page shows nothing but the trouble already.
  let shown = "trouble" in me.dataset ? current.trouble : null;
  let source = null;
  let overlay = null;

  const remembered = (key, value) => {
    try {
      const before = sessionStorage.getItem(key);
      if (value !== undefined) sessionStorage.setItem(key, value);
      return before;
    } catch {
      return null; // storage is denied
    }
  };

  // At most once for the same state, so that no page can reload for ever.
  const reload = (next) => {
    const state = [next.server, next.generation, next.files, location.href].join(" ");
    if (remembered("tqserver", state) !== state) location.reload();
  };

  const swapStyles = (mark) => {
    for (const link of document.querySelectorAll('link[rel~="stylesheet"][href]')) {
      const url = new URL(link.href, location.href);
      if (url.origin !== location.origin) continue;
      url.searchParams.set("tqserver", mark);
      const next = link.cloneNode();
      next.href = url.href;
      next.onload = next.onerror = () => link.remove();
      link.after(next);
    }
  };

  const hide = () => {
    if (overlay) overlay.remove();
    overlay = null;
  };

  const show = (trouble) => {
    hide();
    overlay = document.createElement("div");
    const root = overlay.attachShadow({ mode: "closed" });
    const frame = document.createElement("iframe");
    frame.setAttribute("sandbox", "");
    frame.title = "What went wrong with worker " + worker;
    frame.src = "/.tqserver/trouble?worker=" + encodeURIComponent(worker) + "&id=" + trouble;
    frame.style.cssText = "position:fixed;inset:0;width:100%;height:100%;border:0;z-index:2147483646;background:#15171c";
    const close = document.createElement("button");
    close.textContent = "\u00d7";
    close.title = "Close (Escape)";
    close.style.cssText = "position:fixed;top:12px;right:24px;z-index:2147483647;font:28px/1 sans-serif;color:#d8dbe2;background:none;border:0;cursor:pointer";
    close.onclick = hide;
    root.append(frame, close);
    document.documentElement.append(overlay);
    close.focus();
  };

  const hear = (next) => {
    if (next.trouble !== shown) {
      shown = next.trouble;
      if (shown) show(shown);
      else hide();
    }
    if (next.generation === null || next.pending) return;
    if (next.server !== current.server || next.generation !== current.generation || next.files !== current.files) {
      reload(next);
    } else if (next.styles !== current.styles) {
      swapStyles(next.styles);
    }
    current = next;
  };

  // Browsers have few connections to a host: a page that is not seen must not hold one.
  const close = () => {
    if (source) source.close();
    source = null;
  };
  const open = () => {
    close();
    if (document.visibilityState === "hidden") return;
    source = new EventSource("/.tqserver/events?worker=" + encodeURIComponent(worker));
    source.onmessage = (event) => hear(JSON.parse(event.data));
  };
  document.addEventListener("visibilitychange", open);
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && overlay) hide();
  });
  if (shown === null && current.trouble) {
    shown = current.trouble;
    show(shown);
  }
  open();
})();
