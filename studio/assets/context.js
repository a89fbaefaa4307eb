// What the policy is going to see, and what a person may do about memory: the bar under the composer, the exact prompt,
// the way of remembering, facts, search, pins, branches, links, export and import. It draws what the studio says.
thumbprint.remembering = ({ act, request, say, room, open, scroll, draw }) => {
  const { el, icon } = thumbprint;
  const KINDS = ["system", "facts", "summary", "recalled", "turns"];
  const button = (label, attributes, ...more) => el("button", { type: "button", ...attributes }, ...more, label);
  const number = (value) => value.toLocaleString("en");
  let context = null;      // what the studio said last
  let shown = "";          // of which state of the room that was
  let asked = 0;

  // --- the bar under the composer -----------------------------------------------------------------------------------
  const meter = el("span", { class: "meter", "aria-hidden": "true" });
  const figures = el("span", { class: "figures" });
  const leaving = el("p", { class: "leaving soft", role: "status", hidden: true });
  const bar = el("div", { class: "context", hidden: true }, leaving,
    el("button", { type: "button", class: "gauge", title: "What the model is going to see", onclick: () => details() }, meter, figures));
  const drawBar = () => {
    bar.hidden = !context;
    if (!context) return;
    const share = (tokens) => `${Math.max(0.6, (100 * tokens) / context.budget).toFixed(2)}%`;
    meter.replaceChildren(...context.parts.filter((part) => part.tokens > 0).map((part) => el("i", { class: part.kind, style: `width:${share(part.tokens)}` })));
    figures.textContent = context.used ? `${number(context.used)} of ${number(context.budget)} tokens` : `${number(context.budget)} tokens of room`;
    const parts = context.parts.map((part) => `${part.label}: ${number(part.tokens)}`).join(", ");
    bar.querySelector(".gauge").setAttribute("aria-label", `What the model is going to see: ${figures.textContent}. ${parts}`);
    leaving.textContent = context.leaving;
    leaving.hidden = !context.leaving;
  };
  const look = async (force = false) => {
    const state = `${room().conversation?.id ?? ""}/${room().stamp ?? ""}`;
    if (state === shown && !force) return;
    shown = state;
    const turn = ++asked;
    const answer = await request("context", { conversation: room().conversation?.id ?? null });
    if (turn !== asked) return;
    if (!answer.context) { shown = ""; return; }
    context = answer.context;
    drawBar();
  };
  const heed = (answer) => { if (answer?.context) { context = answer.context; drawBar(); } return answer; };

  // --- the panel: the exact prompt, and the choices ------------------------------------------------------------------
  let dialog = null;
  const dismiss = () => { dialog?.close(); dialog?.remove(); dialog = null; };
  const panel = (label, ...children) => {
    dismiss();
    dialog = el("dialog", { class: "tp tp-dialog memory-dialog", "aria-label": label },
      el("div", { class: "head" }, el("h2", {}, label), el("button", { type: "button", class: "tool", title: "Close", "aria-label": "Close", onclick: dismiss }, icon("close"))), ...children);
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); dismiss(); });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dismiss(); });
    document.querySelector(".gradio-container").append(dialog);
    dialog.showModal();
    return dialog;
  };
  const legend = () => el("ul", { class: "legend" }, context.parts.map((part) => el("li", {}, el("i", { class: part.kind }), `${part.label} `, el("span", { class: "soft" }, number(part.tokens)))),
    el("li", {}, el("i", { class: "free" }), "Free ", el("span", { class: "soft" }, number(Math.max(0, context.budget - context.used)))));
  const NAMES = { system: "System", user: "Person", assistant: "Model" };
  const promptNode = () => context.prompt.length
    ? el("ol", { class: "prompt" }, context.prompt.map((message) => el("li", {}, el("span", { class: "role" }, NAMES[message.role]), el("pre", { dir: "auto" }, message.text))))
    : el("p", { class: "soft" }, "Nothing yet. It begins with your first message.");
  const choices = () => {
    const id = room().conversation?.id;
    if (!id) return null;
    const choose = async () => { const answer = heed(await act("remember_by", { conversation: id, memory: way.value, elsewhere: elsewhere.checked })); if (!answer.refused && dialog?.open) details(); };
    const known = context.ways.some((item) => item.name === context.memory) || !context.memory ? context.ways : [...context.ways, { name: context.memory, label: context.memory }];
    const way = el("select", { id: "memory-way", onchange: choose },
      el("option", { value: "" }, `As this studio is set (${context.ways.find((item) => item.name === context.default)?.label ?? context.default})`),
      known.map((item) => el("option", { value: item.name, selected: item.name === context.memory }, item.name.startsWith("last_turns:") ? `The last ${item.name.split(":")[1]} turns` : item.label)));
    const elsewhere = el("input", { type: "checkbox", id: "memory-elsewhere", checked: context.elsewhere, onchange: choose });
    return el("div", { class: "choices" }, el("label", { for: "memory-way" }, "How it is reminded of what came before"), way,
      (context.memory || context.default).includes("recall") && el("label", { class: "check" }, elsewhere, "Also of my other conversations"));
  };
  const details = () => {
    if (!context) return;
    panel("What the model is going to see",
      el("div", { class: "meter wide", "aria-hidden": "true" }, [...meter.children].map((part) => part.cloneNode())), legend(),
      context.leaving && el("p", { class: "soft" }, context.leaving), choices(),
      el("h3", {}, "The exact prompt, with your next message as “…”"), promptNode(),
      el("div", { class: "actions" },
        context.facts && button("What I told you", { class: "tp-button small", onclick: () => facts() }, icon("book")),
        room().conversation && button("Export as Markdown", { class: "tp-button small", onclick: () => download("markdown") }),
        room().conversation && button("Export as JSON", { class: "tp-button small", onclick: () => download("json") }),
        room().conversation && context.shares && button(context.shared ? "Take the link back" : "Share a read-only link", { class: "tp-button small", onclick: () => share(!context.shared) })),
      context.shared && el("p", { class: "link mono", "data-link": "" }, link(context.shared)));
  };
  const link = (word) => { const here = new URL(location.href); here.search = ""; here.searchParams.set("shared", word); return here.href; };
  const share = async (shared) => { heed(await act("share", { conversation: room().conversation.id, shared })); if (dialog?.open) details(); };
  const download = async (format) => {
    const answer = await act("export", { conversation: room().conversation.id, format });
    if (!answer.file) return;
    const place = URL.createObjectURL(new Blob([answer.file.text], { type: format === "json" ? "application/json" : "text/markdown" }));
    el("a", { href: place, download: answer.file.name }).click();
    setTimeout(() => URL.revokeObjectURL(place), 10000);
  };

  // --- what I told you -----------------------------------------------------------------------------------------------
  const facts = async (answer = null) => {
    const given = answer ?? await request("facts");
    if (given.refused) { say(given.refused, true); return; }
    const field = el("input", { class: "fact-field", dir: "auto", maxlength: 300, placeholder: "For example: I am a vegetarian.", "aria-label": "Something to remember" });
    const change = async (action, more) => {
      const after = await request(action, more);
      if (after.refused) { problem.textContent = after.refused; problem.hidden = false; } else { await facts(after); look(true); }
    };
    const problem = el("p", { class: "bad", role: "alert", hidden: true });
    const row = (fact) => {
      const text = el("input", { class: "fact-field", dir: "auto", maxlength: 300, "aria-label": "What is remembered" });
      text.value = fact.text;
      text.addEventListener("change", () => change("keep_fact", { fact: fact.id, text: text.value }));
      return el("li", {}, text, el("button", { type: "button", class: "tool", title: "Forget this", "aria-label": `Forget “${fact.text}”`, onclick: () => change("delete_fact", { fact: fact.id }) }, icon("bin")));
    };
    panel("What I told you", el("p", { class: "soft" }, "The model is told these sentences in all your conversations. It is told nothing else about you. Delete one and it is gone."),
      el("ul", { class: "facts" }, given.facts.map(row)), !given.facts.length && el("p", { class: "soft" }, "Nothing is remembered yet."), problem,
      el("form", { class: "add", onsubmit: (event) => { event.preventDefault(); change("keep_fact", { text: field.value }); } }, field, el("button", { type: "submit", class: "tp-button small primary" }, "Remember")));
    field.focus();
  };

  // --- the list: search, pins, import --------------------------------------------------------------------------------
  let searching = 0;
  const results = el("ul", { class: "found", hidden: true, "aria-label": "Found" });
  const query = el("input", { type: "search", class: "query", placeholder: "Search what was said", "aria-label": "Search your conversations", dir: "auto" });
  const search = el("div", { class: "search" }, query, results);
  query.addEventListener("input", () => {
    const turn = ++searching;
    setTimeout(async () => {
      if (turn !== searching) return;
      const words = query.value.trim();
      const answer = words ? await request("search", { query: query.value }) : { found: [] };
      if (turn !== searching) return;
      results.hidden = !words;
      const go = async (one) => { await open(one.conversation); const before = room().entries.some((entry) => entry.node === one.node); if (!before) await act("show", { node: one.node }); document.querySelector(`#transcript [data-node="${CSS.escape(one.node)}"]`)?.scrollIntoView({ block: "center" }); };
      results.replaceChildren(...(answer.found?.length ? answer.found.map((one) => el("li", {}, el("button", { type: "button", class: "name", onclick: () => go(one) }, el("b", { dir: "auto" }, one.title), el("span", { class: "soft", dir: "auto" }, one.text))))
        : [el("li", { class: "none soft" }, answer.refused ?? "Nothing of yours holds these words.")]));
    }, 160);
  });
  query.addEventListener("keydown", (event) => { if (event.key === "Escape") { query.value = ""; query.dispatchEvent(new Event("input")); } });
  const pin = (item) => el("button", { type: "button", class: `tool pin ${item.pinned ? "on" : ""}`, title: item.pinned ? "Unpin" : "Pin to the top", "aria-label": `${item.pinned ? "Unpin" : "Pin"} “${item.title}”`, "aria-pressed": String(Boolean(item.pinned)),
    onclick: () => act("pin", { conversation: item.id, pinned: !item.pinned }) }, icon("pin"));
  const file = el("input", { type: "file", accept: "application/json,.json", hidden: true });
  file.addEventListener("change", async () => {
    const chosen = file.files[0];
    if (chosen) await act("import", { text: await chosen.text() });
    file.value = "";
  });
  const importer = el("div", { class: "importer" }, file, button("Import conversations", { class: "tp-button small quiet", title: "A JSON export of this studio, of ChatGPT or of Open WebUI", onclick: () => file.click() }));

  // --- branches ------------------------------------------------------------------------------------------------------
  const branch = (entry) => el("button", { type: "button", class: "tool", title: "Go on from here in a conversation of its own", "aria-label": "Open this branch as its own conversation", "data-branch": "", onclick: () => act("branch", { node: entry.node }) }, icon("branch"));

  // --- the beginning of a long conversation, which is fetched when asked for ------------------------------------------
  const withEarlier = (next, held) => {
    const at = held.findIndex((entry) => entry.node === next.entries[0]?.node);
    return at > 0 ? { ...next, entries: [...held.slice(0, at), ...next.entries], earlier: next.earlier - at } : next;
  };
  const earlierNode = () => el("div", { class: "ending earlier" }, el("p", {}, `${number(room().earlier)} earlier messages`), button("Show earlier", { class: "tp-button small", onclick: async () => {
    const answer = await request("earlier", { node: room().entries[0].node });
    if (answer.refused) { say(answer.refused, true); return; }
    const below = scroll.scrollHeight - scroll.scrollTop;
    const now = room();
    now.entries = [...answer.entries, ...now.entries];
    now.earlier -= answer.entries.length;
    draw();
    scroll.scrollTop = scroll.scrollHeight - below;
  } }));

  // --- a link that was shared ----------------------------------------------------------------------------------------
  const visit = async () => {
    const word = new URLSearchParams(location.search).get("shared");
    if (!word) return;
    const answer = await request("shared", { word });
    if (answer.refused) { say(answer.refused, true); return; }
    panel(answer.shared.title, el("p", { class: "soft" }, "Somebody shared this conversation with you. It can be read, not changed."),
      el("ol", { class: "prompt" }, answer.shared.said.map((message) => el("li", {}, el("span", { class: "role" }, NAMES[message.role]), el("pre", { dir: "auto" }, message.text)))));
  };

  return { bar, look, search, pin, importer, branch, visit, withEarlier, earlierNode };
};
