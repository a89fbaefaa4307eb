// Feedback, Training, Versions, Health: their HTML comes whole from the studio; this lets its buttons act, and keeps open what
// the person has opened when the HTML is redrawn. What may be triggered: "retrain", "cancel_run", "roll_back".
const opened = new Set();
element.addEventListener("toggle", (event) => {
  if (!event.target.id) return;
  if (event.target.open) opened.add(event.target.id); else opened.delete(event.target.id);
}, true);
watch("value", () => opened.forEach((id) => { const box = element.querySelector(`#${CSS.escape(id)}`); if (box) box.open = true; }));
element.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-event], [data-go]");
  if (!button || button.disabled) return;
  const { event: name, go, ask, body, action, reason, version } = button.dataset;
  if (go) { thumbprint.go(go); return; }
  let why = "";
  if (ask) {
    const answer = await thumbprint.ask({ title: ask, body, action, input: reason ? "" : null, placeholder: reason ?? "" });
    if (answer === false) return;
    why = typeof answer === "string" ? answer : "";
  }
  button.classList.add("busy");
  setTimeout(() => button.classList.remove("busy"), 4000);
  trigger(name, { version: version ?? "", reason: why });
});
