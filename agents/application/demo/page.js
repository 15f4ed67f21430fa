/* The legal tokens. Buttons: a click takes one, and so do its letter and Enter; arrows move, Backspace undoes. A search
   field: Enter and a click on a suggestion take a token, Backspace undoes where it is empty. Both are new after each
   token, so that the focus has to be put back. */
let kept = null;  /* the token whose button had the focus, "" for another place */
const buttons = () => [...element.querySelectorAll("button[data-token]")];
const field = () => element.querySelector("input");
const take = token => { kept = token; trigger("select", { token: Number(token) }); };
const undo = () => { kept = document.activeElement.dataset.token ?? ""; trigger("delete"); };
const found = text => {
  const all = [...element.querySelectorAll("option")], same = all.filter(option => option.value === text);
  const alike = same.length ? same : all.filter(option => text && option.value.startsWith(text));
  return alike.length === 1 ? alike[0] : null;
};
const search = () => {
  const option = found(field().value);
  field().setAttribute("aria-invalid", String(option === null));
  if (option !== null) { take(option.dataset.token); field().value = ""; }
};
element.addEventListener("click", event => {
  const button = event.target.closest("button[data-token]");
  if (button) take(button.dataset.token);
});
element.addEventListener("input", event => {  /* a suggestion was chosen: nothing was typed */
  field().setAttribute("aria-invalid", "false");
  if (!event.inputType || event.inputType === "insertReplacementText") search();
});
element.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (field()) {
    if (event.key === "Enter") search();
    if (event.key === "Backspace" && field().value === "") undo();
    return;
  }
  const all = buttons(), at = all.indexOf(document.activeElement);
  const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 };
  const named = event.key === " " ? undefined : all.find(button => button.textContent === event.key);
  if (event.key in moves) all[Math.min(all.length - 1, Math.max(0, moves[event.key]))]?.focus();
  else if (event.key === "Backspace") undo();
  else if (named) take(named.dataset.token);
  else return;
  event.preventDefault();
});
new MutationObserver(() => {
  const all = field() ? [field()] : buttons();
  if (kept === null || !all.length) return;
  (all.find(one => one.dataset.token === kept) ?? all[0]).focus();
  kept = null;
}).observe(element, { childList: true, subtree: true });
