// Judging a reply in the chat: reasons and a comment on a thumb, marks, a critique, the order of several replies, a
// changed vote, undo, the guidelines and consent. It draws what the studio says stands and keeps nothing but drafts.
thumbprint.judging = ({ act, request, say, draw, room, rate }) => {
  const { el, icon, markdown } = thumbprint;
  const open = new Set();      // the turns whose panel is open
  const fresh = new Set();     // the turns that were given a thumb on this page: their reasons are offered at once
  const drafts = new Map();    // turn -> text of a critique that is not kept yet
  let shown = null;            // the version of the guidelines that this page has shown
  const button = (label, attributes, ...more) => el("button", { type: "button", ...attributes }, ...more, label);
  const said = (entry) => entry.judged ?? { scores: {} };
  const cased = (word) => word[0].toUpperCase() + word.slice(1);
  const ordinal = (place) => `${place}${["th", "st", "nd", "rd"][place % 10 > 3 || Math.floor(place / 10) % 10 === 1 ? 0 : place % 10]}`;

  // What stands after an action: of one reply, or of the whole room.
  const keep = async (entry, action, more, from = null) => {
    const answer = await act(action, { turn: entry.turn, ...more }, from);
    if (answer.judged) entry.judged = answer.judged;
    if ("rating" in answer) entry.rating = answer.rating;
    draw();
    return answer;
  };
  const thumb = (entry, value) => { if (entry.rating === value) fresh.delete(entry.turn); else fresh.add(entry.turn); return rate(entry, value); };
  const rated = (entry, changed) => keep(entry, "rate", { value: entry.rating, reasons: said(entry).reasons ?? [], comment: said(entry).comment ?? "", ...changed });
  const toggle = (entry) => { fresh.delete(entry.turn); if (!open.delete(entry.turn)) open.add(entry.turn); draw(); };

  // --- the panel below a reply --------------------------------------------------------------------------------------
  const reasons = (entry) => {
    const given = said(entry).reasons ?? [];
    const offered = room().judging?.reasons?.[entry.rating > 0 ? "up" : "down"] ?? [];
    return el("div", { class: "reasons", role: "group", "aria-label": "Reasons" }, [...new Set([...offered, ...given])].map((reason) => button(reason, {
      class: "reason", "aria-pressed": String(given.includes(reason)), "data-judge": `${entry.turn}/reason/${reason}`,
      onclick: () => rated(entry, { reasons: given.includes(reason) ? given.filter((other) => other !== reason) : [...given, reason] }) })));
  };
  const comment = (entry) => {
    const field = el("input", { class: "comment", dir: "auto", placeholder: "Add a comment", "aria-label": "Comment", "data-judge": `${entry.turn}/comment` });
    field.value = said(entry).comment ?? "";
    field.addEventListener("change", () => rated(entry, { comment: field.value }));
    return field;
  };
  const marks = (entry) => (room().judging?.criteria ?? []).map((criterion) => {
    const standing = said(entry).scores[criterion];
    const give = (value, from) => keep(entry, "score", { criterion, value: value === standing ? null : value }, from);
    return el("div", { class: "marks", role: "group", "aria-label": cased(criterion), onkeydown: (event) => {
      if (!/^[1-5]$/.test(event.key)) return;
      event.preventDefault(); event.stopPropagation(); give(Number(event.key));
    } }, el("span", { class: "what" }, cased(criterion)), [1, 2, 3, 4, 5].map((value) => button(String(value), {
      class: "mark", "aria-pressed": String(value === standing), "aria-label": `${cased(criterion)}: ${value} of 5`, "data-judge": `${entry.turn}/${criterion}/${value}`,
      onclick: (event) => give(value, event.currentTarget) })));
  });
  const critique = (entry) => {
    const field = el("textarea", { rows: 2, dir: "auto", placeholder: "What is good or bad about it, in your words", "aria-label": "Critique", "data-judge": `${entry.turn}/critique` });
    field.value = drafts.get(entry.turn) ?? said(entry).critique ?? "";
    field.addEventListener("input", () => drafts.set(entry.turn, field.value));
    const save = async (from) => {
      if (!field.value.trim() && !said(entry).critique) { say("Write something first."); return; }
      if (!(await keep(entry, "critique", { text: field.value }, from)).refused) { drafts.delete(entry.turn); draw(); }
    };
    field.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); save(null); } });
    return el("div", { class: "critique" }, field, button("Keep these words", { class: "tp-button small", onclick: (event) => save(event.currentTarget) }));
  };
  const summary = (entry) => {
    const { scores, critique: words, comment: note, reasons: why = [], rank } = said(entry);
    const parts = [
      rank && `${ordinal(rank.place)} of ${rank.of}`, ...why, note && `“${note}”`,
      ...Object.entries(scores).map(([criterion, value]) => `${criterion} ${value}`), words && `“${words}”`,
    ].filter(Boolean);
    return parts.length ? button(parts.join(" · "), { class: "summary", dir: "auto", title: "You said this; click to change it", onclick: () => toggle(entry) }) : null;
  };
  const panel = (entry) => {
    if (!entry.turn) return null;
    if (!open.has(entry.turn)) {
      const offer = entry.rating && fresh.has(entry.turn);
      return el("div", { class: "judging closed" }, offer ? el("div", { class: "why" }, reasons(entry), comment(entry)) : summary(entry));
    }
    return el("section", { class: "judging", "aria-label": "Your judgement of this reply", onkeydown: (event) => { if (event.key === "Escape") { event.stopPropagation(); toggle(entry); } } },
      entry.rating ? el("div", { class: "why" }, reasons(entry), comment(entry)) : null,
      el("div", { class: "all-marks" }, marks(entry)), critique(entry),
      el("div", { class: "row" }, guide("Guidelines"), button("Close", { class: "tp-button small quiet", onclick: () => toggle(entry) })));
  };

  // --- several replies in order -------------------------------------------------------------------------------------
  const order = async (entry) => {
    const answer = await request("replies", { node: entry.node });
    if (answer.refused) { say(answer.refused, true); return; }
    if (answer.replies.length < 2) { say("The other replies were made from another prompt, so they cannot be put in one order."); return; }
    await arrange(answer);
  };
  const arrange = ({ replies, standing }) => new Promise((resolve) => {
    const list = el("ol", { class: "order" });
    const places = () => [...list.children].forEach((item, at) => { item.querySelector(".place").textContent = at + 1; item.setAttribute("aria-label", `Place ${at + 1} of ${list.children.length}`); });
    const move = (item, to) => {
      const others = [...list.children].filter((other) => other !== item);
      const at = Math.max(0, Math.min(others.length, to));
      list.insertBefore(item, others[at] ?? null); places(); item.focus();
    };
    const row = ({ turn, text }) => {
      const at = () => [...list.children].indexOf(item);
      const item = el("li", { tabindex: "0", draggable: "true", "data-turn": turn },
        el("span", { class: "place" }), el("div", { class: "words", dir: "auto" }, markdown(text)),
        el("span", { class: "moves" }, button("", { class: "tool", title: "Better", "aria-label": "Move up", onclick: () => move(item, at() - 1) }, icon("higher")),
          button("", { class: "tool", title: "Worse", "aria-label": "Move down", onclick: () => move(item, at() + 1) }, icon("lower"))));
      item.addEventListener("keydown", (event) => {
        const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
        if (event.target !== item || (!step && !/^[1-9]$/.test(event.key))) return;
        event.preventDefault();
        if (!step) move(item, Number(event.key) - 1);
        else if (event.altKey || event.shiftKey) move(item, at() + step);
        else list.children[at() + step]?.focus();
      });
      item.addEventListener("dragstart", (event) => { item.classList.add("dragged"); event.dataTransfer.effectAllowed = "move"; event.dataTransfer.setData("text/plain", turn); });
      item.addEventListener("dragend", () => item.classList.remove("dragged"));
      return item;
    };
    list.addEventListener("dragover", (event) => {
      const dragged = list.querySelector(".dragged"), over = event.target.closest("li");
      if (!dragged) return;
      event.preventDefault();
      if (!over || over === dragged) return;
      const place = over.getBoundingClientRect();
      list.insertBefore(dragged, event.clientY > place.top + place.height / 2 ? over.nextSibling : over);
      places();
    });
    list.append(...replies.map(row)); places();
    const turns = () => [...list.children].map((item) => item.dataset.turn);
    const finish = async (more, from) => { const answer = await act("rank", more, from); if (!answer.refused) close(); };
    const close = dialog("Put the replies in order, the best first", [
      el("p", { class: "soft" }, "Drag them, or go to one and press its place (1, 2, …) or Shift with the arrow keys."), list],
    [standing.length ? button("Take the order back", { class: "tp-button quiet", onclick: (event) => finish({ turns: standing, forget: true }, event.currentTarget) }) : null,
      button("Cancel", { class: "tp-button", onclick: () => close() }),
      button("Keep this order", { class: "tp-button primary", onclick: (event) => finish({ turns: turns() }, event.currentTarget) })], "wide", resolve);
    list.firstChild.focus();
  });

  // --- a vote that was cast, seen again -----------------------------------------------------------------------------
  const again = (compared) => {
    const give = (choice, label) => button(label, { class: "tp-button small", "aria-pressed": String(choice === compared.choice), "data-judge": `${compared.id}/${choice}`,
      onclick: (event) => act("vote_again", { comparison: compared.id, choice: choice === compared.choice ? null : choice }, event.currentTarget) });
    return el("div", { class: "again", role: "group", "aria-label": "Change your choice" }, el("span", { class: "soft" }, compared.choice ? "Changed your mind?" : "Which is better?"),
      give("left", "Left"), give("tie", "Tie"), give("both_bad", "Both bad"), give("right", "Right"));
  };

  // --- undo, guidelines, consent ------------------------------------------------------------------------------------
  const undo = () => button("Undo", { class: "tp-button small quiet undo", title: "Undo (Ctrl + Z)", onclick: (event) => takeBack(event.currentTarget) });
  const takeBack = async (from = null) => { if (room().conversation) { fresh.clear(); await act("undo", { conversation: room().conversation.id }, from); } };
  const dialog = (title, body, actions, kind = "", ended = () => {}) => {
    const close = () => { box.close(); box.remove(); ended(); };
    const box = el("dialog", { class: `tp tp-dialog judge-dialog ${kind}`, "aria-label": title }, el("h2", {}, title), body, el("div", { class: "actions" }, actions));
    box.addEventListener("cancel", (event) => { event.preventDefault(); close(); });
    document.querySelector(".gradio-container").append(box);
    box.showModal();
    return close;
  };
  const guide = (label) => button(label, { class: "tp-button small quiet guide", onclick: () => read() }, icon("book"));
  const read = async () => {
    const answer = await request("guidelines");
    if (!answer.guidelines) { say(answer.refused, true); return; }
    shown = answer.guidelines.version;
    const text = el("div", { class: "words guidelines", dir: "auto", tabindex: "0", "data-version": shown }, markdown(answer.guidelines.text));
    const close = dialog("Guidelines", [text], [button("Close", { class: "tp-button primary", onclick: () => close() })], "wide");
    text.focus();
  };
  const agree = (sentences) => new Promise((resolve) => {
    let agreed = false;
    const close = dialog("Before your first judgement", [el("ul", { class: "consent" }, sentences.map((sentence) => el("li", {}, sentence)))],
      [button("Not now", { class: "tp-button", onclick: () => close() }),
        button("I agree", { class: "tp-button primary agree", onclick: () => { agreed = true; close(); } })], "", () => resolve(agreed));
  });

  // Keys for the last reply, where nobody is typing and no pair waits.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable], dialog");
    if (typing || thumbprint.tab() !== "chat" || document.querySelector("dialog[open]")) return;
    if ((event.ctrlKey || event.metaKey) && event.key === "z") { event.preventDefault(); takeBack(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("#pair .votes")) return;
    const last = room().entries.findLast((entry) => entry.turn);
    const does = last && { "+": () => thumb(last, 1), "-": () => thumb(last, -1), m: () => toggle(last), o: () => (last.siblings.length > 1 ? order(last) : null) }[event.key];
    if (does) { event.preventDefault(); does(); }
  });

  return {
    panel, again, undo, guide, agree, thumb, order, more: toggle,
    version: () => shown,
    look: async () => { shown ??= (await request("guidelines")).guidelines?.version ?? null; },
    key: (entry) => [open.has(entry.turn), fresh.has(entry.turn)],
  };
};
