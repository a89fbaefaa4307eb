// The chat room. It draws what the studio says and asks for what the person wants; it keeps no judgement and no message
// of its own. Replies are named by our node and turn ids. Everything said is put in as text, never as markup.
const { el, icon, ask, markdown, remember, remembered } = thumbprint;
const root = element.querySelector("#chat-room");
const EXAMPLES = ["What is coffee?", "How do I bake bread?", "Tell me a short story about a crow.", "What are penguins?"];
const CHOICES = { left: "1", tie: "0", both_bad: "9", right: "2" };
const KEYS = { 1: "left", 2: "right", 0: "tie", 9: "both_bad" };

let room = { conversations: [], conversation: null, entries: [], live: null, max_chars: 20000, compared: "Every third reply" };
let live = null;          // the exchange under way, with the whole texts
let following = 0;        // the number of the loop that follows it; an older loop sees that it is stale
let editing = null;       // { node, kind: "edit" | "correct", text }
let ended = null;         // { notice, error, node }: how the last exchange ended, when there is something to say
let ready = false;
let draft = { system_prompt: "" };
let busy = false;
let visits = 0;           // counts changes of conversation, so that a late answer does not lead back to where one was
let arriving = Promise.resolve();
let acts = 0, acting = 0; // what was done, and is being done: a look that began before must not put the room back

const button = (label, attributes, ...more) => el("button", { type: "button", ...attributes }, ...more, label);
const tool = (name, label, onclick, attributes = {}) => el("button", { type: "button", class: "tool", title: label, "aria-label": label, onclick, ...attributes }, icon(name));

// --- asking the studio ---------------------------------------------------------------------------------------------
const request = async (action, more = {}) => {
  const answer = await server.call_studio({ action, visitor: thumbprint.visitor(), guidelines: judging.version(), ...more });
  if (answer === undefined || answer === null) return { refused: "The studio does not answer. Your text is kept here; try again in a moment.", unreachable: true };
  if (answer.opening) return { refused: answer.problem ? `The studio could not open: ${answer.problem}` : "The model is still being loaded. Your text is kept; try again in a few seconds.", opening: true, problem: answer.problem };
  if (answer.consent) {
    if (!(await judging.agree(answer.consent))) return { refused: answer.refused };
    await request("consent");
    return request(action, more);
  }
  return answer;
};
const act = async (action, more = {}, from = null) => {
  const visit = visits;
  from?.classList.add("busy");
  acts += 1; acting += 1;
  const answer = await request(action, more);
  acting -= 1;
  from?.classList.remove("busy");
  if (visit !== visits && answer.room) {
    room.conversations = answer.room.conversations; drawList();
    return answer;
  }
  if (answer.refused) { say(answer.refused, true); return answer; }
  if (answer.room) enter(answer.room, answer.live);
  if (answer.conversations) { room.conversations = answer.conversations; drawList(); }
  say(answer.say ?? "");
  if (answer.undo) line.append(judging.undo());
  return answer;
};

// --- the frame ------------------------------------------------------------------------------------------------------
const list = el("ul", { class: "conversations" });
const sidebar = el("aside", { class: "side", "aria-label": "Your conversations" },
  button("New conversation", { class: "tp-button new", onclick: () => { open(null); foldAfterChoice(); } }, icon("plus")),
  list, el("p", { class: "soft foot" }, "Kept for this browser. Nobody else sees this list."));
const title = el("h2", { class: "title", dir: "auto" });
const instructions = el("textarea", { rows: 3, dir: "auto", id: "system-prompt", placeholder: "For example: Answer in one sentence, and always in plain words." });
const instructionsBox = el("div", { class: "instructions", hidden: true },
  el("label", { for: "system-prompt" }, "Instructions for this conversation ", el("span", { class: "soft" }, "(the system prompt: the model reads it before everything else)")),
  instructions,
  el("div", { class: "row" }, button("Save", { class: "tp-button small primary", onclick: (event) => saveInstructions(event.currentTarget) }),
    button("Close", { class: "tp-button small quiet", onclick: () => toggleInstructions(false) })));
const instructionsButton = button("Instructions", { class: "tp-button small quiet", "aria-expanded": "false", onclick: () => toggleInstructions() }, icon("gear"));
const column = el("div", { class: "column", id: "transcript", role: "log", "aria-label": "Conversation" });
const scroll = el("div", { class: "scroll", tabindex: "-1" }, column);
const line = el("p", { class: "line", role: "status", "aria-live": "polite" });
const box = el("textarea", { rows: 1, dir: "auto", id: "composer", "aria-label": "Your message", placeholder: "Write a message" });
const sendButton = el("button", { type: "submit", class: "send", title: "Send (Enter)", "aria-label": "Send" }, icon("send"));
const stopButton = el("button", { type: "button", class: "send stop", title: "Stop", "aria-label": "Stop writing", hidden: true, onclick: () => stop() }, icon("stop"));
const composer = el("form", { class: "composer", onsubmit: (event) => { event.preventDefault(); submit(); } },
  line, el("div", { class: "box" }, box, sendButton, stopButton),
  el("p", { class: "soft hint" }, el("span", { class: "wide" }, "Enter sends, Shift + Enter starts a new line. "), "A small model makes mistakes; rating them is the point."));
root.append(sidebar, el("div", { class: "veil", onclick: () => fold(true) }),
  el("section", { class: "main", "aria-label": "Chat" },
    el("div", { class: "bar" }, tool("menu", "Your conversations", () => fold()), title, instructionsButton),
    instructionsBox, scroll, composer));

// The room fills what the head of the page leaves over, whatever its height is on this screen.
const fit = () => root.style.setProperty("--chrome", `${Math.round(root.getBoundingClientRect().top + scrollY)}px`);
new ResizeObserver(() => { if (root.offsetParent) fit(); }).observe(document.body);
new ResizeObserver(() => { if (root.offsetParent) fit(); }).observe(document.getElementById("strip") ?? root);
fit();

const narrow = matchMedia("(max-width: 820px)");
const fold = (folded = !root.classList.contains("folded")) => {
  root.classList.toggle("folded", folded);
  sidebar.inert = folded;
};
const foldAfterChoice = () => { if (narrow.matches) fold(true); };
narrow.addEventListener("change", () => fold(narrow.matches));
fold(narrow.matches);

const say = (text, bad = false) => { line.textContent = text; line.classList.toggle("bad", bad); line.hidden = !text; };
say("");
const grow = () => { box.style.height = "auto"; box.style.height = `${Math.min(box.scrollHeight, 220)}px`; };
box.addEventListener("input", () => { grow(); remember("thumbprint.draft", box.value); if (line.classList.contains("bad")) say(""); });
box.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); submit(); }
});

// --- what a person does ---------------------------------------------------------------------------------------------
const submit = async () => {
  const text = box.value;
  if (busy || !text.trim()) { if (!text.trim()) say("Write something first."); return; }
  if (live?.state === "writing" && !live.voted) { say("A reply is still being written. Wait for it, or stop it; your text stays here."); return; }
  busy = true;
  await arriving;
  box.value = ""; grow();
  const echo = entryNode({ node: "echo", role: "user", text, siblings: [] });
  echo.classList.add("echo");
  column.querySelector(".empty")?.remove();
  column.append(echo, el("div", { class: "entry reply" }, el("div", { class: "words waiting" }, dots())));
  toEnd(true);
  const answer = await act("send", { conversation: room.conversation?.id ?? null, text, system_prompt: draft.system_prompt });
  busy = false;
  if (answer.refused) {
    box.value = text; grow(); draw();
    if (!answer.unreachable && !answer.opening && room.conversation) refresh(true);
  } else { remember("thumbprint.draft", ""); draft = { system_prompt: "" }; ended = null; }
};
const stop = async () => { if (live) { stopButton.classList.add("busy"); await act("stop", { exchange: live.id }); stopButton.classList.remove("busy"); } };
const choose = async (choice, from = null) => { if (live?.kind === "pair" && !live.voted) await act("vote", { exchange: live.id, choice }, from); };
const rate = async (entry, value) => {
  const before = entry.rating ?? null;
  entry.rating = before === value ? null : value;
  draw();
  const answer = await act("rate", { turn: entry.turn, value: entry.rating });
  entry.rating = answer.refused ? before : answer.rating;
  if (answer.judged) entry.judged = answer.judged;
  draw();
};
const judging = thumbprint.judging({ act, request, say, draw: () => draw(), room: () => room, rate });
const memory = thumbprint.remembering({ act, request, say, room: () => room, open: (id) => open(id), scroll, draw: () => draw() });
composer.insertBefore(memory.bar, composer.lastElementChild);
list.before(memory.search);
list.after(memory.importer);
const copy = async (text) => {
  try { await navigator.clipboard.writeText(text); say("Copied."); } catch { say("This browser does not let a page copy. Select the text and copy it.", true); }
};
const toggleInstructions = (shown = instructionsBox.hidden) => {
  instructionsBox.hidden = !shown;
  instructionsButton.setAttribute("aria-expanded", String(shown));
  if (shown) { instructions.value = room.conversation?.system_prompt ?? draft.system_prompt; instructions.focus(); }
};
const saveInstructions = async (from) => {
  if (!room.conversation) { draft.system_prompt = instructions.value; say("Noted. The conversation starts with these instructions."); toggleInstructions(false); return; }
  const answer = await act("instruct", { conversation: room.conversation.id, text: instructions.value }, from);
  if (!answer.refused) toggleInstructions(false);
};
const open = (id, quiet = false) => (arriving = goTo(id, quiet));
const goTo = async (id, quiet) => {
  const visit = ++visits;
  if (id === null) return arrive({ ...room, conversation: null, entries: [], live: null });
  const answer = await request("open", { conversation: id });
  if (visit !== visits) return answer;
  if (!answer.refused) return arrive(answer.room);
  if (!quiet) say(answer.refused, true);
  return answer;
};
const arrive = (next) => {
  ended = null; editing = null;
  say("");
  enter(next);
  toEnd(true);
  if (!narrow.matches) box.focus();
  return { room: next };
};
const renameConversation = async (item) => {
  const name = await ask({ title: "Rename this conversation", action: "Rename", input: item.title });
  if (typeof name !== "string" || !name.trim()) return;
  const answer = await act("rename", { conversation: item.id, title: name });
  const renamed = answer.conversations?.find((other) => other.id === room.conversation?.id);
  if (renamed) { room.conversation.title = renamed.title; draw(); }
};
const hideConversation = async (item) => {
  const sure = await ask({ title: "Delete this conversation?", action: "Delete", danger: true,
    body: "It leaves your list for good. What you rated in it is kept, because versions may have been trained on it." });
  if (!sure) return;
  await act("hide", { conversation: item.id });
  if (room.conversation?.id === item.id) open("latest");
};

// --- entering a room, and following a reply -------------------------------------------------------------------------
const enter = (next, exchange = next.live) => {
  const another = next.conversation?.id !== room.conversation?.id;
  next = memory.withEarlier(next, another ? [] : room.entries);
  room = next;
  if (another) { editing = null; instructionsBox.hidden = true; }
  remember("thumbprint.conversation", room.conversation?.id ?? "");
  const begun = exchange && exchange.state !== "over" ? exchange : null;
  if (!begun) { live = null; following += 1; }
  else if (live?.id !== begun.id || live.voted !== begun.voted) { live = begun; void track(live); }
  draw();
  if (begun) toEnd();
};
const track = async (exchange) => {
  const loop = ++following;
  document.body.classList.add("talking");
  let failures = 0;
  while (loop === following && (exchange.state === "writing" || exchange.state === "unsaved")) {
    const answer = await server.follow_exchange({ visitor: thumbprint.visitor(), exchange: exchange.id, seen: exchange.sides.map((side) => side.to), known: exchange.where });
    if (loop !== following) return;
    if (!answer?.live) {
      if (answer?.refused || (failures += 1) > 40) { say(answer?.refused ?? "The studio does not answer. Reload the page to see how it went on.", true); break; }
      say("Looking for the studio…");
      await new Promise((wake) => setTimeout(wake, 700));
      continue;
    }
    if (failures) { failures = 0; say(""); }
    const news = answer.live;
    for (const [i, side] of news.sides.entries()) {
      const held = exchange.sides[i];
      side.text = (held.text ?? "").slice(0, side.from === 0 ? 0 : undefined) + side.text;
      exchange.sides[i] = side;
    }
    Object.assign(exchange, { state: news.state, where: news.where, notice: news.notice, error: news.error, voted: news.voted ?? exchange.voted });
    drawLive();
    if (exchange.state === "unsaved") { say(exchange.notice, true); await new Promise((wake) => setTimeout(wake, 1500)); }
  }
  if (loop !== following) return;
  document.body.classList.remove("talking");
  if (exchange.state !== "over") { draw(); if (exchange.state === "vote") focusPair(); return; }
  if (exchange.notice) ended = { notice: exchange.notice, error: exchange.error };
  const answer = await request("open", { conversation: room.conversation.id });
  if (loop === following && answer.room) { live = null; enter(answer.room); }
};
const refresh = async (force = false) => {
  if (!ready || busy || acting || document.hidden || !room.conversation || editing || live?.state === "writing") return;
  const id = room.conversation.id, done = acts;
  const glance = await request("glance", { conversation: id });
  if (room.conversation?.id !== id || (!force && (!glance.stamp || glance.stamp === room.stamp))) return;
  const answer = await request("open", { conversation: id });
  if (answer.room && room.conversation?.id === id && !busy && done === acts) enter(answer.room);
};

// --- drawing --------------------------------------------------------------------------------------------------------
const nearEnd = () => scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 120;
const toEnd = (always = false) => { if (always || nearEnd()) scroll.scrollTop = scroll.scrollHeight; };
const dots = () => el("span", { class: "dots", role: "status", "aria-label": "Writing" }, el("i"), el("i"), el("i"));
const drawn = new Map();

const draw = () => {
  const stick = nearEnd();
  const focused = document.activeElement?.dataset?.judge;
  title.textContent = room.conversation?.title ?? "New conversation";
  instructionsButton.classList.toggle("set", Boolean(room.conversation?.system_prompt || draft.system_prompt));
  drawList();
  const nodes = room.entries.map((entry, at) => {
    const last = at === room.entries.length - 1;
    const key = JSON.stringify([entry, last, editing?.node === entry.node && editing.kind, Boolean(live), judging.key(entry)]);
    const held = drawn.get(entry.node);
    if (held?.key === key) return held.node;
    const node = entryNode(entry, last);
    drawn.set(entry.node, { key, node });
    return node;
  });
  const said = new Set(room.entries.map((entry) => entry.node));
  for (const id of drawn.keys()) if (!said.has(id)) drawn.delete(id);
  if (!nodes.length && !live) nodes.push(emptyNode());
  if (room.earlier > 0) nodes.unshift(memory.earlierNode());
  const end = liveNode() ?? endNode();
  if (end) nodes.push(end);
  nodes.forEach((node, at) => { if (column.children[at] !== node) column.insertBefore(node, column.children[at] ?? null); });
  while (column.children.length > nodes.length) column.lastChild.remove();
  const writing = live?.state === "writing";
  stopButton.hidden = !writing; sendButton.hidden = writing;
  root.classList.toggle("asking", Boolean(live?.kind === "pair" && !live.voted));
  if (!live) void memory.look();
  if (stick) toEnd(true);
  if (focused && document.activeElement?.dataset?.judge !== focused) column.querySelector(`[data-judge="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
};
const drawList = () => {
  const rows = room.conversations.map((item) => el("li", { class: item.id === room.conversation?.id ? "current" : null },
    el("button", { type: "button", class: "name", dir: "auto", "aria-current": item.id === room.conversation?.id ? "true" : null, onclick: () => { open(item.id); foldAfterChoice(); } }, item.title),
    memory.pin(item), tool("edit", `Rename “${item.title}”`, () => renameConversation(item)), tool("bin", `Delete “${item.title}”`, () => hideConversation(item))));
  list.replaceChildren(...(rows.length ? rows : [el("li", { class: "none soft" }, "What you talk about will be listed here.")]));
};
const emptyNode = () => el("div", { class: "empty" },
  el("h1", {}, "Talk, and say what you think of the answers."),
  el("p", { class: "soft" }, room.compared
    ? `${room.compared} comes as a pair: choose the better one. From enough choices the studio trains a new version, and you will be talking to it.`
    : "Rate the replies. From enough judgements the studio trains a new version, and you will be talking to it."),
  el("div", { class: "examples" }, EXAMPLES.map((text) => button(text, { class: "tp-button", onclick: () => { box.value = text; submit(); } }))));

const endNode = () => {
  const last = room.entries.at(-1);
  if (ended) return el("div", { class: `ending ${ended.error ? "bad" : ""}` }, el("p", { dir: "auto" }, ended.notice), last?.role === "user" && retryButton(last));
  if (last?.role === "user" && !live && !busy) return el("div", { class: "ending" }, el("p", {}, "There is no reply to this yet."), retryButton(last));
  return null;
};
const retryButton = (entry) => button("Ask for a reply", { class: "tp-button small", onclick: (event) => { ended = null; act("retry", { conversation: room.conversation.id, node: entry.node }, event.currentTarget); } }, icon("retry"));

const words = (text, plain = false) => plain ? el("div", { class: "words plain", dir: "auto" }, text) : el("div", { class: "words", dir: "auto" }, markdown(text));
const branches = (entry) => {
  const at = entry.siblings.indexOf(entry.node);
  if (entry.siblings.length < 2) return null;
  const to = (index) => ({ disabled: index < 0 || index >= entry.siblings.length || Boolean(live) });
  return el("span", { class: "branches" },
    tool("back", "The one before", () => act("show", { node: entry.siblings[at - 1] }), to(at - 1)), `${at + 1} of ${entry.siblings.length}`,
    tool("on", "The next one", () => act("show", { node: entry.siblings[at + 1] }), to(at + 1)));
};
const editor = (entry, kind) => {
  const field = el("textarea", { dir: "auto", "aria-label": kind === "edit" ? "Your message" : "The reply as it should be", rows: 3 });
  field.value = editing.text ?? entry.text;
  const stretch = () => { editing.text = field.value; field.style.height = "auto"; field.style.height = `${Math.min(field.scrollHeight + 2, 420)}px`; };
  const save = async (from) => {
    const answer = await (kind === "edit" ? act("edit", { node: entry.node, text: field.value }, from) : act("correct", { turn: entry.turn, text: field.value }, from));
    if (!answer.refused) { editing = null; ended = null; draw(); }
  };
  field.addEventListener("input", stretch);
  field.addEventListener("keydown", (event) => { if (event.key === "Escape") { editing = null; draw(); } });
  requestAnimationFrame(() => { stretch(); field.focus(); });
  return el("div", { class: "editor" }, field, el("div", { class: "row" },
    button(kind === "edit" ? "Send this instead" : "Keep as a better answer", { class: "tp-button small primary", onclick: (event) => save(event.currentTarget) }),
    button("Cancel", { class: "tp-button small quiet", onclick: () => { editing = null; draw(); } }),
    kind === "correct" && el("span", { class: "soft hint" }, "Your wording counts as better than the reply.")));
};
const edit = (entry, kind) => { editing = { node: entry.node, kind, text: null }; draw(); };

const entryNode = (entry, last = false) => {
  if (editing?.node === entry.node) return el("article", { class: `entry ${entry.role === "user" ? "said" : "reply"} open` }, editor(entry, editing.kind));
  if (entry.role === "user") return el("article", { class: "entry said", "data-node": entry.node, "aria-label": "You" }, words(entry.text, true),
    el("div", { class: "tools" }, branches(entry), !live && tool("edit", "Edit your message", () => edit(entry, "edit"))));
  const cut = { length: "Cut off at the length limit.", cancelled: "Stopped." }[entry.finish];
  return el("article", { class: "entry reply", "data-node": entry.node, "data-turn": entry.turn, "aria-label": "Reply" },
    words(entry.text), cut && el("p", { class: "soft cut" }, cut), comparedNode(entry),
    el("div", { class: "tools" },
      entry.turn && tool("up", entry.rating === 1 ? "Good reply (click to take back)" : "Good reply", () => judging.thumb(entry, 1), { "aria-pressed": String(entry.rating === 1), "data-rate": "up" }),
      entry.turn && tool("down", entry.rating === -1 ? "Bad reply (click to take back)" : "Bad reply", () => judging.thumb(entry, -1), { "aria-pressed": String(entry.rating === -1), "data-rate": "down" }),
      entry.turn && tool("more", "Say more about it (m)", () => judging.more(entry), { "data-judge-more": "" }),
      entry.turn && !live && entry.siblings.length > 1 && tool("order", "Put the replies in order (o)", () => judging.order(entry), { "data-judge-order": "" }),
      last && !live && tool("retry", "Another reply", () => { ended = null; act("retry", { conversation: room.conversation.id, node: entry.node }); }),
      entry.turn && !live && tool("edit", "Correct this reply", () => edit(entry, "correct")),
      tool("copy", "Copy", () => copy(entry.text)), !live && !last && memory.branch(entry), branches(entry),
      el("span", { class: "by soft mono", title: entry.corrected ? "You wrote this" : `Answered by ${entry.version}, fingerprint ${entry.fingerprint}` }, entry.corrected ? "your wording" : entry.version)),
    judging.panel(entry));
};
const CHOSEN = { tie: "You called it a tie.", both_bad: "You found both bad." };
const comparedNode = (entry) => {
  const compared = entry.compared;
  if (!compared) return null;
  const chosen = CHOSEN[compared.choice] ?? (compared.choice === compared.place ? `You chose this one, on the ${compared.place}.` : `You chose the other one, on the ${compared.choice}.`);
  if (!compared.choice) return el("details", { class: "compared soft" }, el("summary", {}, icon("check"), "One of two; you have not chosen."),
    el("p", { class: "soft" }, `This one stood on the ${compared.place}. The other reply:`), words(compared.other_text), judging.again(compared));
  const names = compared.version === compared.other_version ? `Both were ${compared.version}.` : `This one is ${compared.version}; the other was ${compared.other_version}.`;
  return el("details", { class: "compared soft" }, el("summary", {}, icon("check"), `${chosen} ${names}`),
    el("p", { class: "soft" }, "The other reply:"), words(compared.other_text), judging.again(compared));
};

let liveParts = [];
const liveNode = () => {
  if (!live) { liveParts = []; return null; }
  const pair = live.kind === "pair";
  liveParts = live.sides.map(() => el("div", { class: "words", dir: "auto" }));
  const article = pair ? pairNode() : el("article", { class: "entry reply live", "aria-busy": "true", "aria-label": "Reply" }, liveParts[0]);
  drawLive();
  return article;
};
const drawLive = () => {
  const stick = nearEnd();
  liveParts.forEach((part, i) => {
    const side = live?.sides[i];
    if (!side || part.shown === `${side.to}/${side.done}/${side.waiting}`) return;
    part.shown = `${side.to}/${side.done}/${side.waiting}`;
    part.replaceChildren(...(side.text ? markdown(side.text) : []));
    if (!side.done && side.waiting) part.append(el("p", { class: "soft" }, `Waiting for ${side.waiting === 1 ? "one reply" : `${side.waiting} replies`} before yours`));
    if (!side.done) (side.text ? (part.querySelector(":scope > :last-child li:last-child") ?? part.lastElementChild ?? part) : part).append(side.text ? el("span", { class: "caret" }) : dots());
    part.closest(".card")?.classList.toggle("writing", !side.done);
  });
  if (stick) toEnd(true);
};
const pairNode = () => {
  const cards = ["left", "right"].map((place, i) => {
    const version = live.voted?.versions[i];
    return el("div", { class: `card ${live.voted?.choice === place ? "chosen" : ""}`, "data-place": place },
      el("h3", {}, place === "left" ? "Left" : "Right", version && el("span", { class: "mono soft" }, `${version.version} · ${version.fingerprint}`)), liveParts[i]);
  });
  const choice = (name, label) => button(label, { class: `tp-button ${name}`, "data-choice": name, onclick: (event) => choose(name, event.currentTarget) }, el("kbd", {}, CHOICES[name]));
  return el("article", { class: "entry pair live", id: "pair", tabindex: "-1", "aria-label": "Two replies to choose between" },
    el("p", { class: "question" }, !live.voted && judging.guide("Guidelines"), live.voted ? "Recorded. The conversation goes on with your choice." : "Which reply is better?",
      !live.voted && live.state === "writing" && el("span", { class: "soft" }, " You may choose before both have ended.")),
    el("div", { class: "cards" }, cards),
    live.voted ? null : el("div", { class: "votes" }, choice("left", "Left is better"), choice("tie", "Tie"), choice("both_bad", "Both bad"), choice("right", "Right is better"),
      button("Skip", { class: "tp-button quiet small skip", title: "Go on with the left reply, without a judgement", onclick: (event) => act("skip", { exchange: live.id }, event.currentTarget), hidden: live.state === "writing" })));
};
const focusPair = () => { if (!box.value && !editing) column.querySelector("#pair")?.focus({ preventScroll: true }); toEnd(); };
document.addEventListener("keydown", (event) => {
  const choice = KEYS[event.key];
  const typing = event.target.closest?.("input, textarea, select, [contenteditable], dialog");
  if (!choice || typing || event.ctrlKey || event.metaKey || event.altKey || live?.kind !== "pair" || live.voted || thumbprint.tab() !== "chat") return;
  event.preventDefault();
  choose(choice, column.querySelector(`[data-choice="${choice}"]`));
});
document.addEventListener("visibilitychange", () => refresh());
addEventListener("focus", () => refresh());
setInterval(() => refresh(), 5000);

// --- start: wait for the model if need be, then show what was open ---------------------------------------------------
const begin = async () => {
  box.value = remembered("thumbprint.draft", ""); grow();
  draw();
  for (;;) {
    const answer = await open(remembered("thumbprint.conversation", ""), true);
    if (!answer.refused) break;
    say(answer.opening && !answer.problem ? "The model is being loaded. You can write already." : answer.refused, !answer.opening || Boolean(answer.problem));
    await new Promise((wake) => setTimeout(wake, answer.opening && !answer.problem ? 400 : 2000));
  }
  ready = true;
  void judging.look();
  void memory.look(true);
  void memory.visit();
};
void begin();
