// The judgements one by one: filters, a search, and more of them on a click. What is shown comes from the studio, as text.
const { el, icon } = thumbprint;
const root = element.querySelector("#feedback-browse");
const wanted = { signal: "all", version: "", day: "", mine: false, text: "" };
let asked = 0;        // the number of the latest question; an older answer is stale
let next = 0;
let typing = null;

const select = (label, name) => {
  const list = el("select", { "aria-label": label, onchange: () => { wanted[name] = list.value; look(); } });
  return list;
};
const choices = { signal: select("Kind", "signal"), version: select("Version", "version"), day: select("Day", "day") };
const mine = el("input", { type: "checkbox", id: "browse-mine", onchange: () => { wanted.mine = mine.checked; look(); } });
const search = el("input", { type: "search", placeholder: "Search replies and comments", "aria-label": "Search", dir: "auto", oninput: () => {
  clearTimeout(typing);
  typing = setTimeout(() => { wanted.text = search.value; look(); }, 250);
} });
const found = el("p", { class: "soft", role: "status" });
const body = el("tbody");
const older = el("button", { type: "button", class: "tp-button", hidden: true, onclick: () => look(true) }, "Show older ones");
root.append(el("h2", {}, "One by one"),
  el("div", { class: "filters" }, choices.signal, choices.version, choices.day, el("label", { for: "browse-mine" }, mine, "Mine only"), search),
  found, el("div", { class: "table" }, el("table", {}, el("thead", {}, el("tr", {}, ["Said", "About", "Version", "By", "When"].map((head) => el("th", {}, head)))), body)),
  el("div", { class: "actions" }, older));

const fill = (list, options, kept) => {
  list.replaceChildren(...options.map(([value, label]) => el("option", { value, selected: value === kept }, label)));
};
const row = (said) => el("tr", { "data-event-number": said.id },
  el("td", { "data-label": "Said" }, el("span", { class: `chip ${said.tone}` }, said.said)),
  el("td", { class: "wide", dir: "auto" }, said.reply || el("i", {}, said.note ? "" : "an empty reply"), said.note && el("span", { class: "note soft", dir: "auto" }, said.note)),
  el("td", { class: "mono", "data-label": "Version" }, said.versions.join(" / ")),
  el("td", { "data-label": "By" }, said.mine ? "you" : el("span", { class: "mono" }, said.rater)),
  el("td", { class: "nowrap", title: said.guidelines ? `${said.moment}, under guidelines ${said.guidelines}` : said.moment }, said.when));

const look = async (more = false) => {
  const question = ++asked;
  root.classList.add("looking");
  const answer = await server.look_up({ visitor: thumbprint.visitor(), ...wanted, before: more ? next : 0 });
  if (question !== asked) return;
  root.classList.remove("looking");
  if (!answer || answer.opening) return;
  if (answer.refused) { root.hidden = false; found.textContent = answer.refused; return; }
  if (!more) {
    body.replaceChildren();
    fill(choices.signal, Object.entries(answer.signals), wanted.signal);
    fill(choices.version, [["", "Every version"], ...answer.versions.map((version) => [version, version])], wanted.version);
    fill(choices.day, [["", "Every day"], ...answer.days.map((day) => [day, day])], wanted.day);
    found.textContent = answer.total === null ? "Many judgements; the newest come first." : answer.total >= 10000 ? "10,000 judgements or more." : answer.total === 1 ? "One judgement." : `${answer.total.toLocaleString("en")} judgements.`;
    const narrowed = wanted.signal !== "all" || wanted.version || wanted.day || wanted.mine || wanted.text;
    root.hidden = answer.total === 0 && !narrowed;
  }
  body.append(...answer.rows.map(row));
  next = answer.next;
  older.hidden = !answer.more;
};
document.addEventListener("click", (event) => { if (event.target.closest?.("#feedback-button")) look(); });
