// What every part of the page shares: who is visiting, light or dark, dialogs, and the notes of the loop strip.
window.thumbprint = (() => {
  const remembered = (key, fallback) => { try { return localStorage.getItem(key) ?? fallback; } catch { return fallback; } };
  const remember = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private mode: for this page only */ } };

  // 128 random bits, made in this browser and kept in it. getRandomValues works on plain http too; randomUUID does not.
  let self = remembered("thumbprint.visitor", "");
  const visitor = () => {
    if (!/^[0-9a-f]{32}$/.test(self)) {
      self = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
      remember("thumbprint.visitor", self);
    }
    return self;
  };

  // el("div", {class: "x", onclick: f}, "text", child): text always goes in as text, so nothing a person or a model
  // wrote can become markup.
  const el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  };

  const icons = {
    up: "M7 10v11M7 10l4.2-7.2c.5-.8 2.3-.6 2.3 1.2V9h4.9a2 2 0 0 1 2 2.4l-1.5 7.9a2 2 0 0 1-2 1.7H7M7 10H4v11h3",
    down: "M17 14V3M17 14l-4.2 7.2c-.5.8-2.3.6-2.3-1.2v-5H5.6a2 2 0 0 1-2-2.4l1.5-7.9A2 2 0 0 1 7.1 3H17M17 14h3V3h-3",
    retry: "M20 11a8 8 0 1 0-2.3 5.7M20 4v7h-7",
    edit: "M4 20h4L19 9a2.8 2.8 0 0 0-4-4L4 16zM13.5 6.5l4 4",
    copy: "M9 9h11v11H9zM5 15H4V4h11v1",
    menu: "M4 6h16M4 12h16M4 18h16",
    plus: "M12 5v14M5 12h14",
    bin: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
    send: "M12 20V5M5 12l7-7 7 7",
    stop: "M7 7h10v10H7z",
    back: "M15 5l-7 7 7 7",
    on: "M9 5l7 7-7 7",
    pin: "M9 4h6l-1 6 4 4H6l4-4zM12 14v6",
    branch: "M6 4v16M6 9a6 6 0 0 0 6 6h6M15 12l3 3-3 3",
    gear: "M4 7h10M18 7h2M4 17h2M10 17h10M14 7a2 2 0 1 0 4 0 2 2 0 1 0-4 0M6 17a2 2 0 1 0 4 0 2 2 0 1 0-4 0",
    close: "M6 6l12 12M18 6L6 18",
    check: "M5 12.5l4.5 4.5L19 7.5",
    more: "M4 7h9M17 7h3M4 17h3M11 17h9M13 7a2 2 0 1 0 4 0 2 2 0 1 0-4 0M7 17a2 2 0 1 0 4 0 2 2 0 1 0-4 0",
    order: "M11 6h9M11 12h6M11 18h3M6 5v14M6 19l-2.5-2.5M6 19l2.5-2.5",
    higher: "M6 15l6-6 6 6",
    lower: "M6 9l6 6 6-6",
    book: "M5 5.5A2.5 2.5 0 0 1 7.5 3H19v15H7.5A2.5 2.5 0 0 0 5 20.5zM5 20.5A2.5 2.5 0 0 0 7.5 21H19v-3",
  };
  const icon = (name) => {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    const path = document.createElementNS(space, "path");
    for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", width: 18, height: 18, fill: "none", stroke: "currentColor",
      "stroke-width": 1.7, "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": true })) svg.setAttribute(key, value);
    path.setAttribute("d", icons[name]);
    svg.append(path);
    return svg;
  };

  // A question that must be answered. Resolves to false, or to true, or to the text that was typed.
  const ask = ({ title, body = "", action, danger = false, input = null, placeholder = "" }) => new Promise((resolve) => {
    const field = input === null ? null : el("input", { value: input, placeholder, "aria-label": title, dir: "auto", maxlength: 120 });
    const close = (value) => { dialog.close(); dialog.remove(); resolve(value); };
    const agree = () => close(field ? field.value : true);
    const dialog = el("dialog", { class: "tp tp-dialog", "aria-label": title },
      el("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); agree(); } },
        el("h2", {}, title), body && el("p", {}, body), field,
        el("div", { class: "actions" },
          el("button", { type: "button", class: "tp-button", onclick: () => close(false) }, "Keep as it is"),
          el("button", { type: "submit", class: `tp-button ${danger ? "danger" : "primary"}` }, action))));
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); close(false); });
    document.querySelector(".gradio-container").append(dialog);
    dialog.showModal();
    (field ?? dialog.querySelector("[type=submit]")).focus();
    field?.select();
  });

  const dark = () => document.body.classList.contains("dark");
  const look = () => {
    document.body.classList.toggle("dark");
    remember("thumbprint.look", dark() ? "dark" : "light");
  };
  const wanted = new URLSearchParams(location.search).get("__theme") ?? remembered("thumbprint.look", "");
  const dress = () => { if (wanted) document.body.classList.toggle("dark", wanted === "dark"); };

  const tab = () => document.querySelector('button[role="tab"].selected, button[role="tab"][aria-selected="true"]')?.id.replace(/-button$/, "") ?? "chat";
  const go = (name) => document.getElementById(`${name}-button`)?.click();

  // The note of a station lives outside the strip, so that the strip may redraw under it.
  let note = null;
  const closeNote = () => { note?.remove(); note = null; };
  const explain = (station) => {
    const again = note?.dataset.station === station.dataset.station;
    closeNote();
    if (again) return;
    const place = station.getBoundingClientRect();
    note = el("div", { class: "tp station-note", role: "status", "data-station": station.dataset.station, "data-state": station.dataset.state },
      el("h3", {}, station.dataset.title), el("p", {}, station.dataset.sentence),
      el("button", { class: "tp-button small", onclick: () => { go(station.dataset.tab); closeNote(); } }, station.dataset.more));
    document.querySelector(".gradio-container").append(note);
    const left = Math.min(Math.max(12, place.left), innerWidth - note.offsetWidth - 12);
    note.style.left = `${left + scrollX}px`;
    note.style.top = `${place.bottom + scrollY + 6}px`;
  };
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") closeNote(); });
  document.addEventListener("click", (event) => {
    const station = event.target.closest?.(".station");
    if (station) explain(station);
    else if (note && !note.contains(event.target)) closeNote();
    if (event.target.closest?.(".masthead .look")) look();
  });

  return { visitor, remember, remembered, el, icon, ask, tab, go, dress };
})();
document.addEventListener("DOMContentLoaded", () => thumbprint.dress());
if (document.body) thumbprint.dress();
